"""Heap's event tables as Segment's Track (heap.md 5)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import date
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, Self

import polars as pl
from pydantic import Field

from heap_assets.activation.connectors.base import Connector
from heap_assets.activation.connectors.consent import PERSON, belonging, column_of_events
from heap_assets.activation.connectors.rows import suppressed_users
from heap_assets.activation.connectors.segment import (
    SegmentDeletion,
    SegmentSource,
    ToSegmentUser,
    anonymous_id,
)
from heap_assets.activation.connectors.segment_track.rows import SegmentTrack, event_key, track_rows
from heap_assets.activation.connectors.segment_track.users import segment_identities
from heap_assets.activation.connectors.tracking_plan import TrackingPlan
from heap_assets.activation.engine.addressing import Addressed, no_addresses
from heap_assets.config import Since
from heap_assets.errors import SettingsError
from heap_assets.identity import HEAP_USER_ID, without_suppressed
from heap_assets.tables import GRAPH, MIGRATIONS, PROFILES, USERS, heap_asset
from heap_assets.values import PRIVATE, apart, set_apart
from heap_assets.versions import version_of

_NOT_EVENTS = ("sessions",)
_KEYS = ("event_id", "user_id", "session_id", "time")
_USER_ID = re.compile(r"[0-9]{1,19}")
_LARGEST_ID = 2**63 - 1
_ADDRESSING = ("key", "profile_id", "event_key", "event", "time", "anonymous_id")
_ROW = f"{PRIVATE}row"
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
    def is_of_events(self) -> bool:
        """Whether what people did is sent, each event once."""
        return True

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
        consent = [sync.purpose, sync.before_consent] if sync.purpose else []
        return version_of([*choices, self.plan, *consent], length=12)

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
        if column_of_events(self):
            # in their order: of two rows of one event the first is sent
            whose = belonging(self, self.deployment.event_sources[heap_asset(table)])
            events = whose(events.with_row_index(_ROW)).sort(_ROW).drop(_ROW)
        events = events.rename({**set_apart(columns, _OWN), PERSON: "profile_id"}, strict=False)
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
            keys.extend(rows.select(event_key(rows)).collect()["event_key"].drop_nulls())
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
        """`user_id`, `identity`: Segment's userId of each Heap user; read once."""
        return segment_identities(self.deployment, self.name, self.settings.user_id, self._suppressed)

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

    def _events(self, table: str, day: date) -> pl.LazyFrame:
        return self.deployment.lake.scan(heap_asset(table), str(day))

    def _event_name(self, table: str) -> str:
        entry = self.deployment.catalogue.tables.get(table)
        return self.settings.event_names.get(table) or (entry.display_name if entry else "") or table


def _is_selected(name: str, patterns: Iterable[str]) -> bool:
    excluded = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    included = [pattern for pattern in patterns if not pattern.startswith("!")]
    return any(fnmatchcase(name, p) for p in included) and not any(fnmatchcase(name, p) for p in excluded)
