"""Killed at any moment and run again: the same rows as if nothing had happened, and nothing half-written in between."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest
from dump_builders import START, Bucket, event, migration, user

from heap_assets.sources.heap_connect import Landing, LandingConfig, build_event_day, build_users
from heap_assets.storage import Store

PROCESS = Path(__file__).with_name("landing_process.py")
DAYS = [date(2026, 3, 1) + timedelta(days=i) for i in range(3)]
TABLES = [f"event_{i:02d}" for i in range(5)]


def make_bucket(path: Path) -> Bucket:
    bucket = Bucket(path)
    for number, day in enumerate(DAYS):
        tables = {
            name: [
                [event(number * 10_000 + f * 100 + i, f"{day} 10:00:{i % 60:02d}", i, plan=f"p{i}") for i in range(60)]
                for f in range(2)
            ]
            for name in TABLES
        }
        bucket.dump(
            number + 1,
            f"{day + timedelta(days=1)}T02:00:00",
            full=["user_migrations", TABLES[number]],
            users=[user(i, f"{day} 10:00:00", email=f"{number}") for i in range(number, 20 + number)],
            user_migrations=[migration(i, 99) for i in range(5)],
            **tables,
        )
    return bucket


def state_of(lake: Path) -> dict[str, pl.DataFrame]:
    landing = Landing(Store(str(lake)), LandingConfig(start_date=START))
    built = {
        f"{table}@{day}": build_event_day(landing, table, day).frame.collect()
        for table in landing.tables()
        if table in TABLES
        for day in DAYS
    }
    if "users" in landing.tables():
        built["users"] = build_users(landing, DAYS[-1]).frame.collect()
    return built


@pytest.mark.slow
def test_killed_at_random_moments_nothing_is_lost_or_half_written(tmp_path: Path) -> None:
    bucket = make_bucket(tmp_path / "bucket")
    clean = Landing(Store(str(tmp_path / "clean")), LandingConfig(start_date=START))
    began = time.monotonic()
    for manifest in clean.pending(bucket.source):
        clean.land(bucket.source, manifest)
    span = time.monotonic() - began
    expected = state_of(tmp_path / "clean")

    rnd, kills, lake = random.Random(7), 0, tmp_path / "lake"
    while not (lake / "finished").exists():
        process = subprocess.Popen(
            [sys.executable, PROCESS, bucket.path, lake], stdout=subprocess.PIPE, env={**os.environ}
        )
        assert process.stdout is not None
        process.stdout.readline()
        if kills < 8:
            time.sleep(rnd.uniform(0.01, span / 3))
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait(timeout=60)
        process.stdout.close()
        for name, frame in state_of(lake).items():
            table = name.partition("@")[0]
            assert table == "users" or frame["event_id"].n_unique() == frame.height
    assert kills >= 3  # it can finish before the eighth
    found = state_of(lake)
    assert found.keys() == expected.keys()
    for name, frame in expected.items():
        assert found[name].equals(frame), name


def test_what_no_record_names_does_not_exist(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path / "bucket")
    bucket.dump(1, "2026-03-02T02:00:00", a=[event(1, "2026-03-01 10:00:00")])
    landing = Landing(Store(str(tmp_path / "lake")), LandingConfig(start_date=START))
    landing.land(bucket.source, 1)
    for path in (tmp_path / "lake").rglob("_dumps/*.json"):
        path.unlink()
    assert landing.tables() == []
    assert len(landing.pending(bucket.source)) == 1
