"""Resolution inside components, on executors, by the native engine.

Every rule decides inside one component of all links, shared values and refused links included; so a call of the engine
may take any number of components, as long as each is complete. Rows come sorted by component and are cut between two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import polars as pl
import pyarrow as pa

from heap_assets.identity.engine.native.engine import NativeEngine
from heap_assets.identity.engine.spark.results import TABLES
from heap_assets.identity.rules import Rules
from heap_assets.identity.schemas import CONFLICTS, GRAPH, LINKS, SHARED

_ROWS: Final = pl.Schema({"table": pl.String(), **GRAPH, **CONFLICTS, **SHARED})
_ARROW: Final = {
    pl.String: pa.string(),
    pl.Boolean: pa.bool_(),
    pl.Int64: pa.int64(),
    pl.List: pa.list_(pa.string()),
    pl.Datetime: pa.timestamp("us", "UTC"),
}
_SPARK: Final = {
    pl.String: "string",
    pl.Boolean: "boolean",
    pl.Int64: "bigint",
    pl.List: "array<string>",
    pl.Datetime: "timestamp",
}
_BATCH: Final = 100_000


def spark_schema(schema: pl.Schema) -> str:
    """Return a schema in Spark's words."""
    return ", ".join(f"`{name}` {_SPARK[dtype.base_type()]}" for name, dtype in schema.items())


ROWS_OF_TABLES: Final = spark_schema(_ROWS)
"""Rows of all tables under one another: `table` says of which, and columns of the others are null."""

_ARROW_ROWS: Final = pa.schema([(name, _ARROW[dtype.base_type()]) for name, dtype in _ROWS.items()])


def resolve_groups(rules: Rules, rows_at_once: int) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Return a function for `mapInArrow`.

    It takes `label` and the columns of links, sorted by label, and gives rows of :data:`ROWS_OF_TABLES`.
    """

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for links in complete_groups(batches, rows_at_once):
            yield from _rows(links, rules)

    return run


def complete_groups(batches: Iterator[pa.RecordBatch], rows_at_once: int) -> Iterator[pl.DataFrame]:
    """Gather batches that are sorted by `label` into frames of at least so many rows, none of which cuts a label."""
    gathered: list[pl.DataFrame] = []
    rows = 0
    for batch in batches:
        frame = pl.DataFrame(pa.Table.from_batches([batch]))
        if frame.is_empty():
            continue
        if rows + frame.height >= rows_at_once:
            labels = frame["label"]
            cut = int((labels != labels[-1]).sum())
            continues = bool(gathered) and gathered[-1]["label"][-1] == labels[-1]
            if complete := [*gathered, *([frame.head(cut)] if cut else [])] if cut or not continues else []:
                yield pl.concat(complete)
                gathered, rows, frame = [], 0, frame.slice(cut)
        gathered.append(frame)
        rows += frame.height
    if gathered:
        yield pl.concat(gathered)


def _rows(links: pl.DataFrame, rules: Rules) -> Iterator[pa.RecordBatch]:
    typed = links.lazy().select(pl.col(name).cast(dtype) for name, dtype in LINKS.items())
    resolution = NativeEngine().resolve(typed, rules)
    for table in TABLES:
        rows: pl.DataFrame = getattr(resolution, table).collect()
        if rows.is_empty():
            continue
        rows = rows.with_columns(pl.lit(table).alias("table"))
        columns = [
            pl.col(name) if name in rows.columns else pl.lit(None, dtype).alias(name) for name, dtype in _ROWS.items()
        ]
        arrow = rows.select(columns).to_arrow(compat_level=pl.CompatLevel.oldest())
        yield from arrow.cast(_ARROW_ROWS).to_batches(_BATCH)
