"""A job in place of Spark's: `python spark_stubs.py`, told by Pipes as the real one is; `$STUB` says how it behaves."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

import polars as pl

from heap_assets.identity import Resolution, resolve
from heap_assets.identity.engine.spark.orders import JobOrders
from heap_assets.orchestration import spark_job

TABLES = ("graph", "conflicts", "shared")


def run(values: Mapping[str, Any]) -> dict[str, Any]:
    """Resolve by the native engine, and write each table as two files."""
    orders = JobOrders.of_values(values)
    resolution: Resolution = resolve(pl.scan_parquet(list(orders.links)), orders.rules)
    store = orders.store.child("result")
    rows = {}
    for table in TABLES:
        frame = getattr(resolution, table).collect()
        rows[table] = frame.height
        folder = store.child(table)
        if table == "graph" and orders.graph_store:
            folder = orders.graph_store
        folder.sink("part-0.parquet", frame.head(frame.height // 2))
        if os.environ["STUB"] == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        folder.sink("part-1.parquet", frame.slice(frame.height // 2))
    if os.environ["STUB"] == "wrong":
        raise ValueError("ann@x.example is no number")
    return {
        "profiles": resolution.profiles,
        "identifiers": resolution.identifiers,
        "rounds": 0,
        "rows": rows,
        "files": dict.fromkeys(TABLES, 3 if os.environ["STUB"] == "lost" else 2),
        "digest": orders.rules.digest,
    }


if __name__ == "__main__":
    if os.environ["STUB"] == "silent":
        sys.exit(0)
    spark_job.run_spark_job = run
    spark_job.main()
