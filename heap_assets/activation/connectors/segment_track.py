"""Heap's event tables as Segment's Track (heap.md 5)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import date
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import polars as pl
from pydantic import Field

from heap_assets.activation.connectors.base import Connector
from heap_assets.activation.connectors.rows import (
    newest,
    newest_profiles_day,
    newest_users,
    profiles_by_identifier,
    suppressed_users,
)
from heap_assets.activation.connectors.segment import (
    SegmentDeletion,
    SegmentDestination,
    SegmentSource,
    ToSegmentUser,
    anonymous_id,
)
from heap_assets.activation.connectors.tracking_plan import TrackingPlan
from heap_assets.activation.engine.addressing import Addressed, no_addresses
from heap_assets.activation.engine.destination import Row
from heap_assets.activation.engine.events import derived_id, event_faults
from heap_assets.activation.engine.spec import Mode
from heap_assets.config import Since
from heap_assets.errors import SettingsError
from heap_assets.functions import ORDINAL
from heap_assets.identity import HEAP_IDENTITY, HEAP_USER_ID, without_suppressed
from heap_assets.sources.heap_connect import without_own
from heap_assets.tables import GRAPH, MIGRATIONS, PROFILES, USERS, heap_asset
from heap_assets.values import apart, set_apart
from heap_assets.versions import version_of

_NOT_EVENTS = ("sessions",)
_KEYS = ("event_id", "user_id", "session_id", "time")
_USER_ID = re.compile(r"[0-9]{1,19}")
_LARGEST_ID = 2**63 - 1
_ADDRESSING = ("key", "profile_id", "event_key", "event", "time", "anonymous_id")
_OWN = tuple(name for name in _ADDRESSING if name != "time")  # `time` is Heap's own, and stays what it is


class SegmentTrackSync(ToSegmentUser):
    """Heap events of the day as Track; never those we sent ourselves. One ledger per table."""

    by_table: ClassVar[bool] = True

    kind: Literal["segment_track"] = "segment_track"
    mode: Literal["insert"] = "insert"
    source: Literal["heap"] = "heap"
    tables: list[str] = Field(default=["*"], description="Patterns of Heap event tables; `!pattern` leaves out")
    columns: list[str] = Field(
        default=[],
        description="Patterns of columns forwarded under their own names; `!pattern` leaves out, personal ones are",
    )
    event_names: dict[str, str] = Field(default={}, description="Table to event name; the catalogue's unless given")
    tracking_plan: Path | None = Field(default=None, description="JSON file: which events and properties may leave")
    since: Since = Field(default=None, description="Events before it stay; the day the sync was first run unless given")

    @property
    def first_day(self) -> Literal["beginning"] | date | None:
        """Which events are sent."""
        return self.since

    def anchored(self, folder: Path) -> Self:
        """Return the settings with the tracking plan beside the settings file."""
        return self.model_copy(update={"tracking_plan": folder / self.tracking_plan}) if self.tracking_plan else self


class SegmentTrackConnector(Connector[SegmentTrackSync]):
    """Days of Heap's event tables, each table with its columns, its event name and its ledger."""

    settings_model = SegmentTrackSync
    deletes = SegmentDeletion

    def destination(self, table: str = "") -> SegmentTrack:
        return SegmentTrack(SegmentSource.of(self.settings), table=table)

    def inputs(self) -> list[str]:
        return [*(heap_asset(table) for table in self.tables), USERS, MIGRATIONS, GRAPH, PROFILES]

    @cached_property
    def tables(self) -> list[str]:
        """Event tables that are forwarded, as Heap names them."""
        candidates = [table for table in self.deployment.event_tables if table not in _NOT_EVENTS]
        return [table for table in candidates if _is_selected(table, self.settings.tables)]

    @cached_property
    def plan(self) -> TrackingPlan | None:
        """The tracking plan, if there is one."""
        path = self.settings.tracking_plan
        if path is None:
            return None
        if not path.is_file():
            raise SettingsError(f"sync.{self.name}.tracking_plan is {str(path)!r}, which does not exist")
        return TrackingPlan.from_json(path.read_text())

    def mapped(self, table: str, columns: Iterable[str]) -> dict[str, str]:
        """Return property to column of one table, before the tracking plan; what is not mapped is not sent."""
        existing = list(columns)
        columns_in_catalogue = (
            self.deployment.catalogue.tables[table].columns if table in self.deployment.catalogue.tables else {}
        )
        personal = {name for name, column in columns_in_catalogue.items() if column.pii}
        # a tracking plan knows properties by their names, beside which those of addresses stand
        apart_from = _ADDRESSING if self.plan else ()
        free = [c for c in existing if c not in _KEYS and c not in personal and c not in apart_from]
        by_pattern = {column: column for column in free if _is_selected(column, self.settings.columns)}
        explicit = {prop: column for prop, column in self.settings.properties.items() if column in existing}
        return {p: c for p, c in by_pattern.items() if c not in explicit.values()} | explicit

    def version(self, table: str, partition: str) -> str:
        """Return the version of a partition under the sync's settings; when it changes, the day is sent again."""
        return f"{partition} {self._choices}"

    @cached_property
    def _choices(self) -> str:
        sync = self.settings
        choices = [sync.properties, sync.columns, sync.event_names, sync.user_id, self.since()]
        return version_of([*choices, self.plan], length=12)

    def columns_sent(self, table: str, day: date | None) -> Mapping[str, str]:
        """Return property to column, as the rows of a day name it."""
        if day is None:
            return self.settings.properties
        mapped = self.mapped(table, self._events(table, day).collect_schema().names())
        if self.plan is None:
            return {prop: apart(column, _OWN) for prop, column in mapped.items()}
        return {prop: prop for prop in self.plan.names(list(mapped))}

    def rows(self, day: date, table: str = "") -> Addressed:
        """Return the day's rows of one table, without those that heap_assets sent to Heap itself.

        Rows of suppressed people are left out and counted.
        """
        events, suppressed = self._without_suppressed(table, self._events(table, day))
        columns = events.collect_schema().names()
        mapped = self.mapped(table, columns)
        events = events.rename(set_apart(columns, _OWN))
        since = self.since()
        early = 0
        if since is not None:
            early = events.filter(pl.col("time") < since).select(pl.len()).collect().item()
            events = events.filter(pl.col("time") >= since)
        rows = track_rows(events, self._event_name(table), self.identities, self.deployment.settings.heap.app_id)
        counts = {"before_since": early} | ({"suppressed": suppressed} if suppressed else {})
        before = Addressed(rows, no_addresses(), no_addresses(), None, counts)
        if self.plan is None:
            return before
        if reserved := sorted(set(mapped) & set(_ADDRESSING)):
            raise SettingsError(
                f"sync.{self.name}.properties names {reserved[0]!r}, which addresses rows: choose another"
            )
        renamed = rows.select(
            *(c for c in _ADDRESSING if c in rows.collect_schema()),
            *(pl.col(apart(c, _OWN)).alias(p) for p, c in mapped.items()),
        )
        return self.plan.apply(renamed, list(mapped)).addressed(before)

    def check(self) -> None:
        """Read the tracking plan, and check that some forwarded table has each mapped column."""
        new_lake = not self.deployment.event_tables  # nothing can be checked yet, which is reported elsewhere
        existing = {column for table in self.tables for column in self.deployment.catalogue.columns(table) or ()}
        for prop, column in self.settings.properties.items():
            if column not in existing and not new_lake:
                raise SettingsError(
                    f"sync.{self.name}.properties.{prop} is {column!r}, which none of the forwarded tables has: "
                    f"{', '.join(self.tables) or 'no table is forwarded'}"
                )
        try:
            _ = self.plan
        except SettingsError as error:
            raise SettingsError(f"sync.{self.name}: {error}") from error

    def lineage(self) -> Iterator[tuple[str, str, str]]:
        """Yield property, and the table and the column that it comes from."""
        for table in self.tables:
            for prop, column in self.mapped(table, self.deployment.catalogue.columns(table) or ()).items():
                yield prop, heap_asset(table), column

    def keys_of(self, identifiers: Iterable[tuple[str, str]]) -> set[str]:
        """Return userIds, and the anonymousIds of Heap users without one."""
        pairs = list(identifiers)
        prefix = str(pl.select(anonymous_id(self.deployment.settings.heap.app_id, pl.lit(""))).item())
        return super().keys_of(pairs) | {prefix + value for kind, value in pairs if kind == HEAP_USER_ID}

    def event_keys(self, people: Collection[str], table: str = "") -> list[str]:
        """Return the events of a table that are people's: of userIds, or of anonymousIds."""
        asset, users = heap_asset(table), self._users_of(people)
        keys: list[str] = []
        for day in self.deployment.lake.partitions(asset) if users else ():
            rows = self.deployment.lake.scan(asset, day).filter(pl.col("user_id").is_in(users))
            keys.extend(rows.select(_event_key(rows)).collect()["event_key"].drop_nulls())
        return keys

    def _users_of(self, people: Collection[str]) -> list[int]:
        identities = self.identities.collect()
        identified = identities.filter(pl.col("identity").is_in(list(people)))["user_id"].to_list()
        prefix = str(pl.select(anonymous_id(self.deployment.settings.heap.app_id, pl.lit(""))).item())
        alone = [person.removeprefix(prefix) for person in people if person.startswith(prefix)]
        numbers = [int(text) for text in alone if _USER_ID.fullmatch(text)]
        return [*identified, *(number for number in numbers if number <= _LARGEST_ID)]

    @cached_property
    def identities(self) -> pl.LazyFrame:
        """`user_id`, `identity`: Segment's userId of each Heap user; read once.

        It is that of the user's profile in the newest graph, chosen as for Identify, so that one person has one userId.
        Users that are not in the graph yet have Heap's own identity, migrations followed; a shared user has none.
        """
        day = newest_profiles_day(self.deployment)
        if day is None and self.settings.user_id != HEAP_IDENTITY:
            raise SettingsError(
                f"sync.{self.name}.user_id is {self.settings.user_id!r}, but no graph has been resolved yet"
            )
        users = self._graph_users(day)
        people = pl.DataFrame(schema={"profile_id": pl.String(), "identity": pl.String()})
        if day is not None:
            rows = profiles_by_identifier(self.deployment, self.settings.user_id, "one", day).rows
            people = rows.select("profile_id", identity="key").collect()
        resolved = users.join(people, on="profile_id").select("user_id", "identity")
        if self.settings.user_id == HEAP_IDENTITY:
            decided = pl.concat([resolved["user_id"], users.filter(pl.col("profile_id").is_null())["user_id"]])
            own = self._heap_identities().collect()
            resolved = pl.concat([resolved, own.filter(~pl.col("user_id").is_in(decided.implode()))])
        suppressed = self._suppressed
        allowed = resolved.filter(~pl.col("user_id").is_in(suppressed["user_id"].implode()))
        return (
            allowed.filter(~pl.col("identity").is_in(suppressed["identity"].drop_nulls().implode()))
            .sort("user_id")
            .lazy()
        )

    def _graph_users(self, day: date | None) -> pl.DataFrame:
        """Return `user_id`, `profile_id` of the Heap users in the graph; null for shared ones."""
        if day is None:
            return pl.DataFrame(schema={"user_id": pl.Int64(), "profile_id": pl.String()})
        users = self.deployment.lake.scan(GRAPH, str(day)).filter(pl.col("identifier_type") == HEAP_USER_ID)
        return users.select(
            user_id=pl.col("identifier").cast(pl.Int64, strict=False),
            profile_id=pl.when(~pl.col("shared")).then("profile_id"),
        ).collect()

    @cached_property
    def _suppressed(self) -> pl.DataFrame:
        return suppressed_users(self.deployment)

    def _without_suppressed(self, table: str, events: pl.LazyFrame) -> tuple[pl.LazyFrame, int]:
        rules = self.deployment.rules
        if not rules.suppressed:
            return events, 0
        unsuppressed = without_suppressed(events, self.deployment.event_sources[heap_asset(table)], rules)
        allowed = unsuppressed.filter(~pl.col("user_id").is_in(self._suppressed["user_id"].implode()))
        counts = pl.collect_all([events.select(pl.len()), allowed.select(pl.len())])
        return allowed, counts[0].item() - counts[1].item()

    def _heap_identities(self) -> pl.LazyFrame:
        users = newest_users(self.deployment)
        homes = users.filter(pl.col("migrated_to").is_null()).select("user_id", "identity").drop_nulls()
        migrated = newest(self.deployment, MIGRATIONS).select(user_id="from_user_id", home="resolved_to").drop_nulls()
        joined = migrated.join(homes, left_on="home", right_on="user_id").select("user_id", "identity")
        return pl.concat([homes, joined])

    def _events(self, table: str, day: date) -> pl.LazyFrame:
        return self.deployment.lake.scan(heap_asset(table), str(day))

    def _event_name(self, table: str) -> str:
        entry = self.deployment.catalogue.tables.get(table)
        return self.settings.event_names.get(table) or (entry.display_name if entry else "") or table


class SegmentTrack(SegmentDestination):
    """Sends events as Track, each once; a resend has the same messageId and is dropped by Segment.

    Rows need `key` or `anonymous_id`, `event_key`, `event`; `time` is optional ISO 8601 text.

    `table`: name of the event table; with the event key it makes the messageId.
    """

    kind = "segment_track"
    mode = Mode.INSERT
    required = ("event_key", "event")
    optional = ("anonymous_id", "time")

    def __init__(self, source: SegmentSource, *, table: str) -> None:
        super().__init__(source)
        self._table = table

    def invalid_rows(self, rows: pl.LazyFrame) -> Mapping[str, pl.Expr]:
        return {**super().invalid_rows(rows), **event_faults(rows, 1024)}

    def element(self, row: Row) -> dict[str, Any]:
        message_id = "heap_assets-" + derived_id(self._table, row.key)
        message = {**self._addressed("track", row, message_id), "event": row.extra["event"]}
        if row.extra.get("time") is not None:
            message["timestamp"] = row.extra["time"]
        return {**message, "properties": dict(row.values), "integrations": {"Heap": False}}


def track_rows(events: pl.LazyFrame, name: str, identities: pl.LazyFrame, app_id: str) -> pl.LazyFrame:
    """Turn rows of a Heap event table into Track rows, without the events that we sent to Heap ourselves.

    `events`: `event_id`, `user_id`, `time`, then properties. `identities`: `user_id` Int64, `identity` String: who a
    user is today, migrations followed.

    `key` is the identity, null for anonymous users; `anonymous_id` is the original user_id, named by environment
    (heap.md 4), so that Segment can join it later.
    """
    people = (
        identities.select("user_id", key="identity").drop_nulls().unique("user_id", keep="first", maintain_order=True)
    )
    joined = without_own(events).drop("key", strict=False).join(people, on="user_id", how="left", maintain_order="left")
    return joined.with_columns(
        anonymous_id=anonymous_id(app_id, pl.col("user_id")),
        event_key=_event_key(joined),
        event=pl.lit(name),
        time=pl.col("time").dt.strftime("%Y-%m-%dT%H:%M:%S%.3fZ"),
    ).unique("event_key", keep="first", maintain_order=True)


def _event_key(events: pl.LazyFrame) -> pl.Expr:
    """Return the key of an event: its id, and the ordinal of further rows that a function made of it."""
    event_id = pl.col("event_id").cast(pl.String)
    if ORDINAL not in events.collect_schema():
        return event_id.alias("event_key")
    further = pl.when(pl.col(ORDINAL) > 0).then(pl.concat_str(event_id, pl.lit("-"), pl.col(ORDINAL).cast(pl.String)))
    return pl.coalesce(further, event_id).alias("event_key")


def _is_selected(name: str, patterns: Iterable[str]) -> bool:
    excluded = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    included = [pattern for pattern in patterns if not pattern.startswith("!")]
    return any(fnmatchcase(name, p) for p in included) and not any(fnmatchcase(name, p) for p in excluded)
