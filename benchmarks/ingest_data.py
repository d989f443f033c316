"""A dump of one wide table, pageviews, written as Heap Connect writes it: snappy Avro in several files."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl

DUMP = 1008461850
TABLE = "pageviews"
DAYS = 7
FIRST_DAY = int(datetime(2026, 10, 1, tzinfo=UTC).timestamp()) * 1_000_000  # microseconds
ROWS_PER_FILE = 62_500
ROWS_PER_BLOCK = 100

IDS = ("event_id", "user_id", "session_id")
TEXT = (
    "type",
    "library",
    "platform",
    "device_type",
    "country",
    "region",
    "city",
    "ip",
    "referrer",
    "landing_page",
    "landing_page_query",
    "landing_page_hash",
    "browser",
    "search_keyword",
    "utm_source",
    "utm_campaign",
    "utm_medium",
    "utm_term",
    "utm_content",
    "device",
    "carrier",
    "app_name",
    "app_version",
    "domain",
    "query",
    "path",
    "hash",
    "title",
    "view_controller",
    "screen_a11y_id",
    "screen_a11y_label",
    "target_a11y_label",
    "heap_device_id",
    "heap_device",
    "heap_previous_page",
    "plan",
)
COLUMNS = (*IDS, "time", *TEXT)
# How full a column is and how many values it has: sparse campaign columns, dense page columns, many devices.
_SPARSE = {"search_keyword", "utm_term", "utm_content", "carrier", "app_name", "app_version", "view_controller",
           "screen_a11y_id", "screen_a11y_label", "target_a11y_label", "hash", "landing_page_hash"}  # fmt: skip
_MANY = {"ip": 60_000, "heap_device_id": 80_000, "path": 3_000, "title": 3_000, "referrer": 2_000, "query": 20_000}


def write_dump(folder: Path, rows: int, seed: int) -> None:
    """Write the bucket's files below `folder`; nothing happens if they are there."""
    done = folder / "manifests" / f"sync_{DUMP}.json"
    if done.exists():
        return
    counts = [min(ROWS_PER_FILE, rows - start) for start in range(0, rows, ROWS_PER_FILE)]
    keys = [f"sync_{DUMP}/{TABLE}/part-{i:05d}-c000.avro" for i in range(len(counts))]
    jobs = [(folder / key, i, count, seed) for i, (key, count) in enumerate(zip(keys, counts, strict=True))]
    for path, number, count, seeded in jobs:
        _write_file(path, number, count, seeded)
    uris = [f"s3://heap-rs3-bench/{key}" for key in keys]
    table = {"name": TABLE, "files": uris, "columns": list(COLUMNS), "incremental": True}
    done.parent.mkdir(parents=True, exist_ok=True)
    done.write_text(json.dumps({"dump_id": DUMP, "tables": [table]}))


def _write_file(path: Path, number: int, rows: int, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = _rows(np.random.default_rng([seed, number]), number, rows)
    # One Avro block for each chunk: about 64 KB, as Heap's own writer makes them.
    pieces = [frame.slice(start, ROWS_PER_BLOCK) for start in range(0, rows, ROWS_PER_BLOCK)]
    pl.concat(pieces, rechunk=False).write_avro(path, compression="snappy", name="topLevelRecord")


def _rows(rnd: np.random.Generator, number: int, rows: int) -> pl.DataFrame:
    numbers = number * ROWS_PER_FILE + np.arange(rows, dtype=np.int64)
    moments = FIRST_DAY + rnd.integers(0, DAYS * 86_400_000_000, rows)
    users = rnd.integers(0, 200_000, rows)
    times = pl.Series("time", moments).cast(pl.Datetime("us")).dt.strftime("%Y-%m-%d %H:%M:%S.%6f")
    columns = [
        pl.Series("event_id", numbers * 8_388_593 % 9_007_199_254_740_881),
        pl.Series("user_id", users * 44_497 + 2**40),
        pl.Series("session_id", (users * 31 + moments // 86_400_000_000) * 8_388_593 + 7),
        times,
    ]
    for name in TEXT:
        values = pl.Series(name, _values(name), dtype=pl.String)
        columns.append(values.gather(rnd.integers(0, len(values), rows)))
    return pl.DataFrame(columns)


def _values(name: str) -> list[str | None]:
    filled: list[str | None] = [f"{name} value {i:05d}" for i in range(_MANY.get(name, 40))]
    return [None] * (8 * len(filled) if name in _SPARSE else len(filled) // 20) + filled
