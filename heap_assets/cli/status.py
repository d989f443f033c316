"""`heap-assets status`: the state of every table, sync and target, on one screen."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import click

from heap_assets import clock
from heap_assets.cli.home import dagster_home
from heap_assets.cli.output import progress, report_option
from heap_assets.errors import HeapAssetsError
from heap_assets.pipelines.exports import is_exported
from heap_assets.pipelines.function_rebuilds import function_rebuilds
from heap_assets.pipelines.status import (
    AssetStatus,
    Backlog,
    State,
    asset_statuses,
    build_backlog,
    dump_backlog,
    shown_assets,
)
from heap_assets.pipelines.waiting import dump_waits
from heap_assets.project import Project, open_project
from heap_assets.tables import WAREHOUSE_SOURCE, is_sync, is_warehouse_table
from heap_assets.versions import version_of

_GROUPS = ("heap", WAREHOUSE_SOURCE, "inbox", "identity", "profiles", "sync", "publish")
_WIDEST = 44


@dataclass(frozen=True)
class DumpsStatus:
    """What Heap has delivered: ids of dumps, and tables of them that were rejected with the reason.

    What is pending is None if the source could not be asked.
    """

    pending: Sequence[int] | None
    landed: int
    newest_day: str | None
    rejected: Sequence[Mapping[str, Any]]
    waits: str
    unreachable: str = ""


@click.command(epilog="Status 1: the source cannot be reached; with --fail, something failed.")
@click.option("--all", "show_all", is_flag=True, help="Also list what is ok or not asked, a line each")
@report_option
@click.option("--fail", is_flag=True, help="End with status 1 if something failed")
def status(show_all: bool, as_json: bool, fail: bool) -> None:
    """Show how every table stands: pending, running, ok, failed, waiting (for what, until when), not judged, not asked.

    Published tables are `not asked` where all was published, by the records in the lake: whether the target still has
    it, `heap-assets publish --dry-run` asks. Works while `heap-assets dev` runs and without it; writes nothing.
    """
    project = open_project()
    with progress("Asking the lake, the source and Dagster"):
        dumps = None if is_exported(project) else _dumps(project)
        dagster, assets = _assets(project)
        rebuilds = [rebuild.text for rebuild in function_rebuilds(project)]
    backlogs = {"days": build_backlog(project, assets)}
    if dumps and dumps.pending is not None:
        backlogs["dumps"] = dump_backlog(project, len(dumps.pending))
    if as_json:
        click.echo(json.dumps(_document(project, dagster, dumps, assets, backlogs, rebuilds), default=_plain))
    else:
        for line in _screen(project, dagster, dumps, assets, backlogs, rebuilds, show_all=show_all):
            click.echo(line)
    failed = any(item.state is State.FAILED for item in assets) or bool(dumps and dumps.rejected)
    unreachable = bool(dumps and dumps.unreachable)
    raise SystemExit(1 if unreachable or (fail and failed) else 0)


def _assets(project: Project) -> tuple[str, list[AssetStatus]]:
    """Return a summary of the newest runs, and the state of the assets."""
    home, activity = dagster_home(), None
    if home is not None:
        os.environ |= {"DAGSTER_HOME": str(home), "DAGSTER_DISABLE_TELEMETRY": "1"}
        from heap_assets.orchestration.assets.status import activity_of  # Dagster takes seconds to import

        activity = activity_of(home, project.lake, shown_assets(project))
    if activity is None:
        return "nothing has run here yet", asset_statuses(project)
    counts = Counter(item.state for item in activity.values())
    counted = ", ".join(f"{counts[state]} {state}" for state in ("running", "queued", "failed") if counts[state])
    return f"newest runs of assets: {counted or 'all done'}", asset_statuses(project, activity)


def _dumps(project: Project) -> DumpsStatus:
    records = project.landing.records()
    rejected = [
        {"dump": r.dump_id, "table": None, "reason": r.failure.summary, "retry_at": r.retry_at}
        for r in records.values()
        if r.failure is not None
    ]
    rejected += [
        {"dump": r.dump_id, "table": name, "reason": table.failure.summary, "retry_at": table.retry_at}
        for r in records.values()
        for name, table in r.tables.items()
        if table.failure is not None and project.landing.config.tables.takes_table(name)
    ]
    newest = max((str(r.day) for r in records.values()), default=None)
    waits = "; ".join(map(str, dump_waits(project)))
    try:
        pending = [manifest.dump_id for manifest in project.landing.waiting(project.source())]
    except HeapAssetsError as error:
        return DumpsStatus(None, len(records), newest, rejected, waits, str(error))
    return DumpsStatus(pending, len(set(records) - set(pending)), newest, rejected, waits)


def _document(
    project: Project,
    dagster: str,
    dumps: DumpsStatus | None,
    assets: Sequence[AssetStatus],
    backlogs: Mapping[str, Backlog],
    rebuilds: Sequence[str],
) -> dict[str, Any]:
    return {
        "at": clock.now(),
        "settings": version_of(project.settings.model_dump(mode="json")),
        "dagster": dagster,
        "dumps": asdict(dumps) if dumps else None,
        "backlogs": {
            of: {**asdict(work), "remaining_seconds": work.remaining and work.remaining.total_seconds()}
            for of, work in backlogs.items()
        },
        "rebuilds": list(rebuilds),
        "assets": [asdict(item) for item in assets],
    }


def _screen(
    project: Project,
    dagster: str,
    dumps: DumpsStatus | None,
    assets: Sequence[AssetStatus],
    backlogs: Mapping[str, Backlog],
    rebuilds: Sequence[str],
    *,
    show_all: bool,
) -> Iterator[str]:
    settings = version_of(project.settings.model_dump(mode="json"))
    yield f"{clock.now():%Y-%m-%d %H:%M} UTC  settings {settings}  {dagster}"
    if dumps:
        yield from _dump_lines(dumps)
    for of, work in backlogs.items():
        if work.remaining is not None:
            minutes = max(round(work.remaining.total_seconds() / 60), 1)
            yield f"  {work.left:,} {of} left: about {minutes:,} min at {work.per_minute:,.0f} a minute"
    yield from (f"  {rebuild}" for rebuild in rebuilds)
    at = _GROUPS.index(WAREHOUSE_SOURCE) + 1
    for group in (*_GROUPS[:at], *project.settings.sources, *_GROUPS[at:]):
        members = [item for item in assets if _group(item.asset) == group]
        if not members:
            continue
        counts = Counter(item.state for item in members)
        yield ""
        yield f"{group:<11}" + ", ".join(f"{counts[state]} {state}" for state in State if counts[state])
        yield from _lines([item for item in members if show_all or _is_shown(item)])


def _is_shown(item: AssetStatus) -> bool:
    """Syncs and warehouse tables have a schedule, which is shown also if all is well."""
    return item.state not in (State.OK, State.NOT_ASKED) or item.next_at is not None or is_sync(item.asset)


def _dump_lines(dumps: DumpsStatus) -> Iterator[str]:
    newest = f", the newest of {dumps.newest_day}" if dumps.newest_day else ""
    pending = "?" if dumps.pending is None else len(dumps.pending)
    yield f"dumps      {pending} pending, {dumps.landed} landed{newest}, {len(dumps.rejected)} rejected"
    if dumps.unreachable:
        yield f"  the source cannot be listed: {dumps.unreachable}"
    if dumps.waits:
        yield f"  {dumps.waits}"
    for rejected in dumps.rejected[:5]:
        retry = f"; tried again at {rejected['retry_at']:%Y-%m-%d %H:%M} UTC" if rejected["retry_at"] else ""
        yield f"  dump {rejected['dump']} {rejected['table'] or 'manifest'}: {rejected['reason']}{retry}"
    if len(dumps.rejected) > 5:
        yield f"  and {len(dumps.rejected) - 5} more: `heap-assets rejected`"


def _lines(members: Sequence[AssetStatus]) -> Iterator[str]:
    rows = [(i.asset, str(i.state), i.newest_day or "-", _when(i), _details(i)) for i in members]
    widths = [min(_WIDEST, max((len(row[i]) for row in rows), default=0)) for i in range(4)]
    for row in rows:
        yield ("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True))).rstrip()


def _when(item: AssetStatus) -> str:
    if item.until is not None:
        return f"until {item.until:%m-%d %H:%M}"
    return f"next {item.next_at:%m-%d %H:%M}" if item.next_at is not None else ""


def _details(item: AssetStatus) -> str:
    last = f"{item.last_at:%m-%d %H:%M} {item.last or 'read'}" if item.last_at is not None else ""
    return "; ".join(part for part in (last, item.reason) if part)


def _group(asset: str) -> str:
    head = asset.partition("/")[0]
    return head if head in _GROUPS or is_warehouse_table(asset) else "profiles"


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
