"""User properties of Heap users, up to 1000 users a call (heap.md 1.5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from typing import Any, ClassVar, Literal

import polars as pl
from pydantic import Field, model_validator

from heap_assets.activation.connectors.base import Connector
from heap_assets.activation.connectors.heap import BULK_ROWS, HeapApp, HeapDestination, ToHeap, call_limits
from heap_assets.activation.connectors.rows import (
    Identities,
    address_policy,
    newest_users,
    profiles_by_heap_identity,
    table_rows,
)
from heap_assets.activation.engine.addressing import Addressed
from heap_assets.activation.engine.destination import Row
from heap_assets.activation.engine.exchange import Request
from heap_assets.activation.engine.selection import addressed
from heap_assets.activation.engine.spec import Mode
from heap_assets.config import PROPERTIES, KeyedSettings, UpsertSettings
from heap_assets.tables import PROFILES, USERS
from heap_assets.values import apart, key_text


class HeapUserPropertiesSync(ToHeap, KeyedSettings, UpsertSettings):
    """User properties of Heap users, by identity. Only identities that Heap knows are written to."""

    by_heap_identity: ClassVar[bool] = True
    writes_heap_users: ClassVar[bool] = True

    kind: Literal["heap_user_properties"] = "heap_user_properties"
    mode: Literal["upsert"] = "upsert"
    source: str = Field(default=PROFILES, description="profiles, or a warehouse table with a column of identities")
    key: str | None = Field(default=None, description="Column of identities, for a warehouse table")
    properties: dict[str, str] = PROPERTIES
    identities: Identities = Field(
        default="all", description="What to send to when a profile has several Heap identities"
    )
    cleared_value: str = Field(default="(none)", description="What a withdrawn value is overwritten with")

    @model_validator(mode="after")
    def _table_has_key(self) -> HeapUserPropertiesSync:
        if self.source != PROFILES and self.key is None:
            raise ValueError(f"key: which column of {self.source} holds the Heap identity?")
        return self


class HeapUserPropertiesConnector(Connector[HeapUserPropertiesSync]):
    """Profiles, or rows of a table of identities, to Heap's users."""

    settings_model = HeapUserPropertiesSync

    def destination(self, table: str = "") -> HeapUserProperties:
        return HeapUserProperties(HeapApp.of(self.deployment.settings.heap), cleared=self.settings.cleared_value)

    def inputs(self) -> list[str]:
        return [self.source_asset, USERS]

    def rows(self, day: date, table: str = "") -> Addressed:
        sync = self.settings
        if sync.source == PROFILES:
            return profiles_by_heap_identity(self.deployment, sync.identities, day)
        # as if each row were a profile: two rows of one identity are nobody's, unknown ones are held
        label = pl.concat_str(pl.lit(f"{sync.source} row "), pl.int_range(pl.len()).cast(pl.String))
        source_rows, name = table_rows(self, day), apart(str(sync.key), self.own_columns)
        key = key_text(pl.col(name), source_rows.collect_schema()[name])
        lists = pl.when(key.is_not_null()).then(pl.concat_list(key)).otherwise(pl.lit([], pl.List(pl.String)))
        rows = source_rows.with_columns(profile_id=label, heap_identities=lists)
        policy = replace(address_policy(self.deployment, sync.identities), missing=f"the row has no {sync.key}")
        return addressed(rows, newest_users(self.deployment), policy)


class HeapUserProperties(HeapDestination):
    """Upserts user properties by identity, up to 1000 users a call (heap.md 1.5).

    `bulk`: many users per call; otherwise one.
    """

    kind = "heap_user_properties"
    mode = Mode.UPSERT
    path = "/api/add_user_properties"

    def __init__(
        self, app: HeapApp, *, bulk: bool = True, cleared: str = "(none)", batch_rows: int = BULK_ROWS
    ) -> None:
        super().__init__(app, cleared=cleared)
        self._bulk = bulk
        self.limits = call_limits(batch_rows, ("id", "user_id", "identity"), bulk=bulk)

    def element(self, row: Row) -> dict[str, Any]:
        return {"identity": row.key, "properties": self.properties(row)}

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        return self._post("users" if self._bulk else None, elements)
