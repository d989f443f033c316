"""What most destinations take: records by a key, events of people, members of an audience, or any rows by a key.

A kind derives its settings and its connector from one of the pairs here, and adds what is its vendor's. Of the bases of
settings the one from here comes first: what it says of `source` is what counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from typing import ClassVar, Generic, Literal, Self, TypeVar

import polars as pl
from pydantic import Field, model_validator

from heap_assets.activation.connectors.base import Connector, Rows
from heap_assets.activation.connectors.rows import (
    Identities,
    keyed_events,
    keyed_people,
    profiles_by_identifier,
    table_events,
)
from heap_assets.activation.engine.addressing import Addressed
from heap_assets.activation.engine.events import EVENT_COLUMNS, KEY_COLUMNS
from heap_assets.activation.engine.spec import Mode
from heap_assets.config import EventSettings, KeyedSettings, UpsertSettings, named
from heap_assets.identity import HEAP_IDENTITY
from heap_assets.tables import PROFILES
from heap_assets.values import apart


class PeopleSettings(KeyedSettings):
    """Rows of profiles by an identifier, or rows of a warehouse table by a column."""

    source: str = Field(default=PROFILES, description="profiles, or a warehouse table")
    key: str | None = Field(
        default=None,
        description="Identifier type (profiles; heap_identity unless given) or column (a table; its key unless given)",
    )
    identities: Identities = Field(default="all", description="A person on several keys: send to all, one or none")


P = TypeVar("P", bound=PeopleSettings)


class PeopleConnector(Connector[P], Generic[P]):
    """A sync of profiles by an identifier, or of rows of a table by a column."""

    def inputs(self) -> list[str]:
        return [self.source_asset]

    def rows(self, day: date, table: str = "") -> Rows:
        sync = self.settings
        if sync.source == PROFILES:
            return profiles_by_identifier(self.deployment, sync.key or HEAP_IDENTITY, sync.identities, day)
        return keyed_people(self, sync.key, day)


class RecordSettings(PeopleSettings, UpsertSettings):
    """Records that are kept as the newest row of their key says."""

    mode: Literal["upsert"] = "upsert"


class MemberSettings(PeopleSettings):
    """Members of an audience: who is one no longer is removed.

    `takes_properties`: of a kind whose members have values besides their key.
    """

    takes_properties: ClassVar[bool] = True

    mode: Literal["set"] = "set"
    member: str | None = Field(
        default=None, description="Boolean trait, audience or column: true for members; every row is one unless given"
    )

    @model_validator(mode="after")
    def _properties_are_taken(self) -> MemberSettings:
        if self.properties and not self.takes_properties:
            raise ValueError("properties: members of this list have none; leave them out")
        return self

    @property
    def is_upsert(self) -> bool:
        """Whether it keeps keys up to date."""
        return True

    def named_columns(self) -> Iterator[tuple[str, str]]:
        """Yield key of the settings and the column of the source that it names."""
        yield from super().named_columns()
        yield from named(member=self.member)


M = TypeVar("M", bound=MemberSettings)


class MemberConnector(PeopleConnector[M], Generic[M]):
    """A sync of the members of an audience."""

    @property
    def mode(self) -> Mode:
        """Members are added and removed."""
        return Mode.SET

    def rows(self, day: date, table: str = "") -> Rows:
        rows, column = super().rows(day, table), self.settings.member
        if column is None:
            return rows
        of_table = self.settings.source in self.warehouse_tables
        member = pl.col(apart(column, self.own_columns) if of_table else column).cast(pl.Boolean).alias("member")
        if isinstance(rows, Addressed):
            return replace(rows, rows=rows.rows.with_columns(member))
        return rows.with_columns(member)


class EventRowSettings(EventSettings, KeyedSettings):
    """Rows of a warehouse table as events, each sent once."""

    mode: Literal["insert"] = "insert"
    source: str = Field(description="A warehouse table with one row per event")
    key: str | None = Field(default=None, description="Column that holds who it is about; the table's key unless given")

    @model_validator(mode="after")
    def _has_a_name(self) -> EventRowSettings:
        if self.source == PROFILES:
            raise ValueError("source: events are rows of a warehouse table; profiles are no events")
        if (self.event_name is None) == (self.event_name_column is None):
            raise ValueError("event_name: give either event_name or event_name_column")
        return self


E = TypeVar("E", bound=EventRowSettings)


class EventRowConnector(Connector[E], Generic[E]):
    """A sync of rows of a table as events."""

    @property
    def own_columns(self) -> tuple[str, ...]:
        """Columns that addressing puts beside those of a table."""
        return EVENT_COLUMNS

    def inputs(self) -> list[str]:
        return [self.source_asset]

    def rows(self, day: date, table: str = "") -> Rows:
        return keyed_events(self, table_events(self, self.settings, day), self.settings.key)


class GenericSettings(PeopleSettings, EventSettings, UpsertSettings):
    """Rows of profiles or of a warehouse table by a key of one's choice, or a table's rows as events."""


class ModeSettings(GenericSettings):
    """The same, where the settings say which of the two it is."""

    mode: Literal["upsert", "insert"] = Field(
        default="upsert", description="Keep each key up to date, or send each row of a table once"
    )

    @model_validator(mode="after")
    def _events_come_from_tables(self) -> Self:
        if self.mode == "insert" and self.source == PROFILES:
            raise ValueError("mode: insert sends rows of a warehouse table; profiles are upserted")
        if self.mode == "insert" and (self.event_name is None) == (self.event_name_column is None):
            raise ValueError("mode: insert needs either event_name or event_name_column")
        return self

    @property
    def is_upsert(self) -> bool:
        """Whether it keeps keys up to date."""
        return self.mode == "upsert"


G = TypeVar("G", bound=GenericSettings)


class GenericConnector(PeopleConnector[G], Generic[G]):
    """A sync of profiles by an identifier, of rows of a table by a column, or of rows of a table as events."""

    @property
    def own_columns(self) -> tuple[str, ...]:
        """Columns that addressing puts beside those of a table."""
        return EVENT_COLUMNS if self.settings.sends_events else KEY_COLUMNS

    def rows(self, day: date, table: str = "") -> Rows:
        sync = self.settings
        if sync.source == PROFILES or not sync.sends_events:
            return super().rows(day, table)
        return keyed_events(self, table_events(self, sync, day), sync.key)
