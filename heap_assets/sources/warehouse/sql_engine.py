"""Base of engines that are queried in SQL over a connection."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, Generic, NamedTuple, TypeVar

from heap_assets.sources.warehouse.arrow import MisfitError, Stored
from heap_assets.sources.warehouse.base import (
    Column,
    Newer,
    Permission,
    ReadRequest,
    ReadResult,
    Table,
    Tally,
    Warehouse,
    WarehouseError,
    choose_columns,
    find_relation,
    qualified,
)
from heap_assets.values import sql_identifier, sql_literal

C = TypeVar("C")


class Query(NamedTuple):
    """A query: the relation as the caller and as the engine spells it, columns, and the clauses after them."""

    relation: str
    resolved: str
    columns: tuple[str, ...]
    clauses: str


class SqlWarehouse(Warehouse, Generic[C]):
    """A warehouse that is queried over a connection; `C` is the type of the connection or its cursor."""

    default_schema: ClassVar[str]

    @property
    @abstractmethod
    def name(self) -> str:
        """What messages call this warehouse."""

    @abstractmethod
    def _connect(self, scratch: Path | None = None) -> AbstractContextManager[C]:
        """Connect, read-only and with times in UTC; errors inside become ours."""

    @abstractmethod
    def _tables(self, connection: C) -> list[Table]: ...

    @abstractmethod
    def _columns(self, connection: C, resolved: str) -> list[Column]: ...

    @abstractmethod
    def _version(self, connection: C, resolved: str) -> str | None: ...

    @abstractmethod
    def _tally(self, connection: C, resolved: str, column: str) -> Tally | None: ...

    @abstractmethod
    def _stored(self, connection: C, query: Query, text: Collection[str], path: Path) -> Stored:
        """Stream rows into a Parquet file; columns in `text` are read as text."""

    def tables(self) -> list[Table]:
        with self._connect() as connection:
            return self._tables(connection)

    def resolve(self, relation: str) -> str:
        with self._connect() as connection:
            return self._resolve(connection, relation)

    def columns(self, relation: str) -> list[Column]:
        with self._connect() as connection:
            return self._columns(connection, self._resolve(connection, relation))

    def version(self, relation: str) -> str | None:
        with self._connect() as connection:
            return self._version(connection, self._resolve(connection, relation))

    def tally(self, relation: str, column: str) -> Tally | None:
        with self._connect() as connection:
            return self._tally(connection, self._resolve(connection, relation), column)

    def _read(self, request: ReadRequest, path: Path) -> ReadResult:
        with self._connect(path.parent) as connection:
            resolved = self._resolve(connection, request.relation)
            version = self._version(connection, resolved)
            names = choose_columns(request.columns, self._columns(connection, resolved), request.relation)
            clauses = f" FROM {quoted(resolved)}{self._restriction(request.newer, request.limit)}"
            stored = self._stored(connection, Query(request.relation, resolved, names, clauses), request.text, path)
        return ReadResult(resolved, names, stored.rows, stored.lost, version)

    def _restriction(self, newer: Newer | None, limit: int | None) -> str:
        """Write what follows the FROM of a query."""
        conditions = []
        if newer is not None:
            column = sql_identifier(newer.column)
            bounds = ((">=", newer.since), ("<", newer.until))
            conditions = [f"{column} {sign} {self._moment(bound)}" for sign, bound in bounds if bound is not None]
            if newer.equals:
                conditions.append(f"{sql_identifier(newer.equals[0])} = {sql_literal(newer.equals[1])}")
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        return where + ("" if limit is None else self._limited(limit))

    def _moment(self, moment: datetime) -> str:
        return f"CAST({sql_literal(moment.astimezone(UTC).isoformat())} AS TIMESTAMPTZ)"

    def _limited(self, limit: int) -> str:
        return f" LIMIT {limit:d}"

    def _listed(self, remedy: str, grant: str, probe: Callable[[C, str], object]) -> list[Permission]:
        """Return whether the login works and sees tables, the first of which `probe` reads, by its quoted name."""
        try:
            with self._connect() as connection:
                tables = self._tables(connection)
                for table in tables[:1]:
                    probe(connection, quoted(table.name))
        except WarehouseError as error:
            return [Permission("connect", False, str(error), f"{remedy}; {grant}")]
        return [
            Permission("connect", True, self.name),
            Permission("tables", bool(tables), f"{len(tables)} tables and views", grant),
        ]

    def _resolve(self, connection: C, relation: str) -> str:
        names = [table.name for table in self._tables(connection)]
        return find_relation(qualified(relation, self.default_schema), names, self.name)


def misfit(relation: str, error: MisfitError) -> WarehouseError:
    """Return the error for a column whose values fit neither its type nor text."""
    return WarehouseError(f"{relation}: {error}: read it through a view that gives it another type")


def quoted(relation: str) -> str:
    """Quote `schema.table`."""
    schema, _, table = relation.partition(".")
    return f"{sql_identifier(schema)}.{sql_identifier(table)}"
