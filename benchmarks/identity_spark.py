"""Links through the engine on Spark and through the native one: equal rows first, then seconds, native as 1.

`make bench-spark LINKS=1000000`, in an environment that has `heap_assets[spark]` and Java.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import identity_data
import polars as pl
from polars.testing import assert_frame_equal

from heap_assets.identity import EngineChoice, Resolution, SparkTuning, resolve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--links", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--pairs-at-once", type=int, default=SparkTuning.pairs_at_once)
    options = parser.parse_args()
    tuning = SparkTuning(above_links=0, parts=8, cores=options.cores, pairs_at_once=options.pairs_at_once)
    with tempfile.TemporaryDirectory() as folder:
        identity_data.write_links(Path(folder) / "links", options.links, options.seed, 8)
        links = pl.scan_parquet(Path(folder) / "links" / "*.parquet")
        resolve(links.head(1000), identity_data.RULES, tuning)  # Java is started, loops are compiled
        native_seconds, native = _timed(links, "native")
        spark_seconds, spark = _timed(links, tuning)
        for table in ("graph", "conflicts", "shared"):
            one, other = getattr(spark, table).collect(), getattr(native, table).collect()
            assert_frame_equal(one, other)
            print(f"{table}: {one.height} equal rows in the same order")
    print(f"seconds on Spark, native as 1: {spark_seconds / native_seconds:.1f}")


def _timed(links: pl.LazyFrame, engine: EngineChoice) -> tuple[float, Resolution]:
    start = time.perf_counter()
    resolution = resolve(links, identity_data.RULES, engine)
    resolution.graph.collect()
    return time.perf_counter() - start, resolution


if __name__ == "__main__":
    main()
