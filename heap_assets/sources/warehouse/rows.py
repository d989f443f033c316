"""A system that hands over rows by calls, as a connector reads it: no SQL and no version, but it knows what changed."""

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
    Brought,
    Column,
    Permission,
    Table,
    Wanted,
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
    tells_changes = True

    def tables(self) -> list[Table]:
        return [Table(f"{self.kind}.{name}") for name in self.schemas()]

    def resolve(self, relation: str) -> str:
        return find_relation(qualified(relation, self.kind), [table.name for table in self.tables()], self.kind)

    def columns(self, relation: str) -> list[Column]:
        return [_column(name, dtype) for name, dtype in self._schema(self.resolve(relation)).items()]

    def version(self, relation: str) -> str | None:
        return None

    def _read(self, wanted: Wanted, path: Path) -> Brought:
        resolved = self.resolve(wanted.relation)
        names = choose_columns(wanted.columns, self.columns(resolved), wanted.relation)
        schema = pl.Schema({name: dtype for name, dtype in self._schema(resolved).items() if name in names})
        batches = self._batches(resolved, schema, wanted.newer.since if wanted.newer else None)
        chosen = batches if wanted.limit is None else first_rows(batches, wanted.limit)
        kept = write_parquet(schema.to_frame().to_arrow().schema, chosen, path)
        return Brought(resolved, names, kept.rows, kept.lost)

    def preflight(self) -> list[Permission]:
        tried = []
        try:
            for table in self.tables():
                with self.snapshot(table.name, limit=1):
                    tried.append(Permission(f"read {table.name}", True, "its first rows"))
        except HeapAssetsError as error:
            tried.append(Permission("read", False, str(error), "check its address and its credentials"))
        return tried

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
    spelled = str(dtype)
    if isinstance(dtype, pl.Datetime):
        spelled = "TIMESTAMP WITH TIME ZONE" if dtype.time_zone else "TIMESTAMP"
    return Column(name, spelled, True, repeated, fields)
