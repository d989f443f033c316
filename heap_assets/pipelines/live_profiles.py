"""Profiles that follow messages as they come: the batch rules on the neighbourhood of what was touched.

The base is the newest graph with its profiles. Messages that are not in it are applied on top: their links go into an
index, the neighbourhoods of their identifiers are resolved again, and the golden records of these people are made again
from the rows of the same tables. The batch day computed from the same messages has the same rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import partial
from typing import Final

import polars as pl

from heap_assets import clock
from heap_assets.errors import MissingInputError
from heap_assets.identity import GRAPH as GRAPH_SCHEMA
from heap_assets.identity import LinkIndex, extract, identifier_hashes, resolve, row_identifiers
from heap_assets.pipelines.behaviour import window, with_behaviour_and_audiences
from heap_assets.pipelines.consent import consent_asset, with_consent_of_day
from heap_assets.pipelines.events import Window
from heap_assets.pipelines.functions import OpenPools, transformed_messages
from heap_assets.pipelines.inbox import message_inputs
from heap_assets.pipelines.live_rows import RowsOfPeople
from heap_assets.pipelines.people import (
    merged_away,
    newest_trait_days,
    trait_name,
    trait_rules,
    with_empty_traits,
)
from heap_assets.pipelines.readiness import identity_inputs
from heap_assets.profiles import TraitSource, golden_records
from heap_assets.project import Project, without_erased
from heap_assets.sources.heap_connect import without_own
from heap_assets.sources.inbox import deciding_rows, fold_users, message_rows, parts_by_day, read_parts
from heap_assets.storage import conform
from heap_assets.tables import (
    CONFLICTS,
    GRAPH,
    INBOX_ACCOUNTS,
    INBOX_USERS,
    PROFILES,
    USERS,
    event_asset,
    inbox_asset,
    is_inbox_table,
)

_IDENTIFY: Final = inbox_asset("identify")
_GROUP: Final = inbox_asset("group")
_REMEMBERED: Final = 500_000
"""At least so many ids of messages are remembered, so that one that comes again soon is not counted again."""
_COMPACTED: Final = 100_000
"""Links that are kept beside the index before it is built anew."""


@dataclass(frozen=True)
class Changed:
    """What became of people: their rows before and now, of `profiles`, by what was resolved again."""

    before: pl.DataFrame
    now: pl.DataFrame
    graph: pl.DataFrame
    """The rows of `identity/graph` of the people in `now`."""


class LiveProfiles:
    """The newest profiles, and what messages make of them."""

    def __init__(self, project: Project, pools: OpenPools | None = None) -> None:
        """Load the base, and apply the messages that are not in it.

        `pools`: processes of functions that stay open while profiles follow.

        Raises
        ------
        MissingInputError
            If there is no day of profiles yet, or no graph of it.
        """
        self._project, self._pools = project, pools or OpenPools()
        self._ids: set[int] = set()
        self._earlier_ids: set[int] = set()
        days = [day for day in project.lake.partitions(PROFILES) if day <= str(clock.today())]
        if not days:
            raise MissingInputError(f"{PROFILES} has not been built yet: live profiles begin with its first day")
        self.day = date.fromisoformat(days[-1])
        self.versions = base_versions(project)
        graph = project.lake.find(GRAPH, str(self.day))
        if graph is None:
            raise MissingInputError(f"{GRAPH} {self.day} is gone: materialize the identity group")
        inputs = identity_inputs(project, self.day)
        self._window = window(project, self.day)
        pending = self._pending_days(graph.inputs.versions)
        in_base = [
            one
            for one in inputs.inputs
            if not is_inbox_table(one.table.name) or one.day not in pending.get(one.table.name, ())
        ]
        links = project.timeline.links(self.day, in_base).collect()
        rows = project.lake.scan(GRAPH, str(self.day)).collect()
        self._rules = project.rules_of_days.on(self.day)
        self._index = LinkIndex(links, rows.filter("shared"), self._rules)
        self._profile_of = self._by_hash(rows)
        self._profiles = project.lake.scan(PROFILES, str(self.day)).collect()
        self._changed = self._profiles.clear()
        self._replaced: set[str] = set()
        self._conflicts = project.lake.scan(CONFLICTS, str(self.day)).collect()
        self._newest_day = self.day
        self._counted = {event_asset(name) for name in self._window.days if is_inbox_table(name)}
        self._messages = {
            asset: RowsOfPeople(
                self._kept_messages(asset, pending.get(asset, ())),
                *(project.event_sources[asset], project),
                None if asset in self._counted else partial(deciding_rows, columns=self._columns_of(asset)),
            )
            for asset in (_IDENTIFY, _GROUP, *sorted(self._counted - {_IDENTIFY, _GROUP}))
        }
        self._sources = self._read_tables()
        syncs = project.settings.sync.values()
        self._sent_as_events = {one.source for one in syncs if one.live and is_inbox_table(one.source)}
        self._posted: dict[str, list[pl.DataFrame]] = {}
        users_day = project.lake.newest_partition(USERS, self.day)
        self._merged_away = merged_away(project.lake.scan(USERS, str(users_day))) if users_day else None
        self.backlog = {
            asset: self._rows_of_days(asset, asset_days) for asset, asset_days in pending.items() if asset_days
        }

    def _by_hash(self, graph: pl.DataFrame) -> dict[int, str | None]:
        hashes = identifier_hashes(graph["identifier_type"], graph["identifier"]).tolist()
        return dict(zip(hashes, graph["profile_id"].to_list(), strict=True))

    def _pending_days(self, built_from: Mapping[str, str]) -> dict[str, list[date]]:
        """Return the days of messages that the base does not have as they are now."""
        project = self._project
        stored_users, profiles = self._users_inputs(), project.lake.find(PROFILES, str(self.day))
        in_window = {f"{event_asset(name)}@{day}" for name, of in self._window.days.items() for day in of}
        pending: dict[str, list[date]] = {}
        for asset, table in project.message_tables.items():
            versions = project.lake.versions(asset)
            for day in parts_by_day(project.lake.store, table.name):
                if not project.first_day_of(asset) <= day <= clock.today():
                    continue
                key, name = str(day), f"{asset}@{day}"
                is_built = key in versions and self._is_current(asset, day)
                identifies = bool(project.event_sources[asset].mappings)
                in_graph = not identifies or built_from.get(name) == versions.get(key)
                in_users = asset not in (_IDENTIFY, _GROUP) or stored_users.get(name) == versions.get(key)
                built = profiles.inputs.versions.get(name) if profiles is not None else None
                in_events = name not in in_window or built == versions.get(key)
                if not (is_built and in_graph and in_users and in_events and day <= self.day):
                    pending.setdefault(asset, []).append(day)
        return pending

    def _is_current(self, asset: str, day: date) -> bool:
        stored = self._project.lake.find(asset, str(day))
        now = message_inputs(self._project, asset, day)
        return stored is not None and stored.inputs.versions == dict(now.versions)

    def _users_inputs(self) -> Mapping[str, str]:
        """Return the versions of messages in the users that the base took traits from."""
        lake = self._project.lake
        day = lake.newest_partition(INBOX_USERS, self.day)
        users, profiles = lake.find(INBOX_USERS, str(day)) if day else None, lake.find(PROFILES, str(self.day))
        if users is None or profiles is None:
            return {}
        is_same = profiles.inputs.versions.get(f"{INBOX_USERS}@{day}") == users.version
        return users.inputs.versions if is_same else {}

    def _columns_of(self, asset: str) -> list[str]:
        return self._project.message_tables[asset].own_columns

    def _kept_messages(self, asset: str, pending: Iterable[date]) -> Iterator[pl.DataFrame]:
        """Yield the messages of the base that users are folded from, or that count as events, without bodies."""
        lake, schema = self._project.lake, self._project.message_tables[asset].schema
        left_out = {str(day) for day in pending}
        days = [day for day in lake.partitions(asset) if day <= str(self.day) and day not in left_out]
        days = [day for day in days if day >= str(self._project.first_day_of(asset))]
        if asset not in (_IDENTIFY, _GROUP):
            in_window = {day for name, of in self._window.days.items() if event_asset(name) == asset for day in of}
            days = [day for day in days if day in in_window]
        yield pl.DataFrame(schema=schema).drop("body")
        for day in days:
            yield lake.scan(asset, [day], schema=schema).drop("body").collect()

    def _rows_of_days(self, asset: str, days: Iterable[date]) -> pl.DataFrame:
        store, table = self._project.lake.store, self._project.message_tables[asset]
        parts = [part for day, of_day in parts_by_day(store, table.name).items() if day in days for part in of_day]
        return read_parts(store, parts).collect()

    def _read_tables(self) -> dict[str, tuple[RowsOfPeople, str | None]]:
        """Return the tables that traits and consent come from, by asset, each with the column of a row's time."""
        project = self._project
        traits = project.settings.profiles.traits.values()
        used = {source.partition(".")[0] for trait in traits for source in trait.sources}
        stated = {consent_asset(source) for source in project.settings.privacy.consent.sources}
        tables, sources = project.settings.snapshot_tables, {}
        for asset, newest in newest_trait_days(project, self.day).items():
            name = trait_name(asset)
            if asset in (INBOX_USERS, INBOX_ACCOUNTS) or not (name in used or asset in stated):
                continue
            updated_at = "last_modified" if asset == USERS else tables[name].updated_at
            rows = project.lake.scan(asset, str(newest)).collect()
            sources[asset] = (RowsOfPeople([rows], project.snapshot_sources[asset], project), updated_at)
        return sources

    @property
    def profiles(self) -> pl.DataFrame:
        """All profiles as they are now, by their ids."""
        base = self._profiles.filter(~pl.col("profile_id").is_in(list(self._replaced)))
        return pl.concat([base, self._changed]).sort("profile_id")

    def rows(self, ids: Iterable[str]) -> pl.DataFrame:
        """Return the profiles of these ids as they are now; those that are no profiles any more are left out."""
        return self._rows_of(sorted(set(ids)))

    def posted(self) -> dict[str, pl.DataFrame]:
        """Return the messages that came since this was asked last, of tables that live syncs send as events."""
        posted, self._posted = self._posted, {}
        return {asset: pl.concat(frames) for asset, frames in posted.items()}

    def people_of(self, asset: str, messages: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return the profiles that messages name, and the rows of the graph by which they do, without times."""
        named = row_identifiers(messages.lazy(), self._project.event_sources[asset], self._rules)
        unique = named.select("identifier_type", "identifier").unique()
        hashes = identifier_hashes(unique["identifier_type"], unique["identifier"]).tolist()
        owners = pl.Series([self._profile_of.get(one) for one in hashes], dtype=pl.String)
        shared = pl.Series([self._index.is_shared(one) for one in hashes], dtype=pl.Boolean)
        graph = unique.with_columns(owners.alias("profile_id"), shared.alias("shared"))
        return self.rows(owners.drop_nulls()), conform(graph.lazy(), GRAPH_SCHEMA).collect()

    @property
    def links_added(self) -> int:
        """Links that came in since the index was built."""
        return self._index.added

    def apply(self, messages: Mapping[str, pl.DataFrame]) -> Changed | None:
        """Take messages in and make the people anew that they touch; None if they touch nobody.

        `messages`: lake asset of the table to rows as parts have them.
        """
        touched: set[int] = set()
        for asset, raw in messages.items():
            rows = self._accepted(asset, raw)
            if rows.is_empty():
                continue
            if asset in self._sent_as_events:
                self._posted.setdefault(asset, []).append(rows)
            if asset in self._messages:
                self._messages[asset].add(rows.drop("body"))
            source = self._project.event_sources[asset]
            if source.mappings:
                links = extract(without_own(rows.lazy()), source, self._rules).links.collect()
                touched |= self._index.add(links)
        if not touched:
            return None
        changed = self._resolved(touched)
        if self._changed.height > _COMPACTED:
            self._profiles, self._changed, self._replaced = self.profiles, self._changed.clear(), set()
        if self._index.added > _COMPACTED:
            self._index.compact()
        return changed

    def _accepted(self, asset: str, raw: pl.DataFrame) -> pl.DataFrame:
        """Return rows of messages that are new and of days that have begun, without erased people."""
        table, inbox = self._project.message_tables[asset], self._project.settings.inbox
        assert inbox is not None
        fresh = raw.filter(pl.Series([self._is_new(one) for one in raw["message_id"]], dtype=pl.Boolean))
        rows = message_rows(table, fresh, timedelta(hours=inbox.ahead_hours), names=False).accepted
        day = pl.col("time").dt.date()
        begun = rows.filter((day >= self._project.first_day_of(asset)) & (day <= clock.today()))
        remaining = without_erased(self._project, asset, begun.lazy())[0].collect()
        accepted = transformed_messages(self._project, asset, remaining, self._pools)
        if accepted.height:
            self._newest_day = max(self._newest_day, accepted.select(day.max()).item())
        return accepted

    def _is_new(self, message_id: str) -> bool:
        """Remember a message by a hash of 64 bits, in two generations of which the older one is forgotten."""
        one = hash(message_id)
        if one in self._ids or one in self._earlier_ids:
            return False
        self._ids.add(one)
        if len(self._ids) > _REMEMBERED:
            self._ids, self._earlier_ids = set(), self._ids
        return True

    def _resolved(self, touched: set[int]) -> Changed:
        near = self._index.neighbourhood(touched)
        resolution = resolve(near.links.lazy(), self._rules, self._project.timeline.engine)
        everybody = resolution.graph.collect()
        hashes = pl.Series("hash", identifier_hashes(everybody["identifier_type"], everybody["identifier"]))
        is_inside = pl.Series([one in near.inside for one in hashes.to_list()], dtype=pl.Boolean)
        graph, inside = everybody.filter(is_inside), hashes.filter(is_inside)
        self._index.mark_shared(near.inside, inside.filter(graph["shared"]).to_list())
        before_ids = {self._profile_of.get(one) for one in inside.to_list()} - {None}
        self._profile_of |= dict(zip(inside.to_list(), graph["profile_id"].to_list(), strict=True))
        ids = graph["profile_id"].drop_nulls().unique()
        before = self._rows_of(sorted(str(one) for one in before_ids))
        now = self._golden(graph, self._conflicts_of(resolution.conflicts.collect(), before_ids, ids), inside)
        self._put(before, now)
        rows_before, rows_now = (dict(zip(f["profile_id"], f.rows(), strict=True)) for f in (before, now))
        same = [one for one, row in rows_now.items() if rows_before.get(one) == row]
        before, now = (frame.filter(~pl.col("profile_id").is_in(same)) for frame in (before, now))
        return Changed(before, now, graph)

    def _conflicts_of(self, conflicts: pl.DataFrame, before_ids: Iterable[object], ids: pl.Series) -> pl.DataFrame:
        """Put the conflicts of what was resolved in place of theirs before."""
        own = conflicts.filter(pl.col("profile_a").is_in(ids.implode()) & pl.col("profile_b").is_in(ids.implode()))
        earlier = [str(one) for one in before_ids]
        is_earlier = pl.col("profile_a").is_in(earlier) | pl.col("profile_b").is_in(earlier)
        self._conflicts = pl.concat([self._conflicts.filter(~is_earlier.fill_null(value=False)), own])
        return own

    def _golden(self, graph: pl.DataFrame, conflicts: pl.DataFrame, hashes: pl.Series) -> pl.DataFrame:
        project = self._project
        people = graph.lazy()
        sources = {
            asset: TraitSource(rows.naming(hashes).lazy(), rows.table, updated_at)
            for asset, (rows, updated_at) in self._sources.items()
        }
        if any(self._messages[asset].rows.height for asset in (_IDENTIFY, _GROUP)):
            sources[INBOX_USERS] = self._users_of(hashes)
        by_name = {trait_name(asset): source for asset, source in sources.items()}
        rules, missing = trait_rules(project, by_name)
        golden = golden_records(people, by_name, rules, project.rules, conflicts.lazy(), self._merged_away)
        frame, _, _ = with_behaviour_and_audiences(
            project, with_empty_traits(golden.frame, missing), people, self._window_of(hashes), self._pools
        )
        rows_of = {asset: source.rows for asset, source in sources.items()}
        rows = with_consent_of_day(project, frame, self.day, people, rows_of).collect()
        self._take_types(rows.schema)
        return conform(rows.lazy(), self._profiles.schema).collect()

    def _window_of(self, hashes: pl.Series) -> Window:
        """Return the window of the day with the messages that name one of these identifiers, each once.

        Once messages are of a later day than the base, windows end with that day, as the batch day of it has them.
        """
        named = {asset: self._messages[asset].naming(hashes) for asset in self._counted}
        once = {
            asset: rows.sort("received_at", "message_id").unique("message_id", keep="first", maintain_order=True)
            for asset, rows in named.items()
        }
        return replace(
            self._window, day=self._newest_day, messages={asset: rows.lazy() for asset, rows in once.items()}
        )

    def _take_types(self, schema: pl.Schema) -> None:
        """Give columns that have no value yet the types of the first values that come."""
        typeless = {
            name: dtype
            for name, dtype in schema.items()
            if dtype != self._profiles.schema[name]
            and all(frame[name].null_count() == frame.height for frame in (self._profiles, self._changed))
        }
        if typeless:
            null = [pl.lit(None, dtype).alias(name) for name, dtype in typeless.items()]
            self._profiles, self._changed = self._profiles.with_columns(null), self._changed.with_columns(null)

    def _users_of(self, hashes: pl.Series) -> TraitSource:
        """Fold the users that name one of these identifiers, from all of their messages."""
        project, person = self._project, pl.coalesce("user_id", "anonymous_id")
        named = [self._messages[asset].naming(hashes).select(id=person)["id"] for asset in (_IDENTIFY, _GROUP)]
        people = pl.concat(named).drop_nulls().unique()
        chosen = {
            asset: self._messages[asset].rows.filter(person.is_in(people.implode())).lazy()
            for asset in (_IDENTIFY, _GROUP)
        }
        users = fold_users(chosen[_IDENTIFY], chosen[_GROUP], self._columns_of(_IDENTIFY))
        return TraitSource(users, project.snapshot_sources[INBOX_USERS], "time")

    def _rows_of(self, ids: list[str]) -> pl.DataFrame:
        changed = self._changed.filter(pl.col("profile_id").is_in(ids))
        left = [one for one in ids if one not in self._replaced]
        at = self._profiles["profile_id"].search_sorted(pl.Series(left, dtype=pl.String))
        at = at.filter(at < self._profiles.height)
        base = self._profiles[at.unique().sort()].filter(pl.col("profile_id").is_in(left))
        return pl.concat([base, changed])

    def _put(self, before: pl.DataFrame, now: pl.DataFrame) -> None:
        ids = [*before["profile_id"], *now["profile_id"]]
        self._replaced |= set(ids)
        self._changed = pl.concat([self._changed.filter(~pl.col("profile_id").is_in(ids)), now])


def base_versions(project: Project) -> tuple[str, ...]:
    """Return the versions of the newest graph and profiles: others, and live profiles are loaded anew."""
    lake = project.lake
    day = lake.newest_partition(PROFILES, clock.today())
    return (str(day), *(lake.versions(asset).get(str(day), "") for asset in (GRAPH, PROFILES)), str(clock.today()))
