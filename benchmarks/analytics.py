"""Ten audiences, a signal's day, a funnel of four steps and paths over EVENTS events, against DuckDB running our SQL.

Each part runs in a process of its own, on Parquet files of the same events; printed are seconds, peak memory, and the
ratio to DuckDB with the statement that is shipped (1 where that statement is what runs). The results must be equal.
The funnel is also computed by retentioneering, in an environment of its own with its telemetry off, over PEER_EVENTS
events, which it must hold in memory.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from heap_assets.analytics import AudienceTables, Relation, audience_sql, parse_query
from heap_assets.profiles import Facts, members, parse_audience
from heap_assets.signals import SignalDay, candidates, parse_signal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from heap_assets_tests.environments import UnavailableError, environment

END = datetime(2026, 11, 21, tzinfo=UTC)
TYPES = ("signup", "view", "search", "cart", "buy", "share", "invite", "export")
DAYS = 30
STEPS = ("signup", "view", "cart", "buy")
_RETENTIONEERING = """
import glob, json, re, sys, time
import pandas as pd
from retentioneering.eventstream.eventstream import Eventstream
started = time.perf_counter()
files = [file for file in glob.glob(sys.argv[1] + "/*.parquet") if "people" not in file]
columns = ["profile_id", "event_type", "time", "event_id"]
frame = pd.concat([pd.read_parquet(file, columns=columns) for file in files]).sort_values(["time", "event_id"])
schema = {"path_cols": ["profile_id"], "event_col": "event_type", "timestamp_col": "time"}
stream = Eventstream(frame.drop(columns="event_id").reset_index(drop=True), schema)
steps = stream.funnel_data(json.loads(sys.argv[2]), path_col="profile_id")["steps"]
seconds = time.perf_counter() - started
peak = re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())
print(json.dumps({"seconds": seconds, "gib": int(peak[1]) / 2**20, "reached": [s["unique_paths"] for s in steps]}))
"""


def make(folder: Path, events: int) -> None:
    """Write one file an event type: skewed people (one in twenty events), thirty days; and the people."""
    people = max(events // 20, 10)
    n = pl.int_range(events, eager=True)
    mixed = n.hash(7)
    person = (mixed % people * (mixed // people % 3 + 1) // 3).cast(pl.Int64)
    frame = pl.DataFrame(
        {
            "profile_id": pl.select(pl.format("p{}", person)).to_series(),
            "user_id": person,
            "session_id": (person * 40 + (n.hash(9) % 40).cast(pl.Int64)),
            "event_id": n,
            "time": pl.Series([END - timedelta(days=DAYS)], dtype=pl.Datetime("us", "UTC")).new_from_index(0, events)
            + pl.select(pl.duration(seconds=(n.hash(11) % (DAYS * 86_400)).cast(pl.Int64))).to_series(),
            "event_type": pl.Series(TYPES).gather((n.hash(13) % len(TYPES)).cast(pl.UInt32)),
            "value": (n.hash(15) % 200).cast(pl.String),
        }
    )
    for event in TYPES:
        frame.filter(event_type=event).write_parquet(folder / f"{event}.parquet")
    ids = pl.int_range(people, eager=True)
    pl.DataFrame(
        {
            "profile_id": pl.select(pl.format("p{}", ids)).to_series(),
            "plan": pl.Series(["free", "pro", "team"]).gather((ids.hash(3) % 3).cast(pl.UInt32)),
            "seats": (ids.hash(5) % 50).cast(pl.Int64),
        }
    ).write_parquet(folder / "people.parquet")


DEFINITIONS: list[dict[str, Any]] = [
    {"events": [{"type": "cart", "properties": {"value": {"gt": 100}}, "within_days": 7}],
     "exclude_events": [{"type": "buy", "within_days": 7}]},
    {"user_properties": {"plan": "free"}, "events": [{"type": "view", "count": {"gte": 5}, "within_days": 30}]},
    {"sequences": [{"steps": [{"type": "view", "count": 2}, {"type": "cart"}], "span_hours": 48}]},
    {"any": [{"events": [{"type": "invite", "within_days": 3}]}, {"events": [{"type": "export", "within_days": 3}]}]},
    {"none": [{"events": [{"type": "signup"}]}], "user_properties": {"seats": {"between": [5, 20]}}},
    {"events": [{"type": "share", "count": {"lt": 2}, "within_days": 14}]},
    {"events": [{"type": "search", "within_hours": 36}, {"type": "buy", "within_days": 10}]},
    {"user_properties": {"plan": {"not_in": ["team"]}}, "exclude_events": [{"type": "view", "within_days": 20}]},
    {"sequences": [{"steps": [{"type": "signup"}, {"type": "buy"}], "span_days": 7, "within_days": 14}]},
    {"events": [{"type": "buy", "properties": {"value": {"gte": 150}}, "count": {"gte": 2}}]},
]  # fmt: skip


def _scans(folder: Path) -> dict[str, pl.LazyFrame]:
    return {event: pl.scan_parquet(folder / f"{event}.parquet") for event in TYPES}


def audiences(folder: Path) -> list[int]:
    """Return the sizes of the ten audiences."""
    people, events = pl.scan_parquet(folder / "people.parquet"), _scans(folder)
    parsed = [parse_audience(f"a{i}", definition) for i, definition in enumerate(DEFINITIONS)]
    return [members(one, people, events, END).select(pl.len()).collect().item() for one in parsed]


def audiences_in_sql(folder: Path) -> list[int]:
    """Return the same by DuckDB."""
    tables = AudienceTables(
        Relation(
            f"read_parquet('{folder}/people.parquet')", pl.scan_parquet(folder / "people.parquet").collect_schema()
        ),
        {
            event: Relation(f"read_parquet('{folder}/{event}.parquet')", scan.collect_schema())
            for event, scan in _scans(folder).items()
        },
        END,
    )
    sizes = []
    with _connection() as sql:
        for i, definition in enumerate(DEFINITIONS):
            statement = audience_sql(parse_audience(f"a{i}", definition), tables)
            rows = sql.execute(f"SELECT count(*) FROM ({statement.sql})", dict(statement.parameters)).fetchone()
            sizes.append(int(rows[0]) if rows else 0)
    return sizes


def signal(folder: Path) -> list[int]:
    """Return how many candidates a sequence has on the last day."""
    rule = parse_signal("s", {"sequence": {"steps": [{"type": "view", "count": 2}, {"type": "buy"}], "span_hours": 24}})
    since = pl.col("time") >= END - timedelta(days=2)
    events = {event: scan.filter(since) for event, scan in _scans(folder).items()}
    day = SignalDay(pl.scan_parquet(folder / "people.parquet"), Facts(events, END), None)
    return [candidates(rule, day).height]


def query(folder: Path, **definition: Any) -> list[int]:
    """Return the rows of a query, and what they sum up to."""
    statement = parse_query(definition, "q").statement(END)
    with _connection() as sql:
        sql.execute(f"CREATE VIEW events AS SELECT * FROM read_parquet('{folder}/[!p]*.parquet')")
        frame = sql.sql(statement.text(), params=dict(statement.parameters)).pl()
    column = "reached" if "reached" in frame.columns else "frequency"
    return [frame.height, int(frame[column].sum())]


def funnel(folder: Path) -> list[int]:
    return query(folder, kind="funnel", steps=list(STEPS), span_hours=168, days=DAYS)


def paths(folder: Path) -> list[int]:
    return query(folder, kind="paths", goal="buy", per="person", days=DAYS)


def plain_funnel(folder: Path) -> list[int]:
    """Return how many people reached each step, however long it took them."""
    statement = parse_query({"kind": "funnel", "steps": list(STEPS), "days": DAYS}, "q").statement(END)
    with _connection() as sql:
        sql.execute(f"CREATE VIEW events AS SELECT * FROM read_parquet('{folder}/[!p]*.parquet')")
        return [int(n) for n in sql.sql(statement.text(), params=dict(statement.parameters)).pl()["reached"]]


def by_retentioneering(folder: Path) -> tuple[float, float, list[int]]:
    """Return seconds, peak GiB and the same counts by retentioneering; raises UnavailableError."""
    python = environment("retentioneering", "retentioneering==5.2.4") / "bin" / "python"
    variables = {"RETENTIONEERING_NO_TRACK": "1", "DO_NOT_TRACK": "1", "HOME": str(folder), "PATH": "/usr/bin:/bin"}
    command = [str(python), "-c", _RETENTIONEERING, str(folder), json.dumps(STEPS)]
    run = subprocess.run(command, env=variables, check=True, capture_output=True, text=True)
    answer = json.loads(run.stdout.splitlines()[-1])
    return answer["seconds"], answer["gib"], answer["reached"]


def _connection() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false; SET memory_limit = '3GB'")
    return connection


def _child(part: Callable[[Path], list[int]], folder: Path, answers: Any) -> None:
    started = time.perf_counter()
    result = part(folder)
    seconds = time.perf_counter() - started
    peak = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())  # ru_maxrss counts the parent's, too
    answers.put((seconds, int(peak[1]) / 2**20 if peak else 0.0, result))


def measured(part: Callable[[Path], list[int]], folder: Path) -> tuple[float, float, list[int]]:
    """Return seconds, peak GiB and the result of a part in a process of its own."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=_child, args=(part, folder, answers))
    process.start()
    answer: tuple[float, float, list[int]] = answers.get()
    process.join()
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--peer-events", type=int, help="Events of the funnel by retentioneering [default: as many]")
    arguments = parser.parse_args()
    events, peer_events = arguments.events, arguments.peer_events or arguments.events
    with tempfile.TemporaryDirectory(prefix="heap-assets-") as scratch:
        folder = Path(scratch)
        make(folder, events)
        total = 0.0
        for name, part, peer in (
            ("10 audiences", audiences, audiences_in_sql),
            ("signal of a day", signal, None),
            ("funnel of 4 steps", funnel, None),
            ("paths", paths, None),
        ):
            seconds, memory, result = measured(part, folder)
            total += seconds
            line = f"{name:20} {seconds:7.2f} s  {memory:5.2f} GiB  {result}"
            if peer is not None:
                peer_seconds, peer_memory, peer_result = measured(peer, folder)
                assert result == peer_result, f"{result} against {peer_result}"
                line += f"   {seconds / peer_seconds:.2f} times DuckDB ({peer_seconds:.2f} s, {peer_memory:.2f} GiB)"
            print(line, flush=True)
        print(f"{events:,} events: {total:.1f} s in all", flush=True)
    with tempfile.TemporaryDirectory(prefix="heap-assets-") as scratch:
        make(Path(scratch), peer_events)
        seconds, memory, reached = measured(plain_funnel, Path(scratch))
        try:
            peer_seconds, peer_memory, peer_reached = by_retentioneering(Path(scratch))
        except UnavailableError as missing:
            print(f"retentioneering: {missing}")
            return
        assert reached == peer_reached, f"{reached} against {peer_reached}"
        print(
            f"funnel of {peer_events:,} events: {seconds:.2f} s, {memory:.2f} GiB; by retentioneering "
            f"{peer_seconds:.2f} s, {peer_memory:.2f} GiB, equal counts"
        )


if __name__ == "__main__":
    main()
