"""A source read by API calls of a connector: no SQL and no version, but it can return rows changed since a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from heap_assets.errors import HeapAssetsError
from heap_assets.redaction import redact_error
from heap_assets.sources.warehouse.arrow import first_rows, write_parquet
from heap_assets.sources.warehouse.base import (
    Column,
    Permission,
    ReadRequest,
    ReadResult,
    Table,
    Warehouse,
    WarehouseError,
    choose_columns,
    find_relation,
    qualified,
)


@dataclass(frozen=True)
class RowsWarehouse(Warehouse):
    """The tables of a system, called `<kind>.<table>`.

    Parameters
    ----------
    schemas
        Returns the columns of each table.
    rows
        Returns a table's rows in frames of these columns: all, or those that changed at or after a time (UTC).
    """

    kind: str
    schemas: Callable[[], Mapping[str, pl.Schema]] = field(repr=False)
    rows: Callable[[str, datetime | None], Iterable[pl.DataFrame]] = field(repr=False)
    reports_changes = True

    def tables(self) -> list[Table]:
        return [Table(f"{self.kind}.{name}") for name in self.schemas()]

    def resolve(self, relation: str) -> str:
        return find_relation(qualified(relation, self.kind), [table.name for table in self.tables()], self.kind)

    def columns(self, relation: str) -> list[Column]:
        return [_column(name, dtype) for name, dtype in self._schema(self.resolve(relation)).items()]

    def version(self, relation: str) -> str | None:
        return None

    def _read(self, request: ReadRequest, path: Path) -> ReadResult:
        resolved = self.resolve(request.relation)
        names = choose_columns(request.columns, self.columns(resolved), request.relation)
        schema = pl.Schema({name: dtype for name, dtype in self._schema(resolved).items() if name in names})
        batches = self._batches(resolved, schema, request.newer.since if request.newer else None)
        limited = batches if request.limit is None else first_rows(batches, request.limit)
        stored = write_parquet(schema.to_frame().to_arrow().schema, limited, path)
        return ReadResult(resolved, names, stored.rows, stored.lost)

    def preflight(self) -> list[Permission]:
        permissions = []
        try:
            for table in self.tables():
                with self.snapshot(table.name, limit=1):
                    permissions.append(Permission(f"read {table.name}", True, "its first rows"))
        except HeapAssetsError as error:
            permissions.append(Permission("read", False, str(error), "check its address and its credentials"))
        return permissions

    def _schema(self, resolved: str) -> pl.Schema:
        return self.schemas()[resolved.partition(".")[2]]

    def _batches(self, resolved: str, schema: pl.Schema, since: datetime | None) -> Iterator[pa.RecordBatch]:
        for frame in self.rows(resolved.partition(".")[2], since):
            try:
                yield from frame.select(pl.col(n).cast(dtype) for n, dtype in schema.items()).to_arrow().to_batches()
            except pl.exceptions.PolarsError as error:
                raise WarehouseError(f"{resolved}: its rows are not of its columns: {redact_error(error)}") from None


def _column(name: str, dtype: Any) -> Column:
    """Describe a column by its type in the lake."""
    repeated = isinstance(dtype, pl.List | pl.Array)
    inner: Any = dtype.inner if repeated else dtype
    fields = tuple(_column(child.name, child.dtype) for child in inner.fields) if isinstance(inner, pl.Struct) else ()
    type_name = str(dtype)
    if isinstance(dtype, pl.Datetime):
        type_name = "TIMESTAMP WITH TIME ZONE" if dtype.time_zone else "TIMESTAMP"
    return Column(name, type_name, True, repeated, fields)
