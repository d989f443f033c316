"""Which Heap event tables go to Segment, and their rows as Track."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase
from functools import cached_property

import polars as pl

from heap_assets.activation import Addressed, TrackingPlan, track_rows
from heap_assets.config import SegmentTrack
from heap_assets.errors import SettingsError
from heap_assets.identity import HEAP_IDENTITY, HEAP_USER_ID, without_suppressed
from heap_assets.pipelines.delivery_rows import by_identifier, newest, newest_profiles_day, newest_users
from heap_assets.pipelines.delivery_since import since_of
from heap_assets.pipelines.suppression import suppressed_users
from heap_assets.project import Project
from heap_assets.tables import GRAPH, MIGRATIONS, heap_asset
from heap_assets.values import apart, set_apart
from heap_assets.versions import version_of

_NOT_EVENTS = ("sessions",)
_KEYS = ("event_id", "user_id", "session_id", "time")
_ADDRESSING = ("key", "profile_id", "event_key", "event", "time", "anonymous_id")
_OWN = tuple(name for name in _ADDRESSING if name != "time")  # `time` is Heap's own, and stays what it is
_NOBODY = pl.Schema({"profile_id": pl.String(), "key": pl.String(), "reason": pl.String()})


@dataclass(frozen=True)
class Forwarding:
    """The choices of one `segment_track` sync."""

    project: Project
    name: str
    sync: SegmentTrack

    @cached_property
    def tables(self) -> list[str]:
        """Event tables that are forwarded, as Heap names them."""
        known = [table for table in self.project.event_tables if table not in _NOT_EVENTS]
        return [table for table in known if _chosen(table, self.sync.tables)]

    @cached_property
    def plan(self) -> TrackingPlan | None:
        """The tracking plan, if there is one."""
        path = self.sync.tracking_plan
        if path is None:
            return None
        if not path.is_file():
            raise SettingsError(f"sync.{self.name}.tracking_plan is {str(path)!r}, which does not exist")
        return TrackingPlan.from_json(path.read_text())

    def mapped(self, table: str, columns: Iterable[str]) -> dict[str, str]:
        """Return property to column of one table, before the tracking plan; what is not mapped is not sent."""
        there = list(columns)
        known = self.project.catalogue.tables[table].columns if table in self.project.catalogue.tables else {}
        personal = {name for name, column in known.items() if column.pii}
        # a tracking plan knows properties by their names, beside which those of addresses stand
        apart_from = _ADDRESSING if self.plan else ()
        free = [c for c in there if c not in _KEYS and c not in personal and c not in apart_from]
        by_pattern = {column: column for column in free if _chosen(column, self.sync.columns)}
        named = {prop: column for prop, column in self.sync.properties.items() if column in there}
        return {p: c for p, c in by_pattern.items() if c not in named.values()} | named

    def version(self, partition: str) -> str:
        """Return a name for "this version of a partition under these choices": another one is looked at again."""
        return f"{partition} {self._choices}"

    @cached_property
    def _choices(self) -> str:
        sync = self.sync
        chosen = [sync.properties, sync.columns, sync.event_names, sync.user_id, since_of(self.project, self.name)]
        return version_of([*chosen, self.plan], length=12)

    def properties(self, table: str, day: date) -> dict[str, str]:
        """Return property to column of the rows that :meth:`rows` gives."""
        mapped = self.mapped(table, self._events(table, day).collect_schema().names())
        if self.plan is None:
            return {prop: apart(column, _OWN) for prop, column in mapped.items()}
        return {prop: prop for prop in self.plan.names(list(mapped))}

    def rows(self, table: str, day: date) -> Addressed:
        """Return the day's rows of one table, without those that heap_assets sent to Heap itself.

        Nothing of suppressed people is among them, under no identity and no anonymous id; they are counted.
        """
        events, suppressed = self._without_suppressed(table, self._events(table, day))
        columns = events.collect_schema().names()
        mapped = self.mapped(table, columns)
        events = events.rename(set_apart(columns, _OWN))
        since = since_of(self.project, self.name)
        early = 0
        if since is not None:
            early = events.filter(pl.col("time") < since).select(pl.len()).collect().item()
            events = events.filter(pl.col("time") >= since)
        rows = track_rows(events, self._event_name(table), self.identities, self.project.settings.heap.app_id)
        counts = {"before_since": early} | ({"suppressed": suppressed} if suppressed else {})
        before = Addressed(rows, pl.LazyFrame(schema=_NOBODY), pl.LazyFrame(schema=_NOBODY), None, counts)
        if self.plan is None:
            return before
        if taken := sorted(set(mapped) & set(_ADDRESSING)):
            raise SettingsError(f"sync.{self.name}.properties names {taken[0]!r}, which addresses rows: choose another")
        renamed = rows.select(
            *(c for c in _ADDRESSING if c in rows.collect_schema()),
            *(pl.col(apart(c, _OWN)).alias(p) for p, c in mapped.items()),
        )
        return self.plan.apply(renamed, list(mapped)).addressed(before)

    @cached_property
    def identities(self) -> pl.LazyFrame:
        """`user_id`, `identity`: who a Heap user is today as Segment's userId; read once.

        That of the user's profile in the newest graph, chosen as for Identify, so that one person has one userId
        whatever it comes from. Where the graph knows none yet, Heap's own identity, migrations followed; a shared user
        is nobody.
        """
        day = newest_profiles_day(self.project)
        if day is None and self.sync.user_id != HEAP_IDENTITY:
            raise SettingsError(
                f"sync.{self.name}.user_id is {self.sync.user_id!r}, but no graph has been resolved yet"
            )
        users = self._graph_users(day)
        people = pl.DataFrame(schema={"profile_id": pl.String(), "identity": pl.String()})
        if day is not None:
            rows = by_identifier(self.project, self.sync.user_id, "one", day).rows
            people = rows.select("profile_id", identity="key").collect()
        resolved = users.join(people, on="profile_id").select("user_id", "identity")
        if self.sync.user_id == HEAP_IDENTITY:
            settled = pl.concat([resolved["user_id"], users.filter(pl.col("profile_id").is_null())["user_id"]])
            own = self._heap_identities().collect()
            resolved = pl.concat([resolved, own.filter(~pl.col("user_id").is_in(settled.implode()))])
        gone = self._suppressed
        allowed = resolved.filter(~pl.col("user_id").is_in(gone["user_id"].implode()))
        return allowed.filter(~pl.col("identity").is_in(gone["identity"].drop_nulls().implode())).sort("user_id").lazy()

    def _graph_users(self, day: date | None) -> pl.DataFrame:
        """Return `user_id`, `profile_id` of the Heap users in the graph; null for shared ones, who are nobody."""
        if day is None:
            return pl.DataFrame(schema={"user_id": pl.Int64(), "profile_id": pl.String()})
        users = self.project.lake.scan(GRAPH, str(day)).filter(pl.col("identifier_type") == HEAP_USER_ID)
        return users.select(
            user_id=pl.col("identifier").cast(pl.Int64, strict=False),
            profile_id=pl.when(~pl.col("shared")).then("profile_id"),
        ).collect()

    @cached_property
    def _suppressed(self) -> pl.DataFrame:
        return suppressed_users(self.project)

    def _without_suppressed(self, table: str, events: pl.LazyFrame) -> tuple[pl.LazyFrame, int]:
        rules = self.project.rules
        if not rules.suppressed:
            return events, 0
        known = without_suppressed(events, self.project.event_sources[heap_asset(table)], rules)
        kept = known.filter(~pl.col("user_id").is_in(self._suppressed["user_id"].implode()))
        counts = pl.collect_all([events.select(pl.len()), kept.select(pl.len())])
        return kept, counts[0].item() - counts[1].item()

    def _heap_identities(self) -> pl.LazyFrame:
        users = newest_users(self.project)
        homes = users.filter(pl.col("migrated_to").is_null()).select("user_id", "identity").drop_nulls()
        moved = newest(self.project, MIGRATIONS).select(user_id="from_user_id", home="resolved_to").drop_nulls()
        joined = moved.join(homes, left_on="home", right_on="user_id").select("user_id", "identity")
        return pl.concat([homes, joined])

    def _events(self, table: str, day: date) -> pl.LazyFrame:
        return self.project.lake.scan(heap_asset(table), str(day))

    def _event_name(self, table: str) -> str:
        known = self.project.catalogue.tables.get(table)
        return self.sync.event_names.get(table) or (known.display_name if known else "") or table


def _chosen(name: str, patterns: Iterable[str]) -> bool:
    out = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    into = [pattern for pattern in patterns if not pattern.startswith("!")]
    return any(fnmatchcase(name, p) for p in into) and not any(fnmatchcase(name, p) for p in out)
