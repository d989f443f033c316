"""A dump of one wide table, pageviews, written as Heap Connect writes it: snappy Avro in several files."""

from __future__ import annotations

import json
import multiprocessing
import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import fastavro

DUMP = 1008461850
TABLE = "pageviews"
DAYS = 7
FIRST_DAY = datetime(2026, 10, 1)
ROWS_PER_FILE = 62_500

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


def schema() -> dict[str, Any]:
    fields = [{"name": name, "type": ["null", "long"], "default": None} for name in IDS]
    fields += [{"name": name, "type": ["null", "string"], "default": None} for name in ("time", *TEXT)]
    return {"type": "record", "name": "topLevelRecord", "fields": fields}


def write_dump(folder: Path, rows: int, seed: int) -> None:
    """Write the bucket's files below `folder`; nothing happens if they are there."""
    done = folder / "manifests" / f"sync_{DUMP}.json"
    if done.exists():
        return
    counts = [min(ROWS_PER_FILE, rows - start) for start in range(0, rows, ROWS_PER_FILE)]
    keys = [f"sync_{DUMP}/{TABLE}/part-{i:05d}-c000.avro" for i in range(len(counts))]
    jobs = [(folder / key, i, count, seed) for i, (key, count) in enumerate(zip(keys, counts, strict=True))]
    with multiprocessing.Pool(2) as pool:
        pool.starmap(_write_file, jobs)
    uris = [f"s3://heap-rs3-bench/{key}" for key in keys]
    table = {"name": TABLE, "files": uris, "columns": list(COLUMNS), "incremental": True}
    done.parent.mkdir(parents=True, exist_ok=True)
    done.write_text(json.dumps({"dump_id": DUMP, "tables": [table]}))


def _write_file(path: Path, number: int, rows: int, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        records = _records(random.Random(f"{seed}/{number}"), number, rows)
        fastavro.writer(file, schema(), records, codec="snappy", sync_interval=64_000)


def _records(rnd: random.Random, number: int, rows: int) -> Iterator[dict[str, Any]]:
    values = {name: _values(name) for name in TEXT}
    for i in range(rows):
        moment = FIRST_DAY + timedelta(microseconds=rnd.randrange(DAYS * 86_400_000_000))
        user = rnd.randrange(200_000)
        yield {
            "event_id": (number * ROWS_PER_FILE + i) * 8_388_593 % 9_007_199_254_740_881,
            "user_id": user * 44_497 + 2**40,
            "session_id": (user * 31 + moment.day) * 8_388_593 + 7,
            "time": moment.strftime("%Y-%m-%d %H:%M:%S.%f"),
            **{name: rnd.choice(values[name]) for name in TEXT},
        }


def _values(name: str) -> list[str | None]:
    filled: list[str | None] = [f"{name} value {i:05d}" for i in range(_MANY.get(name, 40))]
    return [None] * (8 * len(filled) if name in _SPARSE else len(filled) // 20) + filled
