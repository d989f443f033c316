"""Publishing to Snowflake: a file to a stage, COPY into a table beside, then a day's rows replaced in a transaction.

Names are in capitals, as Snowflake spells names that are not quoted. DDL commits by itself, so that it comes first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from snowflake.connector.cursor import SnowflakeCursor
from snowflake.connector.errors import Error

from heap_assets.sources.warehouse.base import Permission, WarehouseError
from heap_assets.sources.warehouse.evolution import Evolution
from heap_assets.sources.warehouse.publish import Publication, PublishError
from heap_assets.sources.warehouse.resolved_views import DAY_COLUMN
from heap_assets.sources.warehouse.snowflake.connection import SnowflakeAccount
from heap_assets.sources.warehouse.snowflake.types import TYPES, literal
from heap_assets.sources.warehouse.staged import Cursor, StagedPublisher
from heap_assets.storage import Store
from heap_assets.values import sql_identifier

_LOAD_COLUMNS = '"ID" TEXT, "STATE" TEXT, "ROW_COUNT" NUMBER(38,0), "COLUMNS" TEXT, "CHECKSUM" TEXT'
_STAGE = "heap_assets_stage_"


class SnowflakePublisher(StagedPublisher):
    """Publishes into one schema of a database, which is made if it is missing; lists and structs become VARIANT."""

    types = TYPES
    longest_name = 255

    def __init__(self, account: SnowflakeAccount, schema: str, store: Store) -> None:
        super().__init__(store, f"snowflake-{account.account}-{account.database}-{schema}".lower())
        self._account, self.schema = account, schema

    def _fold(self, name: str) -> str:
        return name.upper()

    def _literal(self, text: str) -> str:
        return literal(text)

    @property
    def _driver_errors(self) -> tuple[type[Exception], ...]:
        return (Error,)

    def _staging_table(self, staging: str, columns: str) -> str:
        return f"CREATE TRANSIENT TABLE {staging} ({columns})"

    def _load_file(self, cursor: Cursor, load_id: str, staging: str, columns: Sequence[str], path: Path) -> None:
        del columns  # matched by name
        stage = self._quoted(_STAGE + load_id)
        cursor.execute(f"CREATE TEMPORARY STAGE {stage}")
        cursor.execute(f"PUT {literal(f'file://{path}')} @{stage} AUTO_COMPRESS=FALSE OVERWRITE=TRUE")
        cursor.execute(
            f"COPY INTO {staging} FROM @{stage} FILE_FORMAT=(TYPE=PARQUET USE_LOGICAL_TYPE=TRUE "
            "BINARY_AS_TEXT=FALSE) MATCH_BY_COLUMN_NAME=CASE_SENSITIVE ON_ERROR=ABORT_STATEMENT FORCE=TRUE"
        )

    def _drop_file(self, cursor: Cursor, load_id: str) -> None:
        cursor.execute(f"DROP STAGE IF EXISTS {self._quoted(_STAGE + load_id)}")

    def _make_schema(self, cursor: Cursor, schema: str) -> None:
        cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {self._name(schema)}")

    def _make_loads(self, cursor: Cursor) -> None:
        cursor.execute(f"CREATE TABLE IF NOT EXISTS {self._loads} ({_LOAD_COLUMNS})")

    def _make_table(self, cursor: Cursor, publication: Publication, kinds: Mapping[str, str]) -> None:
        definition = self._definition(publication, kinds)
        cursor.execute(f"CREATE TABLE IF NOT EXISTS {self._quoted(publication.table)} {definition}")

    def _add_column(self, cursor: Cursor, publication: Publication, name: str, kind: str) -> None:
        target = self._quoted(publication.table)
        cursor.execute(f"ALTER TABLE {target} ADD COLUMN {self._described(publication, name, kind)}")

    def _widen(self, cursor: Cursor, publication: Publication, kinds: Mapping[str, str], change: Evolution) -> None:
        """Make the table anew with other types, in one statement: readers see the old one or the new one."""
        del change  # the table is made whole
        target, definition = self._quoted(publication.table), self._definition(publication, kinds)
        values = ", ".join(f"CAST({sql_identifier(name)} AS {kind})" for name, kind in kinds.items())
        cursor.execute(f"CREATE OR REPLACE TABLE {target} {definition} COPY GRANTS AS SELECT {values} FROM {target}")

    def _existing(self, cursor: Cursor, table: str) -> dict[str, str]:
        cursor.execute(
            "SELECT column_name, data_type, numeric_scale FROM information_schema.columns "
            f"WHERE table_schema = {literal(self.schema)} AND table_name = {literal(table.upper())} "
            "ORDER BY ordinal_position"
        )
        rows: list[Any] = cursor.fetchall()
        return {name: f"NUMBER(38,{scale or 0})" if kind == "NUMBER" else kind for name, kind, scale in rows}

    def _hash(self, columns: Mapping[str, str]) -> str:
        return f"TO_VARCHAR(SUM(HASH({', '.join(map(sql_identifier, columns))})))"

    def _make_view(self, cursor: Cursor, into: str, table: str, query: str) -> None:
        cursor.execute(f"CREATE OR REPLACE VIEW {self._quoted(table, into)} AS {query}")

    def _has_view(self, cursor: Cursor, into: str, table: str) -> bool:
        cursor.execute(
            "SELECT COUNT(*) FROM information_schema.views "
            f"WHERE table_schema = {literal(into.upper())} AND table_name = {literal(table.upper())}"
        )
        rows: list[Any] = cursor.fetchall()
        return bool(rows[0][0])

    def preflight(self) -> list[Permission]:
        grant = f"GRANT USAGE, CREATE TABLE, CREATE STAGE, CREATE VIEW ON SCHEMA {self.schema}, or CREATE SCHEMA"
        trial = self._quoted(f"heap_assets_load_{uuid4().hex}")
        try:
            with self._session() as cursor:
                self._make_schema(cursor, self.schema)
                cursor.execute(f'CREATE TRANSIENT TABLE {trial} ("A" TEXT)')
                cursor.execute(f"DROP TABLE {trial}")
        except WarehouseError as error:
            return [Permission("write", False, str(error), f"check the login; {grant}")]
        return [Permission("connect", True, self.target), Permission("write", True, f"may write to {self.schema}")]

    @contextmanager
    def _session(self) -> Iterator[SnowflakeCursor]:
        with self._account.session(f"GRANT CREATE TABLE, STAGE and VIEW ON SCHEMA {self.schema}", PublishError) as it:
            yield it

    def _described(self, publication: Publication, name: str, kind: str) -> str:
        texts = {column.upper(): text for column, text in publication.descriptions.items()}
        text = texts.get(name.upper())
        return f"{self._name(name)} {kind}" + (f" COMMENT {literal(text)}" if text else "")

    def _definition(self, publication: Publication, kinds: Mapping[str, str]) -> str:
        """Write the columns of a table with their descriptions, and what it is clustered by."""
        columns = ", ".join(self._described(publication, name, kind) for name, kind in kinds.items())
        existing = {name.upper() for name in kinds}
        clusters = [DAY_COLUMN] if publication.by_day else []
        clusters += [name for name in publication.cluster_by if name.upper() in existing]
        by = f" CLUSTER BY ({', '.join(map(self._name, clusters))})" if clusters else ""
        return f"({columns}){by} COMMENT = {literal(publication.description)}"
