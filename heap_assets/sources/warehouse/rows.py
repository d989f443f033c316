"""A source read by API calls of a connector: no SQL and no version, but it can return rows changed since a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
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

DELETED = "(deleted)"
"""Boolean column of rows that say that there is no such record any more; only of tables whose `ids` are known."""
_LONG_READ = timedelta(minutes=30)
"""After so long a read, half of what the next one overlaps with it, what changed meanwhile is read as well."""
_CLOCKS_DIFFER = timedelta(minutes=5)
_AT, _DELETED_AT = "(at)", "(deleted at)"


@dataclass(frozen=True)
class RowsWarehouse(Warehouse):
    """The tables of a system, called `<kind>.<table>`.

    Parameters
    ----------
    schemas
        Returns the columns of each table.
    rows
        Returns a table's rows in frames of these columns: all, or those that changed at or after a time (UTC).
    ids
        Column that names a record, of tables in whose rows a record may come again (the last row counts), or as deleted
        (:data:`DELETED`).
    """

    kind: str
    schemas: Callable[[], Mapping[str, pl.Schema]] = field(repr=False)
    rows: Callable[[str, datetime | None], Iterable[pl.DataFrame]] = field(repr=False)
    ids: Mapping[str, str] = field(default_factory=dict)
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
        id_column = self.ids.get(resolved.partition(".")[2])
        if id_column is not None:
            schema = pl.Schema({**schema, id_column: self._schema(resolved)[id_column]})
        deleted: list[pl.DataFrame] = []
        batches = self._batches(resolved, schema, request.newer.since if request.newer else None, deleted)
        limited = batches if request.limit is None else first_rows(batches, request.limit)
        stored = write_parquet(schema.to_frame().to_arrow().schema, limited, path)
        if id_column is None:
            return ReadResult(resolved, names, stored.rows, stored.lost)
        rows, removed = _settled(path, names, id_column, deleted)
        return ReadResult(resolved, names, rows, stored.lost, deleted=removed)

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

    def _batches(
        self, resolved: str, schema: pl.Schema, since: datetime | None, deleted: list[pl.DataFrame]
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows that are there; `deleted` gets the ids of the others, and how many rows came before each."""
        table = resolved.partition(".")[2]
        rows = 0
        for frame in self._frames(table, since):
            try:
                if DELETED in frame.columns:
                    is_deleted = frame[DELETED].fill_null(value=False)
                    at = (rows + (~is_deleted).cum_sum()).alias(_DELETED_AT)
                    id_column = self.ids[table]
                    ids = frame.select(pl.col(id_column).cast(schema[id_column]), at).filter(is_deleted)
                    deleted.append(ids.cast({_DELETED_AT: pl.Int64}))
                    frame = frame.filter(~is_deleted)
                yield from frame.select(pl.col(n).cast(dtype) for n, dtype in schema.items()).to_arrow().to_batches()
                rows += len(frame)
            except pl.exceptions.PolarsError as error:
                raise WarehouseError(f"{resolved}: its rows are not of its columns: {redact_error(error)}") from None

    def _frames(self, table: str, since: datetime | None) -> Iterator[pl.DataFrame]:
        begun, began_at = time.monotonic(), datetime.now(UTC)
        yield from self.rows(table, since)
        if table in self.ids and time.monotonic() - begun > _LONG_READ.total_seconds():
            yield from self.rows(table, began_at - _CLOCKS_DIFFER)


def _settled(
    path: Path, names: Iterable[str], id_column: str, deleted: list[pl.DataFrame]
) -> tuple[int, pl.Series | None]:
    """Leave in a file the last row of each record, without those that were deleted after it.

    Returns its rows, and the ids of the records that are deleted. Only ids are held in memory.
    """
    stored = pl.scan_parquet(path)
    ids = stored.select(id_column).collect()[id_column]
    deletions = pl.concat(deleted).group_by(id_column).agg(pl.col(_DELETED_AT).max()) if deleted else None
    if deletions is not None and not len(deletions):
        deletions = None
    columns = [*names]
    if deletions is None and not ids.is_duplicated().any():
        if id_column not in columns:
            _replaced(path, stored.select(columns))
        return len(ids), None
    last = ids.to_frame().with_columns(pl.int_range(pl.len(), dtype=pl.Int64).alias(_AT)).group_by(id_column)
    last_rows = last.agg(pl.col(_AT).max())
    removed = None
    if deletions is not None:
        last_rows = last_rows.join(deletions, on=id_column, how="left", nulls_equal=True)
        last_rows = last_rows.filter((pl.col(_AT) >= pl.col(_DELETED_AT)).fill_null(value=True))
        removed = deletions.join(last_rows, on=id_column, how="anti", nulls_equal=True)[id_column]
    if len(last_rows) < len(ids) or id_column not in columns:
        numbered = stored.with_row_index(_AT).with_columns(pl.col(_AT).cast(pl.Int64))
        _replaced(path, numbered.join(last_rows.lazy().select(_AT), on=_AT, how="semi").select(columns))
    return len(last_rows), removed


def _replaced(path: Path, rows: pl.LazyFrame) -> None:
    staging = path.with_name(f".settled-{path.name}")
    rows.sink_parquet(staging, compression="zstd", compression_level=1)
    staging.replace(path)


def _column(name: str, dtype: Any) -> Column:
    """Describe a column by its type in the lake."""
    repeated = isinstance(dtype, pl.List | pl.Array)
    inner: Any = dtype.inner if repeated else dtype
    fields = tuple(_column(child.name, child.dtype) for child in inner.fields) if isinstance(inner, pl.Struct) else ()
    type_name = str(dtype)
    if isinstance(dtype, pl.Datetime):
        type_name = "TIMESTAMP WITH TIME ZONE" if dtype.time_zone else "TIMESTAMP"
    return Column(name, type_name, True, repeated, fields)
