"""The inputs of a day's identity graph, and what it still waits for; read from the lake alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import partial

import polars as pl

from heap_assets import clock
from heap_assets.activation import connector_of
from heap_assets.errors import MissingInputError
from heap_assets.identity import DayInput, IdentityTables, SourceTable, own_identify_links
from heap_assets.pipelines import exports
from heap_assets.pipelines.catalogue import columns_since
from heap_assets.project import Project
from heap_assets.quality import result_store
from heap_assets.sources.heap_connect import without_own
from heap_assets.storage import Inputs
from heap_assets.tables import CONFLICTS, GRAPH, MIGRATIONS, SHARED, SNAPSHOT_TABLES, USERS, heap_asset, is_inbox_table

_NEVER = datetime.min.replace(tzinfo=UTC)
_PAUSE = timedelta(seconds=12)
_LONGEST_DELIVERY = timedelta(minutes=5)


@dataclass(frozen=True)
class IdentityInputs:
    """Inputs of one day's graph."""

    day: date
    inputs: list[DayInput]
    """Event tables with all their days up to this one; snapshot tables as they stand."""
    carried: dict[str, date]
    """Optional snapshots that the day lacks, with the earlier day that is used instead."""
    waiting_for: list[str]
    """Why the graph cannot be built yet; empty when it can."""

    @property
    def provenance(self) -> Inputs:
        """The inputs as the lake records them."""
        versions = {f"{day_input.table.name}@{day_input.day}": day_input.version for day_input in self.inputs}
        return Inputs(versions, frozenset(versions))


def identity_inputs(project: Project, day: date) -> IdentityInputs:
    """Return the inputs of a day's graph, and what is missing (design.md, "A live source has no past")."""
    inputs: list[DayInput] = []
    carried_forward: dict[str, date] = {}
    waiting_for = [f"{asset} rebuilds {len(days)} days" for asset, days in unbuilt_days(project).items()]
    for asset, table in project.event_sources.items():
        if not table.mappings:
            continue
        inputs += [
            day_input
            for day_input in _stored(project, asset, table)
            if project.settings.start_date <= day_input.day <= day
        ]
    for asset, table in project.snapshot_sources.items():
        if not table.mappings or is_inbox_table(asset):
            continue  # it identifies nobody: accounts; or it is folded from events, which do
        past = [day_input for day_input in _stored(project, asset, table) if day_input.day <= day]
        newest = max((day_input.day for day_input in past), default=None)
        if newest is None or newest < _oldest_allowed(project, asset, day):
            if project.required(asset):
                waiting_for.append(f"{asset} {day} is not built")
            continue
        if newest != day:
            carried_forward[asset] = newest
        # the earlier ones too: without a record time a link is as old as the first day that has it
        inputs += past if table.time_column is None else [day_input for day_input in past if day_input.day == newest]
    return IdentityInputs(day, inputs, carried_forward, waiting_for)


def links_as_of(project: Project, day: date) -> pl.LazyFrame:
    """Return the links that a day's graph was resolved from, one row per link and source table; writes nothing."""
    return project.timeline.links(day, identity_inputs(project, day).inputs)


def newest_graph_day(project: Project) -> date:
    """Return the newest day whose graph is resolved; MissingInputError if none is."""
    days = project.lake.partitions(GRAPH)
    if not days:
        raise MissingInputError(f"{GRAPH} has not been built yet: materialize the identity group first")
    return date.fromisoformat(days[-1])


def identity_tables(project: Project, day: date) -> IdentityTables:
    """Return a day's identity tables, with its links read from the extracts that were stored when it was resolved."""
    links = links_as_of(project, day).collect()  # asked several times, and of many files
    return tables_with(project, day, links.lazy())


def tables_with(project: Project, day: date, links: pl.LazyFrame) -> IdentityTables:
    """Return a day's identity tables with these links as of the day."""
    lake, key = project.lake, str(day)
    return IdentityTables(links, lake.scan(GRAPH, key), lake.scan(CONFLICTS, key), lake.scan(SHARED, key))


def landing_pauses(project: Project) -> bool:
    """Return whether tables may be built now: no dump landed within 12 s, or landing has gone on for five minutes.

    Dumps of one delivery land one after the other; building after each of them would build the same days again.
    """
    records = project.landing.records().values()
    moments = sorted((t.landed_at for r in records for t in r.tables.values() if t.landed_at), reverse=True)
    now = datetime.now(UTC)
    landing_began = now
    for moment in moments:
        if landing_began - moment > _PAUSE:
            break
        landing_began = moment
    return landing_began == now or now - landing_began > _LONGEST_DELIVERY


def unbuilt_days(project: Project) -> dict[str, set[date]]:
    """Return for each event table its days with new rows or columns that no build was attempted for since.

    Days of a table that is new to the catalogue are among them, however long ago they landed.
    """
    touched, since = _touched(project), columns_since(project)
    unbuilt = {}
    for table in project.event_tables:
        asset = heap_asset(table)
        changed_at = {day: max(moment, since.get(table, _NEVER)) for day, moment in touched.get(table, {}).items()}
        if days := _untried(project, asset, changed_at):
            unbuilt[asset] = days
    return unbuilt


def unbuilt_people(project: Project) -> dict[str, set[date]]:
    """Return Heap's snapshot tables to those of their newest days that are to be built.

    The newest complete day always, once something landed: where every dump is of a later day, it takes the oldest one.
    The running day if a dump belongs to it. Older days are built on request.
    """
    if exports.is_exported(project):
        return {}
    records, since = project.landing.records(), columns_since(project)
    unbuilt = {}
    for table in SNAPSHOT_TABLES:
        every = (name for record in records.values() for name in record.tables)
        landed = [
            (one.dump.day, one.table.landed_at)
            for name in (set(every) if project.landing.lacks(table) else {table})
            for one in records.of_table(name)
            if one.table.landed_at is not None
        ]
        if not landed:
            continue
        newest = min(max(day for day, _ in landed), clock.today())
        days = {clock.newest_complete_day(), newest} & {clock.newest_complete_day(), clock.today()}
        changed_at = max(*(moment for _, moment in landed), since.get(table, _NEVER))
        if days_due := _untried(project, heap_asset(table), dict.fromkeys(days, changed_at)):
            unbuilt[heap_asset(table)] = {day for day in days_due if day >= project.settings.first_day}
    return unbuilt


def _untried(project: Project, asset: str, touched: Mapping[date, datetime]) -> set[date]:
    if not touched:
        return set()
    tried = last_attempts(project, asset)
    return {day for day, moment in touched.items() if tried.get(day.isoformat(), _NEVER) < moment}


def _touched(project: Project) -> dict[str, dict[date, datetime]]:
    """Return table to day to when a dump last landed rows for it; a full resync touches all days there ever were."""
    if exports.is_exported(project):
        return exports.touched(project)
    newest: dict[str, dict[date, datetime]] = {}
    for record in project.landing.records().values():
        for name, table in record.tables.items():
            if table.landed_at is None:
                continue
            # the dump's own day always, so that quiet tables get their empty partition
            dump_days = {*table.days, *table.moved, record.day}
            touched = dump_days if table.incremental else dump_days | set(project.landing.days(name))
            days = newest.setdefault(name, {})
            for day in touched:
                if project.settings.first_day <= day <= clock.today():
                    days[day] = max(days.get(day, _NEVER), table.landed_at)
    return newest


def last_attempts(project: Project, asset: str) -> dict[str, datetime]:
    """Return day to when a step last tried to build it: every attempt, failed or not, stores a result of `readable`."""
    prefix = f"{result_store.ROOT}/{asset}/readable/"
    return {
        info.key.removeprefix(prefix).removesuffix(".json"): info.last_modified
        for info in project.lake.store.list(prefix)
    }


def newest_days(project: Project) -> list[date]:
    """Return the days whose graph is resolved automatically, newest first: the running and the newest complete one.

    Those before the newest day that Heap has delivered users for are left out where it is older than both.
    """
    days = [day for day in project.lake.partitions(USERS) if day <= clock.today().isoformat()]
    newest = clock.newest_complete_day().isoformat()
    return [date.fromisoformat(day) for day in reversed(days) if day >= min(newest, days[-1])]


def graph_is_due(project: Project) -> date | None:
    """Return the newest day whose graph can be built, None if that graph is up to date.

    A running day whose warehouse tables are not read yet does not delay the day before.
    """
    for day in newest_days(project):
        ready = identity_inputs(project, day)
        if ready.waiting_for:
            continue
        graph = project.lake.find(GRAPH, day.isoformat())
        is_current = graph is not None and graph.inputs.versions == graph_inputs(project, ready).versions
        return None if is_current else day
    return None


def graph_inputs(project: Project, ready: IdentityInputs) -> Inputs:
    """Return the inputs of a graph as the lake records them, with the version of the rules."""
    return Inputs({**ready.provenance.versions, "rules": project.rules_of_days.on(ready.day).digest})


def _stored(project: Project, asset: str, table: SourceTable) -> Iterator[DayInput]:
    own_links = _own_links(project) if asset == MIGRATIONS else None
    for day, version in project.lake.versions(asset).items():
        day_input = DayInput(table, date.fromisoformat(day), version, _rows(project, asset, day))
        # links that we sent to Heap by identify are no proof when they come back (design.md, identity rule 3)
        if own_links is None:
            yield day_input
        else:
            own_version = hashlib.sha256(repr(own_links.rows()).encode()).hexdigest()[:16]
            yield replace(day_input, version=f"{version}+{own_version}", own_identify=own_links.lazy)


def _own_links(project: Project) -> pl.DataFrame | None:
    """Return type_a, value_a, type_b, value_b of the links that Heap reports only because a sync sent them."""
    links = [connector_of(project, name).own_links() for name in project.settings.sync]
    pairs = [sent for sent in links if sent is not None]
    users_day = project.lake.newest_partition(USERS, clock.today())
    if not any(len(sent) for sent in pairs) or users_day is None:
        return None
    sent = pl.concat(pairs).select(pl.col("user_id").cast(pl.Int64), "identity").unique()
    users = project.lake.scan(USERS, str(users_day)).select("user_id", "identity")
    return own_identify_links(sent.lazy(), users).collect().sort(pl.all())


def _oldest_allowed(project: Project, asset: str, day: date) -> date:
    return day if project.required(asset) else day - timedelta(days=project.settings.identity.carry_max_days)


def _rows(project: Project, asset: str, day: str) -> Callable[[], pl.LazyFrame]:
    if asset in project.event_sources:
        return lambda: without_own(project.lake.scan(asset, day))
    return partial(project.lake.scan, asset, day)
