"""A warehouse whose tables and columns are called by small letters, as Heap calls its own in every other place.

Snowflake has the names of Heap's views in capitals. Names are compared without case there by everybody who does not
quote them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from heap_assets.sources.warehouse import (
    Column,
    Newer,
    Permission,
    ReadRequest,
    ReadResult,
    Table,
    Tally,
    Warehouse,
)


@dataclass(frozen=True)
class LowerCaseWarehouse(Warehouse):
    """Another warehouse by small letters; a read renames the columns of the file where they differ."""

    inner: Warehouse

    @property
    def kind(self) -> str:  # type: ignore[override]
        return self.inner.kind

    def tables(self) -> list[Table]:
        return [replace(table, name=table.name.lower()) for table in self.inner.tables()]

    def locate(self, name: str) -> tuple[str, str | None]:
        dataset, table = self.inner.locate(name)
        return dataset.lower(), None if table is None else table.lower()

    def resolve(self, relation: str) -> str:
        return self.inner.resolve(relation).lower()

    def columns(self, relation: str) -> list[Column]:
        return [replace(column, name=column.name.lower()) for column in self.inner.columns(relation)]

    def version(self, relation: str) -> str | None:
        return self.inner.version(relation)

    def tally(self, relation: str, column: str) -> Tally | None:
        return self.inner.tally(relation, self._own_names(relation)[column])

    def preflight(self) -> list[Permission]:
        return self.inner.preflight()

    def _read(self, request: ReadRequest, path: Path) -> ReadResult:
        own = self._own_names(request.relation)
        newer = request.newer and _spelled(request.newer, own)
        columns = None if request.columns is None else [own.get(name, name) for name in request.columns]
        text = [own.get(name, name) for name in request.text]
        staging = path.with_name(f"own-{path.name}")
        reading = self.inner.read(request.relation, columns, staging, newer=newer, limit=request.limit, text=text)
        names = {name: name.lower() for name in reading.columns}
        if any(name != lower for name, lower in names.items()):
            pl.scan_parquet(staging).rename(names).sink_parquet(path, compression="zstd", compression_level=1)
            staging.unlink()
        else:
            staging.replace(path)
        lost = {name.lower(): count for name, count in reading.lost.items()}
        return ReadResult(
            reading.relation.lower(), tuple(names.values()), reading.rows, lost, reading.version, reading.bytes_billed
        )

    def _own_names(self, relation: str) -> dict[str, str]:
        return {column.name.lower(): column.name for column in self.inner.columns(relation)}


def _spelled(newer: Newer, own: dict[str, str]) -> Newer:
    equals = newer.equals and (own.get(newer.equals[0], newer.equals[0]), newer.equals[1])
    return replace(newer, column=own.get(newer.column, newer.column), equals=equals)
