"""What a resolution on Spark has written, read without Spark."""

from __future__ import annotations

import shutil
from typing import Any, Final

import polars as pl

from heap_assets.identity import schemas
from heap_assets.identity.engine.base import Resolution
from heap_assets.identity.engine.spark.tuning import SparkTuning
from heap_assets.storage import Store

GRAPH: Final = "graph"
TABLES: Final = {GRAPH: schemas.GRAPH, "conflicts": schemas.CONFLICTS, "shared": schemas.SHARED}
BETWEEN: Final = "between"
RESULT: Final = "result"
"""Folders of a run: what its steps hand to one another, and its tables."""
FOLDER: Final = "heap-assets-spark-"
"""How the names of runs' folders begin."""


def fits_one_machine(links: pl.LazyFrame, tuning: SparkTuning) -> bool:
    """Whether there are few enough links for the native engine."""
    above = tuning.above_links
    return above > 0 and int(links.select(pl.len()).collect().item()) <= above


def result_files(store: Store, name: str) -> list[str]:
    """Return the keys of the Parquet files below a name, in order."""
    return [info.key for info in store.list(name) if info.key.endswith(".parquet")]


def scan_result(store: Store, name: str, schema: pl.Schema) -> pl.LazyFrame:
    """Scan the Parquet files below a name, in order; an empty frame if there are none."""
    if not (keys := result_files(store, name)):
        return pl.LazyFrame(schema=schema)
    columns = [pl.col(column).cast(dtype) for column, dtype in schema.items()]
    uris = [store.uri(key) for key in keys]
    frame = pl.scan_parquet(uris, storage_options=store.storage_options, hive_partitioning=False, glob=False)
    return frame.select(columns)


def resolution_of(store: Store, profiles: int, identifiers: int, graph: Store | None = None) -> Resolution:
    """Return the tables below a store, read lazily; `graph`: the store of the graph's files, if that is another."""
    rows = scan_result(graph or store.child(GRAPH), "", schemas.GRAPH)
    conflicts, shared = (scan_result(store, table, TABLES[table]) for table in TABLES if table != GRAPH)
    return Resolution(rows, conflicts, shared, profiles=profiles, identifiers=identifiers)


def notes_of(rounds: int) -> dict[str, Any]:
    """Return how a day was computed, as partitions note it."""
    return {"mode": "full", "why": "the spark engine keeps no state", "rounds": rounds}


def remove_all(store: Store) -> None:
    """Remove everything below a store's URL."""
    if store.is_local:
        shutil.rmtree(store.root, ignore_errors=True)
        return
    for info in store.list():
        store.delete(info.key)
