"""Group `privacy`: erasures, and how the rules of privacy are kept.

Run configuration and metadata hold ids of requests, counts and hashes, and no values.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
import polars as pl
from pydantic import Field

from heap_assets.orchestration.checks import LAKE, StepChecks, asset_key, check_specs, lake_of
from heap_assets.orchestration.column_types import table_schema
from heap_assets.orchestration.failures import raising_failures
from heap_assets.pipelines.erasure import run
from heap_assets.pipelines.erasure_index import index_values
from heap_assets.pipelines.erasure_requests import sweep, take_in_from_tables, write_request_table
from heap_assets.pipelines.findings import write_findings
from heap_assets.pipelines.keys import write_keys
from heap_assets.pipelines.person_export import write_sharing_log
from heap_assets.pipelines.retention import write_retention
from heap_assets.pipelines.suites import thresholds
from heap_assets.project import Names, Project
from heap_assets.quality import Check, Severity, checks_for_privacy
from heap_assets.tables import ERASURES, FINDINGS, KEYS, RETENTION

GROUP = "privacy"
_EVERY_HOUR = "25 * * * *"
_ROWS = 100


class ErasureConfig(dg.Config):
    """Options of one run: ids of requests and nothing of a person, because Dagster keeps the configuration of runs."""

    requests: list[str] = Field(default=[], description="Ids of confirmed requests; all that are confirmed if empty")


def erasures(project: Project) -> dg.AssetsDefinition:
    """Return the asset of erasures, without partitions: a row per request, with its state and counts."""
    names = project.names

    @dg.asset(
        key=asset_key(ERASURES, names),
        group_name=names.group(GROUP),
        required_resource_keys={names.name(LAKE)},
        pool=names.name("erasure"),
        kinds={"parquet"},
        description="Takes in requests from tables, erases the people of all confirmed requests from every place, asks "
        "destinations to, polls those that take days, removes what came back, and writes proofs. Confirm requests by "
        "`heap-assets erase confirm`; the proof of one: `heap-assets erase proof`.",
    )
    @raising_failures
    def erase(context: dg.AssetExecutionContext, config: ErasureConfig) -> dg.MaterializeResult[Any]:
        opened = project.with_lake(lake_of(context, names))
        new = take_in_from_tables(opened)
        result = run(opened, context.run.run_id, config.requests)
        came_back = sweep(opened)
        indexed = index_values(opened)
        table = write_request_table(opened)
        shared = write_sharing_log(opened)
        states = dict(table["state"].value_counts(sort=True).iter_rows())
        for where, why in sorted(result.unsettled.items()):
            context.log.warning("not erased yet: %s: %s", where, why)
        return dg.MaterializeResult(
            metadata={
                "new_requests": len(new),
                "rows_erased": result.rows,
                "cells_erased": result.cells,
                "objects": result.objects,
                "unsettled": len(result.unsettled),
                "rows_that_came_back": came_back,
                "files_indexed": indexed,
                "dagster/row_count": table.height,
                "fields_shared": shared.select("sync", "field").n_unique(),
                **{f"requests_{state}": count for state, count in sorted(states.items())},
            }
        )

    return erase


def policies(project: Project) -> list[dg.AssetsDefinition]:
    """Return the tables that say how the rules of privacy are kept, each written anew by every run, with its checks."""
    severity = Severity.ERROR if project.settings.privacy.overdue_keys == "error" else Severity.WARN
    checks = checks_for_privacy(thresholds(project), severity)
    return [_policy(project, path, [c for c in checks if c.asset == path], *of) for path, of in _POLICIES.items()]


_POLICIES: Mapping[str, tuple[Callable[[Project], pl.DataFrame], str]] = {
    KEYS: (
        write_keys,
        "Age and end of the credentials that `privacy.keys` names, by their variables; without values.",
    ),
    FINDINGS: (
        write_findings,
        "What looks like personal data in the newest day of every table that comes from outside: counts by table, "
        "column and rule, without values. `heap-assets findings` shows the same and writes nothing.",
    ),
    RETENTION: (
        write_retention,
        "The oldest day of each table, and what has expired and is still there.",
    ),
}
"""Asset to what writes it, and what it holds."""


def _policy(
    project: Project, path: str, checks: Sequence[Check], write: Callable[[Project], pl.DataFrame], about: str
) -> dg.AssetsDefinition:
    names, key = project.names, asset_key(path, project.names)

    @dg.multi_asset(
        name=names.name(path.replace("/", "__")),
        specs=[dg.AssetSpec(key, group_name=names.group(GROUP), kinds={"parquet"}, description=about, skippable=True)],
        check_specs=check_specs(checks, None, names),
        can_subset=True,
        required_resource_keys={names.name(LAKE)},
        description=about,
    )
    @raising_failures
    def write_table(context: dg.AssetExecutionContext) -> Iterator[Any]:
        opened = project.with_lake(lake_of(context, names))
        step = StepChecks(context, opened.lake, checks, names)
        if key in context.selected_asset_keys:
            table = write(opened)
            columns: dict[str, Any] = {
                "dagster/row_count": table.height,
                "dagster/column_schema": table_schema(table.schema),
            }
            yield dg.MaterializeResult[Any](asset_key=key, metadata={**columns, "table": _shown(table)})
        yield from step.evaluate(path)
        yield from step.finish()

    return write_table


def _shown(table: pl.DataFrame) -> dg.TableMetadataValue:
    """Return the first rows of a table, which holds names of tables, columns and variables, and counts."""
    rows = [
        {name: "" if value is None else str(value) for name, value in row.items()}
        for row in table.head(_ROWS).to_dicts()
    ]
    return dg.MetadataValue.table(
        [dg.TableRecord(row) for row in rows],
        schema=dg.TableSchema([dg.TableColumn(name) for name in table.columns]),
    )


def policy_job(names: Names) -> Any:
    """Return the job that writes the tables of policies, with their checks."""
    return dg.define_asset_job(
        names.name("look_after_privacy"),
        selection=dg.AssetSelection.assets(*(asset_key(path, names) for path in _POLICIES)),
        description="Says which credentials have to be replaced, where personal data lies, and what has expired.",
    )


def policy_schedule(names: Names, job: Any, status: dg.DefaultScheduleStatus) -> dg.ScheduleDefinition:
    """Return its schedule: each morning, after retention."""
    return dg.ScheduleDefinition(
        name=names.name("look_after_privacy_daily"),
        job=job,
        cron_schedule="10 6 * * *",
        execution_timezone="UTC",
        default_status=status,
        description="Each morning: age of credentials, findings of personal data, what has expired.",
    )


def erasure_job(names: Names) -> Any:
    """Return the job that erases, with ids of requests in its configuration."""
    return dg.define_asset_job(
        names.name("erase_people"),
        selection=dg.AssetSelection.assets(asset_key(ERASURES, names)),
        description="Erases the people of confirmed requests, all of them or those whose ids the configuration has.",
    )


def erasure_schedule(names: Names, job: Any, status: dg.DefaultScheduleStatus) -> dg.ScheduleDefinition:
    """Return the schedule of erasures: each hour, which also asks destinations how far they are."""
    return dg.ScheduleDefinition(
        name=names.name("erase_and_poll"),
        job=job,
        cron_schedule=_EVERY_HOUR,
        execution_timezone="UTC",
        default_status=status,
        description="Takes in requests of erasure, erases those that are confirmed, and polls destinations.",
    )
