"""What other settings would change: profiles, traits, audiences, rows of syncs, days built anew; nothing is written.

Both settings are applied to the same stored tables, each in an overlay of the lake that is thrown away.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from heap_assets.identity import changes
from heap_assets.pipelines import delivery, exports
from heap_assets.pipelines.functions import function_version
from heap_assets.pipelines.heap_tables import event_day
from heap_assets.pipelines.people import audiences_of_day, profiles_of_day, resolved_tables
from heap_assets.pipelines.readiness import identity_inputs, newest_graph_day
from heap_assets.pipelines.snapshots import snapshot_of_day
from heap_assets.pipelines.sync_gate import newest_day
from heap_assets.pipelines.table import Table, Task, rules_of
from heap_assets.profiles import current_members
from heap_assets.project import Project
from heap_assets.storage import SCRATCH, Lake, OverlayStore, Status
from heap_assets.tables import (
    AUDIENCES,
    CONFLICTS,
    GRAPH,
    PROFILES,
    SHARED,
    heap_asset,
    source_of,
    warehouse_asset,
)

_READ = {"relation", "key", "time_zone"}
"""Settings of a warehouse table that say what is read, besides its columns."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Count:
    """A count under the current settings (`before`) and under the others (`after`)."""

    before: int
    after: int


@dataclass(frozen=True)
class TraitChange:
    """A trait: profiles that have a value; of profiles that keep their id, those whose value differs."""

    filled: Count
    changed: int


@dataclass(frozen=True)
class AudienceChange:
    """An audience: its members, and the profiles that are in it under one of the settings only."""

    members: Count
    entered: int
    left: int


@dataclass(frozen=True)
class Difference:
    """What other settings would change on a day.

    Attributes
    ----------
    profiles, conflicts, shared
        How many there are.
    kinds
        Today's profiles that would be merged, split, moved, renamed or removed; `created` counts new ones.
    traits, audiences
        By name; those that neither setting changes are left out.
    syncs
        Rows that each sync would send in its next run.
    days
        Asset to the days that would be built anew.
    """

    day: date
    profiles: Count
    conflicts: Count
    shared: Count
    kinds: Mapping[str, int]
    traits: Mapping[str, TraitChange]
    audiences: Mapping[str, AudienceChange]
    syncs: Mapping[str, Count]
    days: Mapping[str, int]

    @property
    def is_empty(self) -> bool:
        """Whether both settings give equal results."""
        counts = (self.profiles, self.conflicts, self.shared, *self.syncs.values())
        same = all(count.before == count.after for count in counts)
        return same and not (self.kinds or self.traits or self.audiences or self.days)

    def as_dict(self) -> dict[str, Any]:
        """Return the difference as values that JSON can hold."""
        return {**asdict(self), "day": self.day.isoformat()}


def difference(project: Project, other: Project, progress: Progress = lambda _: None) -> Difference:
    """Compare the settings of two projects on the newest day that `project` has resolved; nothing is written.

    Dumps, and warehouse tables whose mapping is the same, are taken as the lake of `project` has them. Tables that
    `other` maps differently are read from their source.

    Raises
    ------
    MissingInputError
        No graph was resolved yet.
    """
    day = newest_graph_day(project)
    with tempfile.TemporaryDirectory(prefix=SCRATCH) as scratch:
        base = project.lake.store
        before = project.with_lake(Lake(OverlayStore(base, Path(scratch) / "before")))
        after = other.with_lake(Lake(OverlayStore(base, Path(scratch) / "after")))
        progress("the settings as they are")
        days = _build(before, day, [])
        syncs_before = dict(_planned(before))
        progress("the other settings")
        days_after = _build(after, day, list(_other_tables(project, after, day)))
        progress("syncs")
        syncs = _counts(syncs_before, dict(_planned(after)))
        rebuilt = {asset: count for asset, count in days_after.items() if count != days.get(asset, 0)}
        return _compared(before.lake, after.lake, day, syncs, rebuilt)


_Build = tuple[str, date, Callable[[Task], Table | None]]


def _build(project: Project, day: date, tables: list[_Build]) -> dict[str, int]:
    """Build in the project's overlay what its settings make of the day; return asset to days that were written."""
    written: dict[str, int] = {}

    def store(asset: str, at: date, table: Table | None) -> None:
        if table is not None:
            status = project.lake.write(
                asset, str(at), table.writer or table.frame, table.inputs, notes=table.notes
            ).status
            written[asset] = written.get(asset, 0) + (status is Status.WRITTEN)

    for asset, at, build in tables:
        with tempfile.TemporaryDirectory(prefix=SCRATCH) as scratch:
            store(asset, at, build(Task(project, at, Path(scratch), force=True)))
    for asset, table in resolved_tables(project, identity_inputs(project, day)).items():
        store(asset, day, table)
    store(PROFILES, day, profiles_of_day(project, day))
    if project.settings.profiles.audiences:
        store(AUDIENCES, day, audiences_of_day(project, day))
    else:
        project.lake.delete(AUDIENCES, str(day))  # from the overlay: that of the lake is of other settings
    return {asset: count for asset, count in written.items() if count}


def _other_tables(project: Project, other: Project, day: date) -> Iterator[_Build]:
    """Yield the days of source tables that the lake does not have as `other` would build them."""
    for table in other.event_tables:
        is_other = table not in project.event_tables or (
            (rules_of(project, table), project.catalogue.columns(table), function_version(project, table))
            != (rules_of(other, table), other.catalogue.columns(table), function_version(other, table))
        )
        first = other.settings.first_day
        last = day if is_other else min(day, project.settings.first_day - timedelta(days=1))
        for at in sorted(_landed_days(other, table)) if first <= last else ():
            if first <= at <= last:
                yield heap_asset(table), at, partial(event_day, table=table)
    for name, mapped in other.settings.read_tables.items():
        other_table = project.settings.source_tables.get(name)
        asset = warehouse_asset(name)
        sources = [each.settings.all_sources.get(source_of(asset)) for each in (project, other)]
        is_same = other_table is not None and other_table.model_dump(include=_READ) == mapped.model_dump(include=_READ)
        is_same = is_same and _columns_read(project, name) == _columns_read(other, name)
        if not is_same or _connection(sources[0]) != _connection(sources[1]):
            yield asset, day, partial(snapshot_of_day, name=name)


def _landed_days(project: Project, table: str) -> set[date]:
    if exports.is_exported(project):
        return {*exports.touched(project).get(table, {})}
    return {*project.landing.days(table)}


def _columns_read(project: Project, name: str) -> set[str] | None:
    """Return the columns of a table that the settings keep, None if that is all."""
    chosen = project.settings.source_tables[name].columns
    if chosen is None:
        return None
    return {*chosen, *project.mapped_columns(name), *project.settings.columns_of_syncs(name)}


def _connection(source: Any) -> Any:
    return source and source.model_dump(exclude={"tables", "schedule", "datasets"})


def _planned(project: Project) -> Iterator[tuple[str, int]]:
    for name in project.settings.sync:
        day = newest_day(project, name)
        if day is not None:
            yield name, delivery.plan(project, name, day)[0].report.planned


def _compared(before: Lake, after: Lake, day: date, syncs: Mapping[str, Count], days: Mapping[str, int]) -> Difference:
    def count(asset: str, of: pl.Expr) -> Count:
        return Count(*(lake.scan(asset, str(day)).select(of).collect().item() for lake in (before, after)))

    pairs = changes(before.scan(GRAPH, str(day)), after.scan(GRAPH, str(day))).collect()
    of_kind = pl.coalesce("old_profile_id", "new_profile_id").n_unique()
    kinds = dict(pairs.group_by("kind").agg(of_kind).sort("kind").iter_rows())
    return Difference(
        day,
        count(GRAPH, pl.col("profile_id").drop_nulls().n_unique()),
        count(CONFLICTS, pl.len()),
        count(SHARED, pl.len()),
        kinds,
        _traits(before.scan(PROFILES, str(day)), after.scan(PROFILES, str(day))),
        _audiences(before, after, day),
        syncs,
        days,
    )


def _traits(before: pl.LazyFrame, after: pl.LazyFrame) -> dict[str, TraitChange]:
    columns = [
        [name.removesuffix("__source") for name in side.collect_schema() if name.endswith("__source")]
        for side in (before, after)
    ]
    changed_traits = {}
    for name in dict.fromkeys([*columns[0], *columns[1]]):
        old, new = (
            side.select(
                "profile_id", (pl.col(name) if name in available else pl.lit(None)).cast(pl.String).alias("value")
            )
            for side, available in zip((before, after), columns, strict=True)
        )
        changed = old.join(new, on="profile_id").filter(pl.col("value").ne_missing(pl.col("value_right")))
        filled = Count(*(side.select(pl.col("value").count()).collect().item() for side in (old, new)))
        change = TraitChange(filled, changed.select(pl.len()).collect().item())
        if change.changed or filled.before != filled.after:
            changed_traits[name] = change
    return changed_traits


def _audiences(before: Lake, after: Lake, day: date) -> dict[str, AudienceChange]:
    empty = pl.DataFrame(schema={"audience": pl.String, "profile_id": pl.String})
    members = [
        current_members(lake.scan(AUDIENCES, str(day))).select(empty.columns).collect()
        if lake.find(AUDIENCES, str(day))
        else empty
        for lake in (before, after)
    ]
    changed_audiences = {}
    for name in pl.concat(members)["audience"].unique().sort():
        old, new = (set(side.filter(pl.col("audience") == name)["profile_id"]) for side in members)
        if old != new:
            changed_audiences[name] = AudienceChange(Count(len(old), len(new)), len(new - old), len(old - new))
    return changed_audiences


def _counts(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, Count]:
    return {name: Count(before.get(name, 0), after.get(name, 0)) for name in dict.fromkeys([*before, *after])}
