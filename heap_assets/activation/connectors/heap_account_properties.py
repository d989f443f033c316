"""Account properties of Heap, up to 1000 accounts a call (heap.md 1.6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from typing import Any, ClassVar, Literal

import polars as pl
from pydantic import Field

from heap_assets.activation.connectors.base import Connector
from heap_assets.activation.connectors.heap import BULK_ROWS, VALUE_UNITS, HeapApp, HeapDestination, ToHeap, call_limits
from heap_assets.activation.connectors.registry import connector_of
from heap_assets.activation.connectors.rows import keyed_rows
from heap_assets.activation.engine.destination import Row
from heap_assets.activation.engine.exchange import Request
from heap_assets.activation.engine.spec import Mode
from heap_assets.activation.engine.tables import runs
from heap_assets.config import PROPERTIES, KeyedSettings, UpsertSettings


class HeapAccountPropertiesSync(ToHeap, KeyedSettings, UpsertSettings):
    """Account properties, by account id."""

    needs_full_api: ClassVar[bool] = True

    kind: Literal["heap_account_properties"] = "heap_account_properties"
    mode: Literal["upsert"] = "upsert"
    source: str = Field(description="A warehouse table with one row per account")
    key: str | None = Field(default=None, description="Column of account ids; the table's key unless given")
    properties: dict[str, str] = PROPERTIES
    account_id_configured: bool = Field(default=False, description="Account ID is set in Heap: Account > Manage")
    cleared_value: str = Field(default="(none)", description="What a withdrawn value is overwritten with")


class HeapAccountPropertiesConnector(Connector[HeapAccountPropertiesSync]):
    """Rows of a table of accounts to Heap's accounts."""

    settings_model = HeapAccountPropertiesSync

    def destination(self, table: str = "") -> HeapAccountProperties:
        return HeapAccountProperties(
            HeapApp.of(self.deployment.settings.heap),
            account_id_configured=self.settings.account_id_configured,
            users_synced=self._users_synced,
            cleared=self.settings.cleared_value,
        )

    def inputs(self) -> list[str]:
        return [self.source_asset]

    def rows(self, day: date, table: str = "") -> pl.LazyFrame:
        return keyed_rows(self, self.settings.key, day)

    def _users_synced(self) -> bool:
        """Return whether users ever reached Heap: account properties have no effect before (features.md H5)."""
        store = self.deployment.lake.store
        return any(
            sync.writes_heap_users
            and bool((runs(store, connector_of(self.deployment, name).ledger_folder())["sent"] > 0).any())
            for name, sync in self.deployment.settings.sync.items()
        )


class HeapAccountProperties(HeapDestination):
    """Upserts account properties by account id, up to 1000 accounts a call (heap.md 1.6).

    `account_id_configured`: somebody has chosen the Account ID property in Heap; without it Heap drops the data.
    `users_synced`: says whether users of these accounts have been sent before; asked only when something is about to be
    sent.
    """

    kind = "heap_account_properties"
    mode = Mode.UPSERT
    path = "/api/add_account_properties"

    def __init__(
        self,
        app: HeapApp,
        *,
        account_id_configured: bool,
        users_synced: Callable[[], bool],
        cleared: str = "(none)",
        batch_rows: int = BULK_ROWS,
    ) -> None:
        super().__init__(app, cleared=cleared)
        self._account_id_configured = account_id_configured
        self._users_synced = users_synced
        self.limits = call_limits(batch_rows, ("id",), key_units=VALUE_UNITS)

    def precondition_error(self) -> str | None:
        if not self._account_id_configured:
            return (
                "Heap drops account properties until an Account ID property is chosen in Heap (Account > Manage > "
                "Account ID). Choose it, then set account_id_configured: true"
            )
        if not self._users_synced():
            return (
                "no user was synced yet: Heap joins accounts to users by a user property, so sync heap_user_properties "
                "first"
            )
        return None

    def element(self, row: Row) -> dict[str, Any]:
        return {"account_id": row.key, "properties": self.properties(row)}

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        return self._post("accounts", elements)
