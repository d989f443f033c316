"""How every table, sync and target of a deployment stands: pending, running, ok, failed, waiting or not judged.

Read from the lake; what runs at the moment is told by whoever asks Dagster. Nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from typing import Any

from heap_assets.errors import HeapAssetsError
from heap_assets.pipelines.publishing import open_publisher, published_tables, unpublished_days
from heap_assets.pipelines.status_facts import (
    days_due,
    last_runs,
    last_time,
    newest_day,
    newest_verdicts,
    next_turn,
    not_landed,
    not_sent,
)
from heap_assets.pipelines.waiting import Wait, waits
from heap_assets.project import Project
from heap_assets.quality import Severity, StoredVerdict, result_store
from heap_assets.tables import (
    AUDIENCES,
    AUDIT,
    GRAPH,
    PROFILES,
    RESOLVED,
    SNAPSHOT_TABLES,
    heap_asset,
    is_sync,
    sync_asset,
    warehouse_asset,
)


class State(StrEnum):
    """How an asset stands; of several the first that holds."""

    RUNNING = "running"
    FAILED = "failed"
    WAITING = "waiting"
    PENDING = "pending"
    NOT_JUDGED = "not judged"
    OK = "ok"


@dataclass(frozen=True)
class Activity:
    """What Dagster says of an asset: its newest run.

    Attributes
    ----------
    state
        `queued`, `running` or `failed`; assets whose newest run succeeded have no activity.
    """

    state: str
    run_id: str


@dataclass(frozen=True)
class AssetStatus:
    """How one asset stands.

    Attributes
    ----------
    newest_day, written_at
        The newest partition in the lake, and when it was last written (UTC).
    days_due
        Days that are to be built, read, sent or published.
    reason
        Why it is not ok: what failed, what it waits for.
    until, next_at
        When the wait ends, if that is known; when its schedule has its next turn (UTC).
    last_at, last
        Of warehouse tables the last read; of syncs the last run, and how it ended, with the rows that were sent.
    """

    asset: str
    state: State
    newest_day: str | None = None
    written_at: datetime | None = None
    days_due: int = 0
    reason: str = ""
    until: datetime | None = None
    next_at: datetime | None = None
    last_at: datetime | None = None
    last: str = ""
    failed_checks: Sequence[str] = ()
    not_judged: Sequence[str] = ()


@dataclass(frozen=True)
class _Lately:
    """What concerns all assets, asked once."""

    waits: Mapping[str, Wait]
    due: Mapping[str, set[date]]
    verdicts: Mapping[str, list[StoredVerdict]]
    broken: Mapping[str, str]
    runs: Mapping[str, Mapping[str, Any]]
    activity: Mapping[str, Activity] = field(default_factory=dict)


def asset_statuses(project: Project, activity: Mapping[str, Activity] | None = None) -> list[AssetStatus]:
    """Return how every asset stands, in the order of the pipeline: tables, identity, profiles, syncs, targets.

    Parameters
    ----------
    activity
        Asset to what Dagster says of it; without, nothing is running and no run has failed.
    """
    waiting = {wait.asset: wait for wait in waits(project)}
    if GRAPH in waiting:
        waiting |= dict.fromkeys(RESOLVED, waiting[GRAPH])
    runs = last_runs(project)
    lately = _Lately(
        waiting,
        days_due(project),
        newest_verdicts(project),
        {**not_landed(project), **not_sent(runs)},
        runs,
        activity or {},
    )
    known = [_of_lake(project, asset, lately) for asset in _assets(project)]
    return [*known, *_published(project, lately)]


def shown_assets(project: Project) -> list[str]:
    """Return the assets that :func:`asset_statuses` tells of."""
    published = [table.asset for target in project.settings.publish for table in published_tables(project, target)]
    return [*_assets(project), *published]


def _assets(project: Project) -> list[str]:
    warehouse = project.settings.warehouse.tables if project.settings.warehouse else {}
    audiences = [AUDIENCES] if project.settings.profiles.audiences else []
    return [
        *(heap_asset(table) for table in (*SNAPSHOT_TABLES, *project.event_tables)),
        *(warehouse_asset(name) for name in warehouse),
        *(*RESOLVED, PROFILES, AUDIT, *audiences),
        *(sync_asset(name) for name in project.settings.sync),
    ]


def _of_lake(project: Project, asset: str, lately: _Lately) -> AssetStatus:
    found = lately.verdicts.get(asset, [])
    failed = [v for v in found if v.failed and v.severity is Severity.ERROR]
    unjudged = [v for v in found if v.not_judged and not v.passed]
    newest, written_at = newest_day(project, asset, found)
    due = len(lately.due.get(asset, ()))
    state, reason = _state(asset, lately, failed, unjudged, due, built=newest is not None)
    wait = lately.waits.get(asset)
    return AssetStatus(
        asset,
        state,
        newest,
        written_at,
        due,
        reason,
        wait.until if wait and state is State.WAITING else None,
        next_turn(project, asset),
        *last_time(project, asset, lately.runs),
        tuple(f"{v.check} {v.partition}" for v in failed),
        tuple(f"{v.check} {v.partition}" for v in unjudged),
    )


def _state(
    asset: str,
    lately: _Lately,
    failed: Sequence[StoredVerdict],
    unjudged: Sequence[StoredVerdict],
    due: int,
    *,
    built: bool,
) -> tuple[State, str]:
    now, wait = lately.activity.get(asset), lately.waits.get(asset)
    if now is not None and now.state == "running":
        return State.RUNNING, f"run {now.run_id[:8]}"
    # what asks for confirmation has failed its check of delivery for no other reason
    if failed and not (wait and is_sync(asset)):
        named = "; ".join(f"check {v.check} failed{_where(v)}{_why(v)}" for v in failed[:3])
        return State.FAILED, named + (f"; and {len(failed) - 3} more" if len(failed) > 3 else "")
    if asset in lately.broken:
        return State.FAILED, lately.broken[asset]
    if now is not None and now.state == "failed" and wait is None:
        return State.FAILED, f"its newest run failed: {now.run_id[:8]} in the UI"
    if wait is not None:
        return State.WAITING, wait.reason
    if now is not None or due or not built:
        queued = f"run {now.run_id[:8]} is queued" if now else ""
        return State.PENDING, queued or _due_in_words(asset, due)
    if unjudged:
        return State.NOT_JUDGED, "; ".join(f"{v.check} {v.partition}: {v.not_judged}" for v in unjudged[:3])
    return State.OK, ""


def _due_in_words(asset: str, due: int) -> str:
    done = {"warehouse": "read", "sync": "sent", "publish": "published"}.get(asset.partition("/")[0], "built")
    days = "1 day is" if due == 1 else f"{due} days are"
    return f"{days} to be {done}" if due else f"nothing was {done} yet"


def _where(verdict: StoredVerdict) -> str:
    return "" if verdict.partition == result_store.WHOLE else f" on {verdict.partition}"


def _why(verdict: StoredVerdict) -> str:
    reason = str(verdict.notes.get("reason", ""))
    return f": {reason}" if reason else ""


def _published(project: Project, lately: _Lately) -> Iterator[AssetStatus]:
    """Yield the published tables by what was published from here; the targets themselves are not asked."""
    for target in project.settings.publish:
        try:
            publisher = open_publisher(project, target)
            tables = published_tables(project, target)
        except HeapAssetsError as error:
            yield AssetStatus(f"publish/{target}", State.FAILED, reason=str(error))
            continue
        for table in tables:
            done = publisher.newest_published(table.publication.table)
            due = len(unpublished_days(project, publisher, table))
            state, reason = _state(table.asset, lately, (), (), due, built=done is not None)
            yield AssetStatus(table.asset, state, str(done) if done else None, days_due=due, reason=reason)
