"""Group `status`: the page that can be sent to a colleague, written every morning."""

from datetime import timedelta
from typing import Any

import dagster as dg

from heap_assets.orchestration.checks import asset_key
from heap_assets.orchestration.resources import LakeResource
from heap_assets.project import Project
from heap_assets.redaction import redacting
from heap_assets.report import Status, outcome, status_page
from heap_assets.storage import state_keys
from heap_assets.tables import AUDIT, PROFILES, sync_asset

REPORT = "status/report"
PAGE = f"{state_keys.STATUS}/report.html"
_SCHEDULE = "40 5 * * *"
_SHOWN = 12
_TWO_HOURS = timedelta(hours=2)


def status_report(project: Project) -> dg.AssetsDefinition:
    """Return the asset of the status page; it has no partitions: a page tells how things stand."""
    told_of = [PROFILES, AUDIT, *(sync_asset(name) for name in project.settings.sync)]

    @dg.asset(
        key=asset_key(REPORT),
        deps=[asset_key(path) for path in told_of],
        group_name="status",
        kinds={"html"},
        owners=[project.settings.run.owner],
        description="The status page: how new the data is, what fails, who is who, what was sent.\n\n"
        "One HTML file that opens without a network and holds no personal value; `heap-assets report` writes the same.",
        metadata={"dagster/uri": f"{project.lake.store.url.rstrip('/')}/{PAGE}"},
        freshness_policy=dg.FreshnessPolicy.cron(deadline_cron="0 7 * * *", lower_bound_delta=_TWO_HOURS),
    )
    @redacting
    def report(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult[Any]:
        opened = project.with_lake(lake.open())
        page, status = status_page(opened.lake)
        opened.lake.store.write(PAGE, page.encode())
        return dg.MaterializeResult(metadata=_metadata(opened, page, status))

    return report


def status_schedule(status: dg.DefaultScheduleStatus) -> dg.ScheduleDefinition:
    """Return the schedule that writes the page before people come to work."""
    return dg.ScheduleDefinition(
        name="write_status_report",
        target=dg.AssetSelection.assets(asset_key(REPORT)),
        cron_schedule=_SCHEDULE,
        execution_timezone="UTC",
        default_status=status,
        description="Writes the status page every morning.",
    )


def _metadata(project: Project, page: str, status: Status) -> dict[str, Any]:
    outcomes = [outcome(result) for result in status.newest]
    uri = f"{project.lake.store.url.rstrip('/')}/{PAGE}"
    return {
        "page": dg.MetadataValue.path(uri) if "://" not in uri else dg.MetadataValue.url(uri),
        "bytes": len(page.encode()),
        "checks": len(outcomes),
        "failing": outcomes.count("error"),
        "warning": outcomes.count("warn"),
        "not_judged": outcomes.count("unjudged"),
        "assets_behind": sum(result.failed for result in status.freshness),
        **status.figures,
        "needs_a_look": dg.MetadataValue.md(_attention(status)),
    }


def _attention(status: Status) -> str:
    lines = [
        f"- **{result.asset}** {result.check}{'' if result.partition == 'all' else f', {result.partition}'}: "
        f"{result.rule}"
        for result in status.failing[:_SHOWN]
    ]
    more = [f"- and {len(status.failing) - _SHOWN} more"] if len(status.failing) > _SHOWN else []
    return "\n".join([*lines, *more]) or "Every check passes."
