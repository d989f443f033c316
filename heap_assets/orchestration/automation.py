"""When assets run by themselves: one trigger per asset (design.md, Flow)."""

import time
from collections.abc import Callable, Collection, Mapping
from datetime import date, timedelta
from typing import Any, Generic, TypeVar

import dagster as dg

from heap_assets import clock
from heap_assets.orchestration.checks import asset_key
from heap_assets.pipelines.exports import is_exported
from heap_assets.pipelines.inbox import unbuilt_inbox_days
from heap_assets.pipelines.readiness import graph_is_due, landing_pauses, unbuilt_days, unbuilt_people
from heap_assets.pipelines.waiting import first_runs, never_read_upstreams, unread_tables
from heap_assets.project import Names, Project
from heap_assets.tables import GRAPH, RESOLVED, warehouse_asset

Condition = dg.AutomationCondition[Any]
T = TypeVar("T")

_NEWEST = timedelta(days=2)
"""The running day and the newest complete one: a dump of the night after D carries D."""
_REMEMBERED_SECONDS = 5.0

_ANY_DEPS_UPDATED: Condition = dg.AutomationCondition.any_deps_updated()
_UPDATED: Condition = _ANY_DEPS_UPDATED.since(dg.AutomationCondition.newly_requested() & ~_ANY_DEPS_UPDATED)
"""An update is remembered until it was acted on: `any_deps_updated` alone tells it to a single tick, at which the run
or the backfill that built the input is often still at other tables."""


def follows_graph(names: Names) -> Condition:
    """Return the condition of profiles, audit and audiences: an input was updated, and the day has its graph."""
    graph = dg.AssetSelection.assets(asset_key(GRAPH, names))
    condition = (
        _UPDATED
        # users and warehouse tables of a day exist before its graph does
        & ~dg.AutomationCondition.any_deps_missing().allow(graph)
        & ~dg.AutomationCondition.any_deps_in_progress()
        & ~dg.AutomationCondition.in_progress()
    )
    return _labelled(condition, "its graph was resolved, or a table that gives traits was read")


def by_cron(cron: str) -> Condition:
    """Return the condition of what has a schedule of its own: the newest days, when its time has come (cron, UTC)."""
    condition = (
        dg.AutomationCondition.in_latest_time_window(_NEWEST)
        & dg.AutomationCondition.cron_tick_passed(cron)
        & ~dg.AutomationCondition.in_progress()
    )
    return _labelled(condition, f"its time has come: {cron}")


_DEPS_UPDATED = _UPDATED & ~dg.AutomationCondition.any_deps_in_progress() & ~dg.AutomationCondition.in_progress()
PUBLISHED_DAYS: Condition = _DEPS_UPDATED.with_label("what is published was built anew")
"""Every day, however old, whose input was written; a write that changed nothing is recognised by its version."""
REVERSE_ETL_DUE: Condition = _DEPS_UPDATED.with_label("what it reads was built or published anew")
PUBLISHED_VIEWS: Condition = _DEPS_UPDATED.with_label("a table was published")

REPORT_DUE: Condition = (
    (_UPDATED | (dg.AutomationCondition.missing() & ~dg.AutomationCondition.execution_failed()))
    & ~dg.AutomationCondition.any_deps_in_progress()
    & ~dg.AutomationCondition.in_progress()
).with_label("profiles were made or a sync has run since it was written")


class DaysDue(dg.AutomationCondition[dg.AssetKey]):
    """True for the days of an asset that are due according to the lake, however old.

    Dagster's own conditions fire on events while they watch, one partition at a time. Here the due days are a function
    of what landed and what was built, so nothing is missed by an asset that is new to the catalogue, by a daemon that
    was down, or by a graph that depends on all days.
    """

    def __init__(self, names: Names, label: str, due: Callable[[], Mapping[str, Collection[date]]]) -> None:
        self._names = names
        self._label = label
        self._due = due

    @property
    def name(self) -> str:
        """What the UI calls it."""
        return self._label

    def evaluate(self, context: dg.AutomationContext[dg.AssetKey]) -> dg.AutomationResult[dg.AssetKey]:
        """Return the due days; days that the asset does not have are left out."""
        view = context.asset_graph_view
        partitions_def = view.asset_graph.get(context.key).partitions_def
        due = self._due().get(self._names.path(context.key.path) or "", ())
        if not due or partitions_def is None:
            return dg.AutomationResult(context, true_subset=view.get_empty_subset(key=context.key))
        days = {day.isoformat() for day in due}
        existing = {key for key in days if partitions_def.has_partition_key(key)}
        return dg.AutomationResult(
            context, true_subset=view.get_subset_from_partition_keys(context.key, partitions_def, existing)
        )


class Recent(Generic[T]):
    """A cache that expires after some seconds: a tick evaluates the same condition for hundreds of assets."""

    def __init__(self, compute: Callable[[], T], seconds: float = _REMEMBERED_SECONDS) -> None:
        self._compute = compute
        self._seconds = seconds
        self._values: list[T] = []
        self._until = 0.0

    def __call__(self) -> T:
        if time.monotonic() >= self._until:
            self._values = [self._compute()]
            self._until = time.monotonic() + self._seconds
        return self._values[0]


def _unless_running_or_failed(condition: Condition) -> Condition:
    """Exclude what is in progress, and what failed in its last run without a newer input since."""
    may_succeed = ~dg.AutomationCondition.execution_failed() | dg.AutomationCondition.any_deps_updated()
    return condition & ~dg.AutomationCondition.in_progress() & may_succeed


def _labelled(condition: Any, label: str) -> Condition:
    labelled: Condition = condition.with_label(label)
    return labelled


def touched_days(project: Project) -> Condition:
    """Return the condition of event tables: every day that a dump touched or whose columns changed, however old."""
    return _after_landing(project, unbuilt_days, "its rows or columns are newer than its last build")


def due_by_lake(project: Project, due: Callable[[], Mapping[str, Collection[date]]], label: str) -> Condition:
    """Return the condition of tables whose due days, however old, are a function of the lake alone."""
    return _labelled(_unless_running_or_failed(DaysDue(project.names, label, Recent(due))), label)


def posted_days(project: Project) -> Condition:
    """Return the condition of the inbox's tables: every day with messages that are not in it, however old."""
    label = "it has messages that came since its last build, or its function is another"
    return due_by_lake(project, lambda: unbuilt_inbox_days(project), label)


def newest_touched_day(project: Project) -> Condition:
    """Return the condition of users and user_migrations: their newest days."""
    if not is_exported(project):
        return _after_landing(project, unbuilt_people, "dumps are newer than its last build")
    updated = dg.AutomationCondition.in_latest_time_window(_NEWEST) & _UPDATED & ~dg.AutomationCondition.in_progress()
    return _labelled(updated, "the export touched the newest day")


def _after_landing(project: Project, due: Callable[[Project], Mapping[str, Collection[date]]], label: str) -> Condition:
    """Request what is due once landing pauses; a look at an export reports all days at once and has no pause."""

    def _due() -> Mapping[str, Collection[date]]:
        return due(project) if is_exported(project) or landing_pauses(project) else {}

    return _labelled(_unless_running_or_failed(DaysDue(project.names, label, Recent(_due))), label)


def unread_day(project: Project) -> Condition:
    """Return the condition of warehouse tables: never read, or the schedule's time for the newest day was missed."""
    due = DaysDue(project.names, "the newest complete day was not read", Recent(lambda: unread_tables(project)))
    return _labelled(_unless_running_or_failed(due), "it was never read, or its time was missed")


def follows_upstream(project: Project) -> Condition:
    """Return the condition of warehouse tables with an `upstream`: the newest complete day, once that materialized.

    A table that was never read does not wait for the next materialization. A day whose upstream did not materialize is
    read at noon.
    """
    tables = [warehouse_asset(name) for name, table in project.settings.read_tables.items() if table.upstream]
    names = project.names
    newest = DaysDue(
        names, "it is the newest complete day", lambda: {table: [clock.newest_complete_day()] for table in tables}
    )
    # held against the newest day when the update came: later days are other states of the upstream
    requested = dg.AutomationCondition.newly_requested() & ~_ANY_DEPS_UPDATED
    updated = (_ANY_DEPS_UPDATED & newest).since(requested) & newest
    never_read = DaysDue(names, "it was never read", Recent(lambda: never_read_upstreams(project)))
    overdue = DaysDue(names, "its upstream did not materialize by noon", Recent(lambda: unread_tables(project)))
    due = _unless_running_or_failed((never_read & ~dg.AutomationCondition.any_deps_missing()) | overdue)
    idle = ~dg.AutomationCondition.any_deps_in_progress() & ~dg.AutomationCondition.in_progress()
    return _labelled((updated | due) & idle, "its upstream materialized, or did not by noon")


def never_sent(project: Project) -> Condition:
    """Return the condition of syncs: the first run, as soon as everything it reads is built and has passed."""
    due = DaysDue(project.names, "it has never run", Recent(lambda: first_runs(project)))
    return _labelled(_unless_running_or_failed(due), "its first run is due; the schedule asks for all others")


def resolvable_graph(project: Project) -> Condition:
    """Return the condition of the identity group: every touched day is built, and the inputs changed since the graph.

    A graph must not be resolved while a resync is still rebuilding some of its days.
    """

    def _due() -> dict[str, list[date]]:
        day = graph_is_due(project)
        return {} if day is None else {path: [day] for path in RESOLVED}

    return _unless_running_or_failed(DaysDue(project.names, "its inputs are settled and new", Recent(_due)))
