"""Work that takes memory, one stage in a process of its own: WORK FOLDER SIZE [POSTGRES], with a report as JSON.

HEAP_ASSETS_ROOM_MB limits the address space to so much more than the libraries have taken when the work begins.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal

import polars as pl

from heap_assets.identity import IdentifierRule, Rules, resolve
from heap_assets.sources.heap_connect import FolderSource, Landing, LandingConfig, build_event_day
from heap_assets.sources.heap_connect.avro_container import encoded_long, read_header
from heap_assets.storage import Lake

TABLE, OTHER_TABLE, DUMP = "pageviews", "signups", 7
DAY = date(2026, 10, 1)
ROOM = "HEAP_ASSETS_ROOM_MB"
_MICROSECONDS = 86_400_000_000
_RULES = Rules((IdentifierRule("email"), IdentifierRule("device")))
_TEXTS = ("browser", "city", "country", "domain", "landing_page", "path", "platform", "query", "referrer", "title")
_BLOCK_ROWS = 1_000
ROW_BYTES = 237  # of the table, uncompressed


def make_block(folder: Path, megabytes: int) -> None:
    """Write a dump of a table in one file of one block that is so large, uncompressed, and of a small table."""
    rows = (megabytes << 20) // ROW_BYTES
    _write_avro(folder, OTHER_TABLE, [_events(0, 100)], 100)
    _write_avro(folder, TABLE, [_events(0, rows)], rows)
    _write_manifest(folder)


def make_unread(folder: Path, megabytes: int) -> None:
    """Write a small table, and one with a block of so many megabytes that nobody who lacks them can read."""
    make_block(folder, 1)
    file = next((folder / f"sync_{DUMP}" / TABLE).iterdir())
    with file.open("r+b") as rows:
        rows.truncate(read_header(file).blocks_at)
        rows.seek(0, 2)
        rows.write(encoded_long(1) + encoded_long(megabytes << 20))
        rows.truncate(rows.tell() + (megabytes << 20) + 16)


def make_files(folder: Path, rows: int) -> None:
    """Write a dump of a table in eight files of small blocks."""
    each = rows // 8
    _write_avro(folder, TABLE, [_events(number * each, each) for number in range(8)], _BLOCK_ROWS, "snappy")
    _write_manifest(folder)


def make_links(folder: Path, links: int) -> None:
    """Write links of two devices to each of half as many people; compile what resolves them, which takes room too."""
    number = pl.int_range(links, eager=True).alias("n").to_frame().lazy()
    number.select(
        type_a=pl.lit("email"),
        value_a=pl.format("person{}@acme.io", pl.col("n") // 2),
        type_b=pl.lit("device"),
        value_b=pl.format("device-{}", "n"),
    ).sink_parquet(folder / "links.parquet")
    resolve(pl.scan_parquet(folder / "links.parquet").head(2), _RULES).graph.collect()


def make_day(folder: Path, rows: int) -> None:
    """Write a day of events as it lies in the lake."""
    lake = Lake.open(str(folder / "lake"))
    lake.write(TABLE, DAY.isoformat(), _events(0, rows).with_columns(time=pl.lit(datetime(2026, 10, 1, tzinfo=UTC))))


def land(folder: Path) -> dict[str, Any]:
    """Land all that is pending and build its days: what landed, what failed, rows of the finished days."""
    lake = Lake.open(str(folder / "lake"))
    landing, source = Landing(lake.store, LandingConfig(start_date=date(2026, 1, 1))), FolderSource(folder)
    failed: dict[str, str] = {}
    for manifest in landing.pending(source):
        report = landing.land(source, manifest)
        failed |= {table.table: table.failure.reason for table in report.tables if table.failure}
        for table, days in report.touched.items():
            for day in days:
                built = build_event_day(landing, table, day)
                lake.write(table, day.isoformat(), built.frame, built.inputs)
    rows = {t: lake.scan(t, lake.partitions(t)).select(pl.len()).collect().item() for t in landing.tables()}
    return {"rows": rows, "failed": failed}


def resolve_links(folder: Path) -> dict[str, Any]:
    """Resolve the links and write the graph."""
    resolve(pl.scan_parquet(folder / "links.parquet"), _RULES).write_graph(folder / "graph.parquet")
    return {"rows": pl.scan_parquet(folder / "graph.parquet").select(pl.len()).collect().item()}


def publish(folder: Path) -> dict[str, Any]:
    """Publish the day to PostgreSQL."""
    from heap_assets.sources.warehouse.postgres.publisher import PostgresPublisher
    from heap_assets.sources.warehouse.publish import Publication

    lake = Lake.open(str(folder / "lake"))
    publisher = PostgresPublisher(os.environ["HEAP_ASSETS_TEST_POSTGRES"], "memory", lake.store)
    published = publisher.publish(Publication(TABLE), DAY, lake.scan(TABLE, DAY.isoformat()), "v1")
    return {"rows": published.rows}


MAKE: Mapping[str, Callable[[Path, int], None]] = {
    "one block": make_block,
    "a block out of reach": make_unread,
    "eight files": make_files,
    "links": make_links,
    "a day for PostgreSQL": make_day,
}
WORK: Mapping[str, Callable[[Path], dict[str, Any]]] = {
    "one block": land,
    "a block out of reach": land,
    "eight files": land,
    "links": resolve_links,
    "a day for PostgreSQL": publish,
}


def _events(first: int, rows: int) -> pl.DataFrame:
    number = pl.int_range(first, first + rows, eager=True, dtype=pl.Int64).alias("n")
    every = pl.col("n")
    texts = [
        pl.format(f"{name} value {{}}", (every * (place + 7)) % (50 * 4**place)) for place, name in enumerate(_TEXTS)
    ]
    moments = datetime(2026, 10, 1, tzinfo=UTC).timestamp() * 1_000_000
    return number.to_frame().select(
        event_id=every,
        user_id=every % 10_007,
        session_id=every // 5,
        time=(every * 999_983_001 % (7 * _MICROSECONDS) + int(moments)).cast(pl.Datetime("us")).dt.to_string("iso"),
        **dict(zip(_TEXTS, texts, strict=True)),
    )


def _write_avro(
    folder: Path,
    table: str,
    frames: list[pl.DataFrame],
    block_rows: int,
    compression: Literal["uncompressed", "snappy"] = "uncompressed",
) -> None:
    target = folder / f"sync_{DUMP}" / table
    target.mkdir(parents=True)
    for number, frame in enumerate(frames):
        blocks = [frame.slice(start, block_rows) for start in range(0, frame.height, block_rows)]
        pl.concat(blocks, rechunk=False).write_avro(target / f"part-{number}.avro", compression, name="topLevelRecord")


def _write_manifest(folder: Path) -> None:
    tables = [
        {
            "name": table.name,
            "files": [f"s3://bucket/{path.relative_to(folder).as_posix()}" for path in sorted(table.iterdir())],
            "columns": ["event_id", "user_id", "session_id", "time", *_TEXTS],
            "incremental": True,
        }
        for table in sorted((folder / f"sync_{DUMP}").iterdir())
    ]
    (folder / "manifests").mkdir()
    (folder / "manifests" / f"sync_{DUMP}.json").write_text(json.dumps({"dump_id": DUMP, "tables": tables}))


def status(name: str) -> int:
    """Return a line of /proc/self/status in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:"))


def main() -> None:
    work, folder, size = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if size:
        MAKE[work](folder, size)
        return
    if ROOM in os.environ:
        limit = status("VmSize") + (int(os.environ[ROOM]) << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    said = WORK[work](folder)
    print(json.dumps({**said, "peak_mb": status("VmHWM") >> 20}))


if __name__ == "__main__":
    main()
