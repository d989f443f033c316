"""Erasure against Polars: 10 people in few days, and many people over all days, each in a process of its own.

Both sides work on the same lake: days of an event table with `rows` rows in all. The peer reads every file (or, of
many people, those that hold one) and writes it without the people, as one line of Polars. Few people are erased twice:
with the indexes that the hourly job makes, and in a lake that has none. Ratios are of wall time and of processor time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import median

import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from heap_assets import clock
from heap_assets.pipelines import erasure
from heap_assets.pipelines.erasure_index import index_values
from heap_assets.privacy import Named
from heap_assets.privacy.value_index import ROOT as INDEXES
from heap_assets.project import Project, open_project, parse_settings
from heap_assets.storage import Inputs

_SETTINGS = """
start_date: 2025-01-01
lake: ./lake
catalogue: ./heap_catalogue.yaml
heap: {app_id: "11", source: {kind: folder, path: ./bucket}, identifiers: {events: {user_id: heap_user_id}}}
identity:
  identifiers: [{type: heap_identity}, {type: email, normalise: email}, {type: heap_user_id}]
run: {automation: stopped}
"""
_CATALOGUE = "signup:\n  display_name: Signed up\n  columns:\n    path: {description: Path, pii: false}\n"
_START = date(2025, 1, 1)
_TABLE = "heap/events/signup"


def _project(folder: Path) -> Project:
    (folder / "heap_assets.yaml").write_text(_SETTINGS)
    (folder / "heap_catalogue.yaml").write_text(_CATALOGUE)
    return open_project(parse_settings(_SETTINGS, folder / "heap_assets.yaml"))


def _email(person: int) -> str:
    return f"person{person}@acme.example"


def make(folder: Path, rows: int, days: int, people: int, person_days: int) -> None:
    """Write the lake: `people` have rows in `person_days` of the days, everybody else anywhere."""
    folder.mkdir(parents=True)
    project, chance = _project(folder), random.Random(7)
    of_people = {day: list(range(people)) for day in sorted(chance.sample(range(days), person_days))}
    per_day = rows // days
    for number in range(days):
        day = _START + timedelta(days=number)
        own = of_people.get(number, [])
        users = pl.Series("user_id", [1_000 + p for p in own], pl.Int64)
        frame = pl.select(event_id=pl.int_range(per_day) + number * per_day).with_columns(
            user_id=(pl.col("event_id").hash(number) % 2_000_000 + 1_000_000).cast(pl.Int64),
            session_id=pl.col("event_id") // 7,
            time=pl.lit(datetime(day.year, day.month, day.day, tzinfo=UTC), pl.Datetime("us", "UTC")),
            path="/shop/" + (pl.col("event_id").hash(3) % 5_000).cast(pl.String),
            browser=pl.lit("Firefox ") + (pl.col("event_id").hash(4) % 40).cast(pl.String),
            referrer="https://search.example/q?" + (pl.col("event_id").hash(5) % 100_000).cast(pl.String),
        )
        if len(users):
            tail = frame.tail(len(users)).with_columns(users, path=pl.Series([f"/invite/{_email(p)}" for p in own]))
            frame = pl.concat([frame.head(per_day - len(users)), tail])
        project.lake.write(_TABLE, str(day), frame.lazy(), Inputs({"dump": str(number)}))
    graph = pl.DataFrame(
        {
            "identifier_type": ["email", "heap_user_id"] * people,
            "identifier": [text for p in range(people) for text in (_email(p), str(1_000 + p))],
            "profile_id": [f"{p:032x}" for p in range(people) for _ in range(2)],
            "shared": [False] * (2 * people),
        }
    )
    project.lake.write("identity/graph", str(_START + timedelta(days=days - 1)), graph, Inputs({"g": "1"}))


def ours(folder: Path, people: int) -> dict[str, float]:
    """Erase the people; seconds of the run alone, without taking the requests in."""
    project = _project(folder)
    ids = [f"er-{p:06d}" for p in range(people)]
    wishes = [erasure.Wish(Named((("email", _email(p)),)), request_id=ids[p]) for p in range(people)]
    erasure.take_in(project, wishes)
    erasure.confirm_all(project, ids, "benchmark")
    versions = project.lake.versions(_TABLE)
    begun, used = time.perf_counter(), time.process_time()
    result = erasure.run(project, "benchmark")
    seconds, processor = time.perf_counter() - begun, time.process_time() - used
    changed = sum(version != versions[day] for day, version in project.lake.versions(_TABLE).items())
    assert set(result.requests.values()) == {"complete"}, result
    return {"seconds": seconds, "processor": processor, "files": changed, "rows": result.rows}


def index(folder: Path) -> dict[str, float]:
    """Index all files, as the hourly job does; share of bytes besides."""
    lake = _project(folder).lake
    begun, used = time.perf_counter(), time.process_time()
    files = index_values(_project(folder))
    seconds, processor = time.perf_counter() - begun, time.process_time() - used
    sizes = [sum(info.size for info in lake.store.list(prefix)) for prefix in (INDEXES, "heap")]
    return {"seconds": seconds, "processor": processor, "files": files, "share": sizes[0] / sizes[1]}


def polars_rewrites(folder: Path, people: int, only_with: bool) -> dict[str, float]:
    """Rewrite files with Polars, all of them or those with one of the people."""
    project = _project(folder)
    users = pl.Series([1_000 + p for p in range(people)], dtype=pl.Int64)
    begun, used = time.perf_counter(), time.process_time()
    changed = 0
    for day in project.lake.partitions(_TABLE):
        path = project.lake.store.root / project.lake.key(_TABLE, day)
        rows = pl.scan_parquet(path)
        theirs = pl.col("user_id").is_in(users.implode())
        if only_with and not rows.select(theirs.any()).collect(engine="streaming").item():
            continue
        new = path.with_suffix(".new")
        rows.filter(~theirs).sink_parquet(new, compression_level=1, engine="streaming")
        new.replace(path)
        changed += 1
    seconds, processor = time.perf_counter() - begun, time.process_time() - used
    return {"seconds": seconds, "processor": processor, "files": changed}


def _measured(mode: str, folder: Path, people: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", mode, "--folder", str(folder), "--people", str(people)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    measured: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--people", type=int, default=1_000, help="of the second case")
    parser.add_argument("--folder", type=Path)
    parser.add_argument(
        "--rounds", type=int, default=3, help="runs of each side, one after the other; medians are told"
    )
    parser.add_argument("--child", choices=("ours", "index", "all", "with"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ.setdefault(clock.VARIABLE, f"{_START + timedelta(days=options.days)}T03:00:00+00:00")
    if options.child:
        measured = _child(options.child, options.folder, options.people)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({**measured, "peak_mb": peak}))
        return
    with tempfile.TemporaryDirectory(prefix="heap-assets-erase-") as scratch:
        for title, people, days, peer, least in (
            ("10 people in 20 days", 10, 20, "all", 5.0),
            (f"{options.people:,} people in all days", options.people, options.days, "with", 1.0),
        ):
            base, indexed = Path(scratch, "base"), Path(scratch, "indexed")
            make(base, options.rows, options.days, people, min(days, options.days))
            print(f"{title}, {options.rows:,} rows in {options.days} days (wanted: {least} times):")
            shutil.copytree(base, indexed, copy_function=os.link)
            made = _measured("index", indexed, people)
            print(
                f"  indexes: {made['files']:.0f} files, {made['processor'] / options.rows * 1e6:.2f} µs of processor a "
                f"row, {made['share']:.0%} of the files' bytes"
            )
            sides: dict[str, list[dict[str, float]]] = {"Polars": [], "indexed": [], "not indexed": []}
            for _ in range(options.rounds):
                for side, results in sides.items():
                    folder = Path(scratch, "copy")
                    shutil.copytree(indexed if side == "indexed" else base, folder, copy_function=os.link)
                    results.append(_measured(peer if side == "Polars" else "ours", folder, people))
                    shutil.rmtree(folder)
            for folder in (base, indexed):
                shutil.rmtree(folder)
            files = "all files" if peer == "all" else "the same files"
            for side in ("indexed", "not indexed"):
                own = {name: median(one[name] for one in sides[side]) for name in sides[side][0]}
                other = {name: median(one[name] for one in sides["Polars"]) for name in sides["Polars"][0]}
                wall, used = (other[name] / own[name] for name in ("seconds", "processor"))
                print(
                    f"  {side}: {own['files']:.0f} files rewritten in {own['seconds']:.1f} s (Polars "
                    f"{other['files']:.0f} in {other['seconds']:.1f} s), {wall:.1f} times as fast as Polars rewriting "
                    f"{files}, {used:.1f} times by processor time; peak {own['peak_mb']:.0f} MB (Polars "
                    f"{other['peak_mb']:.0f} MB)"
                )


def _child(mode: str, folder: Path, people: int) -> dict[str, float]:
    if mode == "ours":
        return ours(folder, people)
    return index(folder) if mode == "index" else polars_rewrites(folder, people, mode == "with")


if __name__ == "__main__":
    main()
