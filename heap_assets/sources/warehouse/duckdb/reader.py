"""A DuckDB file as the warehouse: opened read-only for the time of one read, so that others can write it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from heap_assets.sources.warehouse.arrow import MisfitError, SourceFailedError, Stored, write_parquet
from heap_assets.sources.warehouse.base import (
    AccessError,
    Column,
    Newer,
    Permission,
    Reading,
    Table,
    Tally,
    Warehouse,
    WarehouseBusyError,
    WarehouseError,
    choose_columns,
    find_relation,
)

_BATCH_ROWS = 65_536
_INTERNAL_SCHEMAS = ("information_schema", "pg_catalog")
_AS_TEXT = frozenset({"interval", "bit", "time with time zone", "uhugeint", "bignum", "union", "variant", "geometry"})
"""Types that Parquet and Polars do not share with DuckDB; they are read as DuckDB writes them."""
_QUOTED = re.compile(r"""["'](?:.*["']|.*)""")
"""From the first quote to the last: what is quoted may hold quotes itself, and end in another line."""
_VALUE = re.compile(r"\b([Vv]alue) \S+")
_HOLDER = re.compile(r"Conflicting lock is held in (?P<program>\S+)?.*?\(PID (?P<pid>\d+)\)", re.DOTALL)


@dataclass(frozen=True)
class DuckDBWarehouse(Warehouse):
    """A DuckDB database file.

    Parameters
    ----------
    path
        The file; it must exist.
    memory_limit
        Of DuckDB itself, for views that aggregate; more than that spills into a temporary folder.
    lock_wait
        Seconds to wait for a writer to let go of the file.
    """

    path: Path
    memory_limit: str = "384MB"
    lock_wait: float = 10.0
    kind: str = "duckdb"

    def tables(self) -> list[Table]:
        with self._connect() as connection:
            return _tables(connection)

    def resolve(self, relation: str) -> str:
        with self._connect() as connection:
            return self._resolve(connection, relation)

    def columns(self, relation: str) -> list[Column]:
        with self._connect() as connection:
            return _columns(connection, self._resolve(connection, relation))

    def version(self, relation: str) -> str | None:
        """Size and time of change of the file and its log: any write changes one. A view may read elsewhere: None."""
        with self._connect() as connection:
            resolved = self._resolve(connection, relation)
            kinds = {table.name: table.kind for table in _tables(connection)}
        if kinds[resolved] != "table":
            return None
        log = self.path.with_name(f"{self.path.name}.wal")
        stats = [path.stat() for path in (self.path, log) if path.exists()]
        return " ".join(f"{stat.st_size}-{stat.st_mtime_ns}" for stat in stats)

    def tally(self, relation: str, column: str) -> Tally | None:
        with self._connect() as connection:
            resolved = self._resolve(connection, relation)
            question = f"SELECT count(*), sum(hash({_identifier(column)})) FROM {_quoted(resolved)}"
            [(rows, checksum)] = connection.execute(question).fetchall()
        return Tally(rows, str(checksum))

    def read(
        self,
        relation: str,
        columns: Sequence[str] | None,
        path: Path,
        *,
        newer: Newer | None = None,
        limit: int | None = None,
        text: Collection[str] = (),
    ) -> Reading:
        started, observed_at = time.monotonic(), datetime.now(UTC)
        version = self.version(relation)
        with self._connect(path.parent) as connection:
            resolved = self._resolve(connection, relation)
            chosen = choose_columns(columns, _columns(connection, resolved), relation)

            def stored(as_text: Collection[str]) -> Stored:
                query = _query(connection, resolved, chosen.names, newer, as_text) + _limited(limit)
                reader = connection.sql(query).to_arrow_reader(_BATCH_ROWS)
                return write_parquet(reader.schema, reader, path)

            try:
                kept = stored(text)
            except (duckdb.ConversionException, SourceFailedError) as error:
                beyond = _beyond_decimals(connection, resolved, chosen.names)
                if beyond <= set(text):
                    raise WarehouseError(f"{relation}: {_first_line(error)}") from error
                kept = stored({*text, *beyond})
            except duckdb.Error as error:
                raise WarehouseError(f"{relation}: {_first_line(error)}") from error
            except MisfitError as error:
                raise WarehouseError(
                    f"{relation}: {error}: read it through a view that gives it another type"
                ) from error
        seconds = time.monotonic() - started
        return Reading(resolved, chosen.names, kept.rows, observed_at, seconds, version, lost=kept.lost)

    def preflight(self) -> list[Permission]:
        if not self.path.exists():
            return [Permission("file", False, f"{self.path} does not exist", "set warehouse.path to the DuckDB file")]
        try:
            found = self.tables()
        except WarehouseError as error:
            return [Permission("open read-only", False, str(error), "close the writer, or run when it is done")]
        return [
            Permission("open read-only", True, str(self.path)),
            Permission("tables", bool(found), f"{len(found)} tables and views", "the database is empty"),
        ]

    def _resolve(self, connection: duckdb.DuckDBPyConnection, relation: str) -> str:
        names = [table.name for table in _tables(connection)]
        wanted = relation if "." in relation else f"main.{relation}"
        return find_relation(wanted, names, str(self.path.name))

    @contextmanager
    def _connect(self, spill: Path | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
        config = {
            "memory_limit": self.memory_limit,
            "autoinstall_known_extensions": "false",  # nothing is fetched from a host that the user did not configure
        }
        connection = self._waiting(lambda: duckdb.connect(str(self.path), read_only=True, config=config))
        try:
            connection.execute("SET enable_progress_bar = false; SET TimeZone = 'UTC'")
            if spill is not None:
                connection.execute(f"SET temp_directory = {_literal(str(spill / 'spill'))}")
            yield connection
        except (duckdb.Error, SourceFailedError) as error:
            raise WarehouseError(f"{self.path.name} cannot be read: {_first_line(error)}") from error
        finally:
            connection.close()

    def _waiting(self, connect: Callable[[], duckdb.DuckDBPyConnection]) -> duckdb.DuckDBPyConnection:
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
        text = str(error)
        if "Could not set lock" in text:
            holder = _HOLDER.search(text)
            who = f"process {holder['pid']} ({holder['program']})" if holder else "another process"
            return WarehouseBusyError(
                f"{self.path} is open for writing in {who}, and DuckDB lets nobody read it meanwhile: "
                "close that connection, or run again when it is done"
            )
        if "different configuration" in text:
            return WarehouseBusyError(f"{self.path} is already open for writing in this very process: close it first")
        if not self.path.exists():
            return AccessError(f"{self.path} does not exist: set warehouse.path to the DuckDB file")
        return AccessError(f"{self.path} cannot be opened: {_first_line(error)}")


def _tables(connection: duckdb.DuckDBPyConnection) -> list[Table]:
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


def _columns(connection: duckdb.DuckDBPyConnection, relation: str) -> list[Column]:
    schema, _, table = relation.partition(".")
    types = connection.sql(f"SELECT * FROM {_quoted(relation)} LIMIT 0")
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
        columns.append(_column(name, kind, bool(nullable), comment or ""))
    return columns


def _column(name: str, kind: Any, nullable: bool = True, description: str = "") -> Column:
    repeated = kind.id in ("list", "array")
    inner = kind.children[0][1] if repeated else kind
    fields = tuple(_column(child, child_kind) for child, child_kind in inner.children) if inner.id == "struct" else ()
    return Column(name, str(kind), nullable, repeated, fields, description)


def _beyond_decimals(connection: duckdb.DuckDBPyConnection, relation: str, columns: Sequence[str]) -> set[str]:
    """Return the columns with HUGEINT somewhere that hold one of more than 38 digits."""
    described = connection.sql(f"SELECT * FROM {_quoted(relation)} LIMIT 0")
    kinds = dict(zip(described.columns, described.types, strict=True))
    found = set()
    for name in columns:
        if "HUGEINT" in str(kinds[name]):
            quoted, readable = _identifier(name), _readable(kinds[name])
            kept = f"CAST(TRY_CAST({quoted} AS {readable}) AS VARCHAR) IS DISTINCT FROM CAST({quoted} AS VARCHAR)"
            if connection.execute(f"SELECT count(*) FROM {_quoted(relation)} WHERE {kept}").fetchall()[0][0]:
                found.add(name)
    return found


def _query(
    connection: duckdb.DuckDBPyConnection,
    relation: str,
    columns: Sequence[str],
    newer: Newer | None,
    text: Collection[str] = (),
) -> str:
    """Select columns with a cast for each type that Parquet lacks; those in `text` have no HUGEINT left."""
    described = connection.sql(f"SELECT * FROM {_quoted(relation)} LIMIT 0")
    types = dict(zip(described.columns, described.types, strict=True))
    parts = []
    for name in columns:
        readable = _readable(types[name], "VARCHAR" if name in text else "DECIMAL(38,0)")
        quoted = _identifier(name)
        parts.append(quoted if readable == str(types[name]) else f"CAST({quoted} AS {readable}) AS {quoted}")
    query = f"SELECT {', '.join(parts)} FROM {_quoted(relation)}"
    if newer is None:
        return query
    alike = f" AND {_identifier(newer.equals[0])} = {_literal(newer.equals[1])}" if newer.equals else ""
    return f"{query} WHERE {_between(newer)}{alike}"


def _between(newer: Newer) -> str:
    column = _identifier(newer.column)
    lower = f"{column} >= TIMESTAMPTZ {_literal(newer.since.astimezone(UTC).isoformat())}"
    if newer.until is None:
        return lower
    return f"{lower} AND {column} < TIMESTAMPTZ {_literal(newer.until.astimezone(UTC).isoformat())}"


def _readable(kind: Any, hugeint: str = "DECIMAL(38,0)") -> str:
    """Write a type with the leaves that do not survive Parquet replaced; everything else as it is."""
    if kind.id in _AS_TEXT:
        return "VARCHAR"
    if kind.id == "hugeint":
        return hugeint
    if kind.id == "list":
        return f"{_readable(kind.children[0][1], hugeint)}[]"
    if kind.id == "array":
        return f"{_readable(kind.children[0][1], hugeint)}[{kind.children[1][1]}]"
    if kind.id == "map":
        key, value = (_readable(child, hugeint) for _, child in kind.children)
        return f"MAP({key}, {value})"
    if kind.id == "struct":
        fields = (f"{_identifier(name)} {_readable(child, hugeint)}" for name, child in kind.children)
        return f"STRUCT({', '.join(fields)})"
    return str(kind)


def _quoted(relation: str) -> str:
    schema, _, table = relation.partition(".")
    return f"{_identifier(schema)}.{_identifier(table)}"


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _first_line(error: Exception) -> str:
    """The reason without the values it quotes, which may be somebody's."""
    line = str(error).splitlines()[0]
    if isinstance(error, duckdb.InvalidInputException):  # what a function, such as error(), says of a row
        return f"{line.partition(':')[0]}: a function failed on a row; its text may hold values and is left out"
    if isinstance(error, duckdb.DataError | SourceFailedError):
        return _VALUE.sub(r"\1 …", _QUOTED.sub("'…'", line))
    return line


def _limited(limit: int | None) -> str:
    return "" if limit is None else f" LIMIT {limit:d}"
