"""Publishing to Synapse and Fabric: a file on Azure, COPY into a table beside, a day's rows replaced in a transaction.

COPY and DDL stand outside the transaction: Synapse allows neither in one, Fabric no ALTER TABLE. Of two writers of a
table Fabric fails the one that commits later, which is tried again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any
from uuid import uuid4

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import ObjectStore

from heap_assets.sources.warehouse.base import Permission, WarehouseError
from heap_assets.sources.warehouse.evolution import Evolution
from heap_assets.sources.warehouse.publish import Publication, PublishError
from heap_assets.sources.warehouse.staged import Cursor, StagedPublisher
from heap_assets.sources.warehouse.staged_types import StagedColumn
from heap_assets.sources.warehouse.synapse.connection import SynapseServer
from heap_assets.sources.warehouse.synapse.reader import columns_of
from heap_assets.sources.warehouse.synapse.types import FABRIC, SYNAPSE, as_text, literal, summed_hash
from heap_assets.storage import Store
from heap_assets.values import sql_literal

_PREFIX = "heap_assets_load_"


@dataclass(frozen=True)
class AzureFiles:
    """A folder of a container that files are put in for COPY.

    Attributes
    ----------
    url
        As COPY spells it: https://account.blob.core.windows.net/container/folder
    credential
        What the engine reads it with, as COPY's CREDENTIAL; empty for the identity that asks.
    """

    objects: ObjectStore = field(repr=False)
    url: str
    credential: str = field(default="", repr=False)

    def put(self, name: str, path: Path) -> None:
        """Upload a file; PublishError if that fails."""
        try:
            obstore.put(self.objects, name, path)
        except BaseError as error:
            raise PublishError(f"{self.url}: the file cannot be put there ({type(error).__name__})") from None

    def delete(self, name: str) -> None:
        """Remove a file; nothing happens if it is gone already."""
        try:
            obstore.delete(self.objects, name)
        except (NotFoundError, FileNotFoundError):
            return
        except BaseError as error:
            raise PublishError(f"{self.url}: a file cannot be deleted ({type(error).__name__})") from None


class SynapsePublisher(StagedPublisher):
    """Publishes into one schema of a dedicated pool, made if it is missing; lists and structs are JSON text."""

    types = SYNAPSE
    longest_name = 128
    commit, rollback = "COMMIT TRANSACTION", "IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION"
    staging_options = " WITH (HEAP, DISTRIBUTION = ROUND_ROBIN)"

    def __init__(self, server: SynapseServer, schema: str, store: Store, files: AzureFiles) -> None:
        super().__init__(store, f"{self.types.engine}-{server.server}-{server.database}-{schema}".lower())
        self._server, self.schema, self._files = server, schema, files

    def _begin(self, cursor: Cursor) -> None:
        cursor.execute("BEGIN TRANSACTION")

    def _literal(self, text: str) -> str:
        return literal(text)

    def _date(self, day: date) -> str:
        return f"CAST('{day.isoformat()}' AS DATE)"

    def _value(self, name: str, column: StagedColumn, change: Evolution) -> str:
        """Write floats as text with all digits, which a cast cuts to six."""
        if change.kinds[name] == self.types.text and column.kind == self.types.floating:
            return as_text(self._name(name), column.kind)
        return super()._value(name, column, change)

    def _staging_table(self, staging: str, columns: str) -> str:
        return f"CREATE TABLE {staging} ({columns}){self.staging_options}"

    def _load_file(self, cursor: Cursor, load_id: str, staging: str, columns: Sequence[str], path: Path) -> None:
        """Load by COPY, which takes a file's columns by their place."""
        del columns
        name = f"{_PREFIX}{load_id}.parquet"
        self._files.put(name, path)
        credential = f", CREDENTIAL = ({self._files.credential})" if self._files.credential else ""
        source = sql_literal(f"{self._files.url}/{name}")
        cursor.execute(f"COPY INTO {staging} FROM {source} WITH (FILE_TYPE = 'PARQUET'{credential})")

    def _drop_file(self, cursor: Cursor, load_id: str) -> None:
        del cursor
        self._files.delete(f"{_PREFIX}{load_id}.parquet")

    def _make_schema(self, cursor: Cursor, schema: str) -> None:
        statement = sql_literal(f"CREATE SCHEMA {self._name(schema)}")
        cursor.execute(f"IF SCHEMA_ID({literal(schema)}) IS NULL EXEC({statement})")

    def _make_loads(self, cursor: Cursor) -> None:
        if not self._existing(cursor, "heap_assets_loads"):
            text = self.types.text
            columns = f'"id" VARCHAR(600), "state" VARCHAR(16), "row_count" BIGINT, "columns" {text}, "checksum" {text}'
            cursor.execute(f"CREATE TABLE {self._loads} ({columns}){self.staging_options}")

    def _make_table(self, cursor: Cursor, publication: Publication, kinds: Mapping[str, str]) -> None:
        columns = ", ".join(f"{self._name(name)} {kind} NULL" for name, kind in kinds.items())
        cursor.execute(f"CREATE TABLE {self._quoted(publication.table)} ({columns})")

    def _add_column(self, cursor: Cursor, publication: Publication, name: str, kind: str) -> None:
        cursor.execute(f"ALTER TABLE {self._quoted(publication.table)} ADD {self._name(name)} {kind} NULL")

    def _widen(self, cursor: Cursor, publication: Publication, kinds: Mapping[str, str], change: Evolution) -> None:
        del kinds  # each column by itself
        for name in change.widened:
            column = f"{self._name(name)} {change.kinds[name]} NULL"
            cursor.execute(f"ALTER TABLE {self._quoted(publication.table)} ALTER COLUMN {column}")

    def _existing(self, cursor: Cursor, table: str) -> dict[str, str]:
        return {name: kind for name, kind, _ in columns_of(cursor, self.schema, table)}

    def _hash(self, columns: Mapping[str, str]) -> str:
        return summed_hash(columns)

    def _make_view(self, cursor: Cursor, into: str, table: str, query: str) -> None:
        verb = "ALTER" if self._has_view(cursor, into, table) else "CREATE"
        cursor.execute(f"{verb} VIEW {self._quoted(table, into)} AS {query}")

    def _has_view(self, cursor: Cursor, into: str, table: str) -> bool:
        return bool(columns_of(cursor, into, table))

    def preflight(self) -> list[Permission]:
        grant = f"GRANT CREATE TABLE, CREATE SCHEMA and ALTER, SELECT, INSERT, UPDATE, DELETE ON SCHEMA::{self.schema}"
        trial = self._quoted(f"{_PREFIX}{uuid4().hex}")
        try:
            with self._session() as cursor:
                self._make_schema(cursor, self.schema)
                cursor.execute(self._staging_table(trial, '"a" BIGINT'))
                cursor.execute(f"DROP TABLE {trial}")
                isolated = self._isolation(cursor)
        except WarehouseError as error:
            return [Permission("write", False, str(error), f"check the login; {grant}")]
        written = Permission("write", True, f"may write to {self.schema}")
        return [Permission("connect", True, self.target), written, *isolated]

    def _isolation(self, cursor: Cursor) -> list[Permission]:
        """Look whether readers see a transaction whole: in a dedicated pool that is a choice of the database."""
        database = literal(self._server.database)
        cursor.execute(f"SELECT is_read_committed_snapshot_on FROM sys.databases WHERE name = {database}")
        is_on = any(bool(row[0]) for row in cursor.fetchall())
        remedy = f'ALTER DATABASE "{self._server.database}" SET READ_COMMITTED_SNAPSHOT ON, on the database master'
        detail = "readers see a day replaced whole" if is_on else "readers may see half of a day that is being replaced"
        return [Permission("isolation", is_on, detail, remedy)]

    @contextmanager
    def _session(self) -> Iterator[Any]:
        with self._server.session(f"GRANT ALTER ON SCHEMA::{self.schema}", PublishError) as cursor:
            yield cursor


class FabricPublisher(SynapsePublisher):
    """Publishes into one schema of a warehouse of Fabric."""

    types = FABRIC
    staging_options = ""

    def _isolation(self, cursor: Cursor) -> list[Permission]:
        del cursor  # every transaction has its snapshot
        return []

    def _evolved(
        self, table: str, existing: Mapping[str, str], kinds: Mapping[str, str], is_empty: Callable[[str], bool]
    ) -> Evolution:
        """Compare a table with the rows to be loaded; PublishError for a type that widens, which Fabric cannot."""
        change = super()._evolved(table, existing, kinds, is_empty)
        for name in change.widened:
            raise PublishError(
                f"{table}: column {name!r} is {existing[name]} and would become {change.kinds[name]}: Fabric changes "
                "no column's type. Rename the column, or drop the table to have it made anew"
            )
        return change
