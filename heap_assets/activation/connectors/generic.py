"""Profiles or any warehouse table, by any key: what kinds have in common whose destination takes whatever comes."""

from __future__ import annotations

from datetime import date
from typing import Generic, TypeVar

import polars as pl
from pydantic import Field

from heap_assets.activation.connectors.base import Connector, Rows
from heap_assets.activation.connectors.rows import (
    Identities,
    keyed_events,
    keyed_people,
    profiles_by_identifier,
    table_events,
)
from heap_assets.activation.engine.events import EVENT_COLUMNS, KEY_COLUMNS
from heap_assets.config import EventSettings, KeyedSettings, UpsertSettings
from heap_assets.identity import HEAP_IDENTITY
from heap_assets.tables import PROFILES
from heap_assets.values import read_times


class GenericSettings(EventSettings, KeyedSettings, UpsertSettings):
    """Rows of profiles or of a warehouse table by a key of one's choice, or a table's rows as events."""

    source: str = Field(default=PROFILES, description="profiles, or a warehouse table")
    key: str | None = Field(
        default=None,
        description="Identifier type (profiles; heap_identity unless given) or column (a table; its key unless given)",
    )
    identities: Identities = "all"


G = TypeVar("G", bound=GenericSettings)


class GenericConnector(Connector[G], Generic[G]):
    """A sync that takes profiles by an identifier, rows of a table by a column, or rows of a table as events."""

    @property
    def own_columns(self) -> tuple[str, ...]:
        """Columns that addressing puts beside those of a table."""
        return EVENT_COLUMNS if self.settings.sends_events else KEY_COLUMNS

    def inputs(self) -> list[str]:
        return [self.source_asset]

    def rows(self, day: date, table: str = "") -> Rows:
        sync = self.settings
        if sync.source == PROFILES:
            return profiles_by_identifier(self.deployment, sync.key or HEAP_IDENTITY, sync.identities, day)
        if not sync.sends_events:
            return keyed_people(self, sync.key, day)
        rows, since = table_events(self, sync, day)
        happened = read_times(pl.col("time"))
        kept = rows if since is None else rows.filter((happened >= since).fill_null(value=True))
        return keyed_events(self, kept, sync.key)
