"""Firings of a signal on a day: what its rule is evaluated on, and what has fired already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta

import polars as pl

from heap_assets import clock
from heap_assets.analytics import AudienceTables, Dialect, SignalTables, Statement, signal_sql
from heap_assets.errors import MissingInputError
from heap_assets.pipelines.behaviour import accounts_of_day
from heap_assets.pipelines.events import Window, days_of, event_frames, table_of_event
from heap_assets.pipelines.relations import Relations
from heap_assets.pipelines.table import BuiltTable
from heap_assets.profiles import Facts
from heap_assets.project import Project
from heap_assets.signals import (
    CANCELLED,
    FIRED,
    FIRINGS,
    Signal,
    SignalDay,
    candidates,
    due_steps,
    new_firings,
)
from heap_assets.storage import Inputs
from heap_assets.tables import CHANGES, GRAPH, PROFILES, event_asset, is_signal, signal_asset
from heap_assets.versions import version_of


def signal_of_day(project: Project, name: str, day: date) -> BuiltTable:
    """Return the firings of a signal whose time is on a day: those that there are, and new ones.

    Raises MissingInputError: the profiles of the day are not built.
    """
    signal, lake, asset = project.signals[name], project.lake, signal_asset(name)
    signal_day, inputs = _day_of(project, signal, day)
    own = lake.scan(asset, str(day)).collect() if lake.find(asset, str(day)) else pl.DataFrame(schema=FIRINGS)
    rows = candidates(signal, signal_day)
    firings = new_firings(signal, rows, _fired(project, name, day), signal_day.profiles, clock.now())
    table = pl.concat([own, firings], how="diagonal_relaxed") if own.height else firings
    if signal.anchored is not None:
        table = _with_cancelled(table, signal, signal_day)
    table = table.sort("time", "firing_id")
    fired = table.filter(status=FIRED)
    notes = {
        "fired": fired.height,
        "live": int(fired["live"].sum()),
        "cancelled": table.filter(status=CANCELLED).height,
        "new": firings.height,
    }
    return BuiltTable(table.lazy(), inputs, notes)


def preview(project: Project, name: str, day: date) -> pl.DataFrame:
    """Return what would fire on a day if nothing had fired before: firings with their traits; nothing is written."""
    signal = project.signals[name]
    signal_day, _ = _day_of(project, signal, day)
    nothing = pl.DataFrame(schema={column: FIRINGS[column] for column in ("firing_id", "profile_id", "time", "step")})
    return new_firings(signal, candidates(signal, signal_day), nothing, signal_day.profiles, clock.now())


def statement_of_signal(project: Project, name: str, day: date, dialect: Dialect = "lake") -> Statement:
    """Return the SQL of who meets the rule of a signal on a day, cool-downs aside: profile_id, time, step, user_id.

    Over the tables of `heap-assets sql`, or those published. Raises MissingInputError as :func:`preview` does.
    """
    signal, relations = project.signals[name], Relations(project, day, dialect)
    _require_people(project, day)
    before, changed = _day_before(project, signal, day)
    people_before = relations.people_before(before, changed) if before else None
    names = [
        one.type if is_signal(one.type) else table_of_event(project, one.type, one.where) for one, _ in signal.criteria
    ]
    as_of = Window(day, {}).as_of
    today = AudienceTables(relations.people(), relations.named(names), as_of, relations.accounts())
    return relations.bound(signal_sql(signal, SignalTables(today, people_before)))


def check_signals(project: Project) -> None:
    """Check that there are the events that signals name; SettingsError names the key of one that there is not."""
    for signal in project.signals.values():
        for criterion, _ in signal.criteria:
            if not is_signal(criterion.type):
                table_of_event(project, criterion.type, criterion.where)


def _day_of(project: Project, signal: Signal, day: date) -> tuple[SignalDay, Inputs]:
    lake, key = project.lake, str(day)
    _require_people(project, day)
    reach: dict[str, int | None] = {}
    named_signals = set()
    for criterion, days in signal.criteria:
        if is_signal(criterion.type):
            named_signals.add(criterion.type)
            continue
        table = table_of_event(project, criterion.type, criterion.where)
        longest = reach.get(table, 0)
        reach[table] = None if days is None or longest is None else max(longest, -int(-days // 1) + 1)
    window = Window(day, days_of(project, day, reach))
    events = event_frames(project, [*reach, *named_signals], lake.scan(GRAPH, key), window)
    facts = Facts(events, window.as_of, accounts_of_day(project, day))
    versions = {f"{PROFILES}@{day}": lake.versions(PROFILES)[key], f"{GRAPH}@{day}": lake.versions(GRAPH)[key]}
    before, changed = _day_before(project, signal, day)
    earlier = None
    if before is not None:
        earlier = _under_new_ids(lake.scan(PROFILES, str(before)), [lake.scan(CHANGES, one) for one in changed])
        versions[f"{PROFILES}@{before}"] = lake.versions(PROFILES)[str(before)]
    for table, keys in window.days.items():
        stored = lake.versions(event_asset(table))
        versions |= {f"{event_asset(table)}@{one}": stored[one] for one in keys}
    versions["settings"] = version_of([signal, project.rules.digest])
    return SignalDay(lake.scan(PROFILES, key), facts, earlier), Inputs(versions)


def _require_people(project: Project, day: date) -> None:
    for path in (PROFILES, GRAPH):
        if project.lake.find(path, str(day)) is None:
            raise MissingInputError(f"{path} {day} is not built")


def _day_before(project: Project, signal: Signal, day: date) -> tuple[date | None, list[str]]:
    """Return the newest day before whose profiles a signal compares with, and the days since with changes of ids."""
    before = project.lake.newest_partition(PROFILES, day - timedelta(days=1))
    if before is None or (signal.becomes is None and signal.changed is None):
        return None, []
    return before, [key for key in project.lake.partitions(CHANGES) if str(before) < key <= str(day)]


def _fired(project: Project, name: str, day: date) -> pl.DataFrame:
    """Return firing_id, profile_id, time, step of all firings of a signal, under the profile ids of the day."""
    lake, asset = project.lake, signal_asset(name)
    columns = ["firing_id", "profile_id", "time", "step", "identifier_type", "identifier"]
    frames = [rows.select(columns) for rows in lake.scans(asset, lake.partitions(asset))]
    empty = pl.LazyFrame(schema={column: FIRINGS[column] for column in columns})
    owners = lake.scan(GRAPH, str(day)).filter(~pl.col("shared"))
    return (
        pl.concat([empty, *frames])
        .join(
            owners.select("identifier_type", "identifier", owner="profile_id"),
            on=["identifier_type", "identifier"],
            how="left",
        )
        .select("firing_id", pl.coalesce("owner", "profile_id").alias("profile_id"), "time", "step")
        .collect()
    )


def _with_cancelled(table: pl.DataFrame, signal: Signal, signal_day: SignalDay) -> pl.DataFrame:
    """Mark the firings whose attempt was stopped after all, by an event that came late."""
    stopped = due_steps(signal, signal_day).filter("stopped").select("profile_id", "step", "time", is_stopped=True)
    marked = table.lazy().join(stopped.unique(), on=["profile_id", "step", "time"], how="left").collect()
    status = pl.when(pl.col("is_stopped").fill_null(value=False)).then(pl.lit(CANCELLED)).otherwise("status")
    return marked.with_columns(status=status).drop("is_stopped")


def _under_new_ids(profiles: pl.LazyFrame, changes: Sequence[pl.LazyFrame]) -> pl.LazyFrame:
    """Return the profiles of an earlier day under today's ids: one row for each that became one."""
    for one in changes:
        pairs = one.drop_nulls(["old_profile_id", "new_profile_id"]).select("old_profile_id", "new_profile_id")
        profiles = (
            profiles.join(pairs, left_on="profile_id", right_on="old_profile_id", how="left")
            .with_columns(profile_id=pl.coalesce("new_profile_id", "profile_id"))
            .drop("new_profile_id")
        )
    return profiles


def signal_figures(project: Project, day: date, days: int = 7) -> list[Mapping[str, object]]:
    """Return for each signal what fired on the newest day and in the days up to it."""
    rows: list[Mapping[str, object]] = []
    for name, signal in project.signals.items():
        asset, first = signal_asset(name), str(day - timedelta(days=days))
        built = {
            key: partition.notes
            for key in project.lake.partitions(asset)
            if first < key <= str(day) and (partition := project.lake.find(asset, key))
        }
        newest = max(built, default=None)
        rows.append(
            {
                "signal": name,
                "kind": signal.kind,
                "newest_day": newest,
                "fired": built[newest].get("fired") if newest else None,
                f"fired_in_{days}_days": sum(int(notes.get("fired", 0)) for notes in built.values()),
                "live": sum(int(notes.get("live", 0)) for notes in built.values()),
                "cancelled": sum(int(notes.get("cancelled", 0)) for notes in built.values()),
            }
        )
    return rows
