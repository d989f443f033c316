"""A DuckDB file as the warehouse: opened read-only for the time of one read, so that others can write it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from heap_assets.sources.warehouse.arrow import MisfitError, SourceFailedError, Stored, write_parquet
from heap_assets.sources.warehouse.base import (
    AccessError,
    Column,
    Permission,
    Table,
    Tally,
    WarehouseBusyError,
    WarehouseError,
)
from heap_assets.sources.warehouse.duckdb.errors import holder, reason
from heap_assets.sources.warehouse.duckdb.types import column_of, readable
from heap_assets.sources.warehouse.sql_engine import Query, SqlWarehouse, misfit, quoted
from heap_assets.values import sql_identifier, sql_literal

_BATCH_ROWS = 65_536


@dataclass(frozen=True)
class DuckDBWarehouse(SqlWarehouse[duckdb.DuckDBPyConnection]):
    """A DuckDB database file.

    Parameters
    ----------
    path
        The file; it must exist.
    memory_limit
        Of DuckDB itself, for views that aggregate; more than that spills into a temporary folder.
    lock_wait
        Seconds to wait for a writer to let go of the file.
    section
        Of the settings that name the file.
    """

    path: Path
    memory_limit: str = "384MB"
    lock_wait: float = 10.0
    section: str = "warehouse"
    kind: str = "duckdb"
    default_schema = "main"

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.path.name

    def preflight(self) -> list[Permission]:
        if not self.path.exists():
            remedy = f"set {self.section}.path to the DuckDB file"
            return [Permission("file", False, f"{self.path} does not exist", remedy)]
        try:
            tables = self.tables()
        except WarehouseError as error:
            return [Permission("open read-only", False, str(error), "close the writer, or run when it is done")]
        return [
            Permission("open read-only", True, str(self.path)),
            Permission("tables", bool(tables), f"{len(tables)} tables and views", "the database is empty"),
        ]

    def _version(self, connection: duckdb.DuckDBPyConnection, resolved: str) -> str | None:
        """Size and time of change of the file and its log: any write changes one. A view may read elsewhere: None."""
        kinds = {table.name: table.kind for table in self._tables(connection)}
        if kinds[resolved] != "table":
            return None
        log = self.path.with_name(f"{self.path.name}.wal")
        stats = [path.stat() for path in (self.path, log) if path.exists()]
        return " ".join(f"{stat.st_size}-{stat.st_mtime_ns}" for stat in stats)

    def _tally(self, connection: duckdb.DuckDBPyConnection, resolved: str, column: str) -> Tally:
        question = f"SELECT count(*), sum(hash({sql_identifier(column)})) FROM {quoted(resolved)}"
        [(rows, checksum)] = connection.execute(question).fetchall()
        return Tally(rows, str(checksum))

    def _stored(self, connection: duckdb.DuckDBPyConnection, query: Query, text: Collection[str], path: Path) -> Stored:
        def stored(as_text: Collection[str]) -> Stored:
            reader = connection.sql(_select(connection, query, as_text)).to_arrow_reader(_BATCH_ROWS)
            return write_parquet(reader.schema, reader, path)

        try:
            return stored(text)
        except (duckdb.ConversionException, SourceFailedError) as error:
            beyond = _beyond_decimals(connection, query.resolved, query.columns)
            if beyond <= set(text):
                raise WarehouseError(f"{query.relation}: {reason(error)}") from error
            return stored({*text, *beyond})
        except duckdb.Error as error:
            raise WarehouseError(f"{query.relation}: {reason(error)}") from error
        except MisfitError as error:
            raise misfit(query.relation, error) from error

    @contextmanager
    def _connect(self, scratch: Path | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
        config = {
            "memory_limit": self.memory_limit,
            "autoinstall_known_extensions": "false",  # nothing is fetched from a host that the user did not configure
        }
        connection = self._retry_while_locked(lambda: duckdb.connect(str(self.path), read_only=True, config=config))
        try:
            connection.execute("SET enable_progress_bar = false; SET TimeZone = 'UTC'")
            if scratch is not None:
                connection.execute(f"SET temp_directory = {sql_literal(str(scratch / 'spill'))}")
            yield connection
        except (duckdb.Error, SourceFailedError) as error:
            raise WarehouseError(f"{self.name} cannot be read: {reason(error)}") from error
        finally:
            connection.close()

    def _retry_while_locked(self, connect: Callable[[], duckdb.DuckDBPyConnection]) -> duckdb.DuckDBPyConnection:
        give_up_at = time.monotonic() + self.lock_wait
        while True:
            try:
                return connect()
            except duckdb.Error as error:
                problem = self._explained(error)
                if not isinstance(problem, WarehouseBusyError) or time.monotonic() >= give_up_at:
                    raise problem from error
            time.sleep(0.1)

    def _explained(self, error: duckdb.Error) -> WarehouseError:
        if process := holder(error):
            return WarehouseBusyError(
                f"{self.path} is open for writing in {process}, and DuckDB lets nobody read it meanwhile: "
                "close that connection, or run again when it is done"
            )
        if "different configuration" in str(error):
            return WarehouseBusyError(f"{self.path} is already open for writing in this very process: close it first")
        if not self.path.exists():
            return AccessError(f"{self.path} does not exist: set {self.section}.path to the DuckDB file")
        return AccessError(f"{self.path} cannot be opened: {reason(error)}")

    def _tables(self, connection: duckdb.DuckDBPyConnection) -> list[Table]:
        rows = connection.execute(
            """
            SELECT schema_name || '.' || table_name, 'table', estimated_size, comment
            FROM duckdb_tables() WHERE database_name = current_database() AND NOT internal
            UNION ALL
            SELECT schema_name || '.' || view_name, 'view', NULL, comment
            FROM duckdb_views() WHERE database_name = current_database() AND NOT internal
            ORDER BY 1
            """
        ).fetchall()
        return [Table(name, kind, size, comment or "") for name, kind, size, comment in rows]

    def _columns(self, connection: duckdb.DuckDBPyConnection, resolved: str) -> list[Column]:
        schema, _, table = resolved.partition(".")
        types = connection.sql(f"SELECT * FROM {quoted(resolved)} LIMIT 0")
        facts = {
            name: (nullable, comment)
            for name, nullable, comment in connection.execute(
                "SELECT column_name, is_nullable, comment FROM duckdb_columns() "
                "WHERE database_name = current_database() AND schema_name = ? AND table_name = ?",
                [schema, table],
            ).fetchall()
        }
        columns = []
        for name, kind in zip(types.columns, types.types, strict=True):
            nullable, comment = facts.get(name, (True, None))
            columns.append(column_of(name, kind, bool(nullable), comment or ""))
        return columns


def _beyond_decimals(connection: duckdb.DuckDBPyConnection, relation: str, columns: Sequence[str]) -> set[str]:
    """Return the columns with HUGEINT somewhere that hold one of more than 38 digits."""
    described = connection.sql(f"SELECT * FROM {quoted(relation)} LIMIT 0")
    kinds = dict(zip(described.columns, described.types, strict=True))
    beyond = set()
    for name in columns:
        if "HUGEINT" in str(kinds[name]):
            column, kind = sql_identifier(name), readable(kinds[name])
            differs = f"CAST(TRY_CAST({column} AS {kind}) AS VARCHAR) IS DISTINCT FROM CAST({column} AS VARCHAR)"
            if connection.execute(f"SELECT count(*) FROM {quoted(relation)} WHERE {differs}").fetchall()[0][0]:
                beyond.add(name)
    return beyond


def _select(connection: duckdb.DuckDBPyConnection, query: Query, text: Collection[str]) -> str:
    """Select columns with a cast for each type that Parquet lacks; those in `text` have no HUGEINT left."""
    described = connection.sql(f"SELECT * FROM {quoted(query.resolved)} LIMIT 0")
    types = dict(zip(described.columns, described.types, strict=True))
    parts = []
    for name in query.columns:
        kind = readable(types[name], "VARCHAR" if name in text else "DECIMAL(38,0)")
        column = sql_identifier(name)
        parts.append(column if kind == str(types[name]) else f"CAST({column} AS {kind}) AS {column}")
    return f"SELECT {', '.join(parts)}{query.clauses}"
