"""Publishing to Redshift: a file on S3, COPY into a table beside, then a day's rows replaced in a transaction.

Names are in small letters, as Redshift spells all names. Whoever changes rows holds the table of loads from the first
statement of the transaction on: Redshift fails one of two transactions that write to a table at once (error 1023).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import adbc_driver_manager
import polars as pl

from heap_assets.errors import HeapAssetsError
from heap_assets.sources.warehouse.base import Permission, WarehouseError
from heap_assets.sources.warehouse.evolution import Evolution
from heap_assets.sources.warehouse.publish import Publication, PublishError
from heap_assets.sources.warehouse.redshift.connection import RedshiftDatabase
from heap_assets.sources.warehouse.redshift.reader import columns_of
from heap_assets.sources.warehouse.redshift.types import TYPES, hashed, loaded_column
from heap_assets.sources.warehouse.resolved_views import DAY_COLUMN
from heap_assets.sources.warehouse.staged import Cursor, StagedPublisher
from heap_assets.sources.warehouse.staged_types import StagedColumn
from heap_assets.storage import Store
from heap_assets.values import sql_literal

_PREFIX = "heap_assets_load_"


class RedshiftPublisher(StagedPublisher):
    """Publishes into one schema of a database, which is made if it is missing; lists and structs become SUPER.

    Parameters
    ----------
    staging
        Where files are put for COPY: an S3 prefix in the cluster's region.
    iam_role
        Role of the cluster that may read there: its ARN, or `default`.
    """

    types = TYPES
    longest_name = 127
    system_columns = frozenset({"oid", "insertxid", "deletexid"})

    def __init__(self, database: RedshiftDatabase, schema: str, store: Store, staging: Store, iam_role: str) -> None:
        super().__init__(store, f"redshift-{database.name.replace('/', '-').replace(':', '-')}-{schema}")
        self._database, self.schema, self._files = database, schema, staging
        self._role = "default" if iam_role == "default" else sql_literal(iam_role)

    def _begin(self, cursor: Cursor) -> None:
        cursor.execute("BEGIN")
        cursor.execute(f"LOCK {self._loads}")

    def _fold(self, name: str) -> str:
        return name.lower()

    def _column(self, name: str, dtype: pl.DataType, publication: Publication) -> StagedColumn:
        return loaded_column(name, dtype, publication)

    @property
    def _driver_errors(self) -> tuple[type[Exception], ...]:
        return (adbc_driver_manager.Error,)

    def _load_file(self, cursor: Cursor, load_id: str, staging: str, columns: Sequence[str], path: Path) -> None:
        """Load by COPY, which takes a file's columns by their place."""
        del columns
        key = f"{_PREFIX}{load_id}.parquet"
        self._files.put(key, path)
        source = sql_literal(self._files.uri(key))
        cursor.execute(f"COPY {staging} FROM {source} IAM_ROLE {self._role} FORMAT AS PARQUET")

    def _drop_file(self, cursor: Cursor, load_id: str) -> None:
        del cursor
        self._files.delete(f"{_PREFIX}{load_id}.parquet")

    def _make_schema(self, cursor: Cursor, schema: str) -> None:
        cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {self._name(schema)}")

    def _make_loads(self, cursor: Cursor) -> None:
        text = TYPES.text
        columns = f'"id" VARCHAR(600), "state" VARCHAR(16), "row_count" BIGINT, "columns" {text}, "checksum" {text}'
        cursor.execute(f"CREATE TABLE IF NOT EXISTS {self._loads} ({columns})")

    def _make_table(self, cursor: Cursor, publication: Publication, kinds: Mapping[str, str]) -> None:
        target = self._quoted(publication.table)
        columns = ", ".join(f"{self._name(name)} {kind}" for name, kind in kinds.items())
        by_day = f" SORTKEY ({self._name(DAY_COLUMN)})" if publication.by_day else ""
        cursor.execute(f"CREATE TABLE IF NOT EXISTS {target} ({columns}){by_day}")
        cursor.execute(f"COMMENT ON TABLE {target} IS {sql_literal(publication.description)}")
        for name in kinds:
            self._describe(cursor, publication, name)

    def _add_column(self, cursor: Cursor, publication: Publication, name: str, kind: str) -> None:
        cursor.execute(f"ALTER TABLE {self._quoted(publication.table)} ADD COLUMN {self._name(name)} {kind}")
        self._describe(cursor, publication, name)

    def _describe(self, cursor: Cursor, publication: Publication, name: str) -> None:
        if text := publication.descriptions.get(name):
            column = f"{self._quoted(publication.table)}.{self._name(name)}"
            cursor.execute(f"COMMENT ON COLUMN {column} IS {sql_literal(text)}")

    def _widen(self, cursor: Cursor, publication: Publication, kinds: Mapping[str, str], change: Evolution) -> None:
        """Copy each column into one of its new type, in one transaction: ALTER TYPE lengthens VARCHAR alone."""
        target = self._quoted(publication.table)
        with self._transaction(cursor):
            for name in change.widened:
                own, wider, kind = self._name(name), self._name(f"heap_assets_{uuid4().hex[:8]}"), change.kinds[name]
                cursor.execute(f"ALTER TABLE {target} ADD COLUMN {wider} {kind}")
                cursor.execute(f"UPDATE {target} SET {wider} = CAST({own} AS {kind})")
                cursor.execute(f"ALTER TABLE {target} DROP COLUMN {own}")
                cursor.execute(f"ALTER TABLE {target} RENAME COLUMN {wider} TO {own}")
        for name in change.widened:
            self._describe(cursor, publication, name)

    def _existing(self, cursor: Cursor, table: str) -> dict[str, str]:
        return {name: kind for name, kind, _ in columns_of(cursor, self._fold(self.schema), self._fold(table))}

    def _hash(self, columns: Mapping[str, str]) -> str:
        value = ""
        for name, kind in columns.items():
            value = hashed(name, kind, value)
        return f"CAST(SUM({value}) AS VARCHAR)"

    def _make_view(self, cursor: Cursor, into: str, table: str, query: str) -> None:
        """Make the view anew, since REPLACE takes no other columns; bound to no table, so that columns can widen."""
        view = self._quoted(table, into)
        with self._transaction(cursor):
            cursor.execute(f"DROP VIEW IF EXISTS {view}")
            cursor.execute(f"CREATE VIEW {view} AS {query.rstrip()} WITH NO SCHEMA BINDING")

    def _has_view(self, cursor: Cursor, into: str, table: str) -> bool:
        return bool(columns_of(cursor, self._fold(into), self._fold(table)))

    def preflight(self) -> list[Permission]:
        grant = f"GRANT USAGE, CREATE ON SCHEMA {self.schema}, or CREATE ON DATABASE, to this user"
        load_id, trial = uuid4().hex, self._quoted(f"{_PREFIX}{uuid4().hex}")
        connected = Permission("connect", True, self.target)
        try:
            with self._session() as cursor:
                self._make_schema(cursor, self.schema)
                cursor.execute(f'CREATE TABLE {trial} ("a" BIGINT)')
                try:
                    copied = self._try_copy(cursor, load_id, trial)
                finally:
                    cursor.execute(f"DROP TABLE {trial}")
        except WarehouseError as error:
            remedy = f"check dsn and that the cluster lets this host in; {grant}"
            return [Permission("write", False, str(error), remedy)]
        return [connected, Permission("write", True, f"may write to {self.schema}"), copied]

    def _try_copy(self, cursor: Cursor, load_id: str, trial: str) -> Permission:
        """Load one row through S3, as a load does."""
        url = self._files.url
        remedy = f"iam_role has to be attached to the cluster and may read {url}, and this process has to write there"
        try:
            with self._files.staging(f"{_PREFIX}{load_id}.trial") as path:
                pl.DataFrame({"a": [1]}).write_parquet(path)
                self._load_file(cursor, load_id, trial, ["a"], path)
        except (adbc_driver_manager.Error, HeapAssetsError, OSError) as error:
            return Permission("copy", False, f"COPY from {url}: {type(error).__name__}", remedy)
        finally:
            self._drop_file(cursor, load_id)
        return Permission("copy", True, f"loads through {url}")

    @contextmanager
    def _session(self) -> Iterator[Any]:
        with self._database.session(f"GRANT USAGE, CREATE ON SCHEMA {self.schema}", PublishError) as cursor:
            yield cursor
