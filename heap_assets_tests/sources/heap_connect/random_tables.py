"""Random tables through landing and building, in a process of its own: folder, first seed, number of seeds.

Prints one line of JSON: how many tables came out as they went in, and the seeds of those that did not.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import fastavro
import polars as pl
from dump_builders import BUCKET, START, Bucket

from heap_assets.sources.heap_connect import Landing, LandingConfig, build_event_day
from heap_assets.storage import Lake

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
LETTERS = "abcdefghij ÄöüßéЖ中文🙂\u200b\n\"'\\"
Column = Callable[[int], str | None]


def table(path: Path, seed: int) -> pl.DataFrame:
    """Write a dump of one table `t` into a bucket and return its rows, sorted as a built day is."""
    rnd = random.Random(seed)
    rows = round(10 ** rnd.uniform(0, 4.3)) if rnd.random() < 0.9 else 40_000
    if seed % 50 == 0:
        rows = 80_000
    columns = {f"c{i}": cardinality(rnd) for i in range(rnd.randint(1, 8))}
    frame = pl.DataFrame(
        {
            "event_id": rnd.sample(range(10 * rows), rows),
            "user_id": [rnd.randrange(1 << 40) for _ in range(rows)],
            "session_id": pl.Series([rnd.choice([None, i]) for i in range(rows)], dtype=pl.Int64),
            "time": [BEGIN + timedelta(microseconds=rnd.randrange(2 * 86_400_000_000)) for _ in range(rows)],
            **{name: pl.Series([value(i) for i in range(rows)], dtype=pl.String) for name, value in columns.items()},
        },
        schema_overrides={"time": pl.Datetime("us", "UTC")},
    )
    keys = write_files(path, rnd, frame)
    entry = {"name": "t", "files": [f"s3://{BUCKET}/{key}" for key in keys], "columns": [], "incremental": True}
    Bucket(path).manifest(1, "2026-03-03T02:00:00", {"dump_id": 1, "tables": [entry]})
    return frame.sort("time", "event_id", "user_id")


def cardinality(rnd: random.Random) -> Column:
    """Return how a column repeats its texts: never, always, until a row, or ever less."""
    length = rnd.choice([0, 3, 12, 13, 40, 300])
    blank = rnd.choice([0, 0, 0.1, 0.9])
    salt = "".join(rnd.choices(LETTERS, k=length))
    kinds: list[Callable[[int], Any]] = [
        lambda _: "",
        lambda i: rnd.randrange(5),
        lambda i: rnd.randrange(3_000),
        lambda i: rnd.randrange(1 + i // 3),
        lambda i: i,
        lambda i: i // 4,
        lambda i: i if i > 500 else i % 7,
    ]
    kind = rnd.choice(kinds)

    def value(i: int) -> str | None:
        if rnd.random() < blank:
            return rnd.choice([None, ""])
        return f"{salt}{kind(i)}{'x' * 5_000 if rnd.random() < 0.0005 else ''}"

    return value


def write_files(path: Path, rnd: random.Random, frame: pl.DataFrame) -> list[str]:
    """Write 1 to 5 files, in blocks of 200 bytes to 16 MB."""
    cuts = sorted(rnd.choices(range(frame.height + 1), k=rnd.randint(0, 4)))
    fields = [
        {"name": name, "type": ["null", "string" if name == "time" or dtype == pl.String else "long"]}
        for name, dtype in frame.schema.items()
    ]
    spelled = frame.with_columns(
        pl.col("time").dt.strftime(rnd.choice(["%Y-%m-%d %H:%M:%S%.6f", "%Y-%m-%dT%H:%M:%S%.6fZ"]))
    )
    schema = fastavro.parse_schema({"type": "record", "name": "topLevelRecord", "fields": fields})
    keys = []
    for number, (start, end) in enumerate(zip([0, *cuts], [*cuts, frame.height], strict=True)):
        keys.append(f"sync_1/t/part-{number:05d}-c000.avro")
        (path / keys[-1]).parent.mkdir(parents=True, exist_ok=True)
        rows = spelled.slice(start, end - start).iter_rows(named=True)
        codec, interval = rnd.choice(["snappy", "deflate", "null"]), round(10 ** rnd.uniform(2.3, 7.2))
        with (path / keys[-1]).open("wb") as file:
            fastavro.writer(file, schema, rows, codec=codec, sync_interval=interval)
    return keys


def comes_out_as_it_went_in(folder: Path, seed: int) -> bool:
    expected = table(folder / "bucket", seed)
    lake = Lake.open(str(folder / "lake"))
    landing = Landing(lake.store, LandingConfig(START))
    bucket = Bucket(folder / "bucket")
    for manifest in landing.pending(bucket.source):
        landing.land(bucket.source, manifest)
    for day in (date(2026, 3, 1), date(2026, 3, 2)):
        lake.write("heap/events/t", str(day), build_event_day(landing, "t", day, expected.columns).frame)
    built = pl.concat([lake.scan("heap/events/t", str(day)).collect() for day in (date(2026, 3, 1), date(2026, 3, 2))])
    return built.equals(expected)


def main() -> None:
    folder, first, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    wrong = []
    for seed in range(first, first + count):
        (folder / "seed").write_text(str(seed))
        own = folder / str(seed)
        if not comes_out_as_it_went_in(own, seed):
            wrong.append(seed)
        shutil.rmtree(own)
    print(json.dumps({"equal": count - len(wrong), "wrong": wrong}))


if __name__ == "__main__":
    main()
