"""Runs of Dagster whose day a real job of Spark resolves; `test_spark.py` runs this file as it does the properties."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from polars.testing import assert_frame_equal

from heap_assets import clock
from heap_assets.storage import LakeSql, state_keys
from heap_assets_tests.pipelines.delivery_world import DAY, IDENTITY, NOW, World, users, why

ENGINE = "  engine: {{spark: {{above_links: 0, parts: 2, cores: 2, memory: 1g, work: {work}}}}}\n"
DEADLINE = 600.0


@pytest.fixture(autouse=True)
def at_night(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(clock.VARIABLE, NOW)
    monkeypatch.setattr("dagster._core.pipes.utils.WAIT_FOR_LOGS_AFTER_EXECUTION_INTERVAL", 0)


def until(condition: object) -> None:
    """Wait for something that another process does."""
    ends = time.monotonic() + DEADLINE
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < ends
        time.sleep(0.05)


def children(pid: int) -> list[int]:
    try:
        return [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except OSError:
        return []


def is_job(pid: int) -> bool:
    try:
        return b"spark_job.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def test_a_run_on_spark_stores_the_rows_of_the_native_engine_and_a_killed_one_leaves_them(tmp_path: Path) -> None:
    native = World(tmp_path / "native", "{}")
    work = tmp_path / "work"
    world = World(tmp_path / "spark", "{}", identity=ENGINE.format(work=work))
    for one in (native, world):
        one.write_day(DAY)
        result = one.run(IDENTITY, DAY)
        assert result.success, why(result)
    for asset in IDENTITY:
        expected, stored = (one.lake.scan(asset, str(DAY)).collect() for one in (native, world))
        assert_frame_equal(stored, expected)
    assert not list(work.iterdir())
    parts = [info.key for info in world.lake.store.list(f"{state_keys.PARTS}/identity/graph/{DAY}")]
    assert len([key for key in parts if key.endswith(".parquet")]) > 1
    with LakeSql(world.lake.store.url) as sql:
        [identifiers] = sql.sql("SELECT count(*) FROM identity.graph").row(0)
    assert identifiers == world.lake.scan("identity/graph", str(DAY)).collect().height

    world.write("heap/users", DAY, users((4, "dan@x.example")))
    before = {asset: world.lake.versions(asset) for asset in IDENTITY}
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(world.run, IDENTITY, DAY)
        until(lambda: list(work.glob("*/between/names-last/*.parquet")) or running.done())
        [job] = filter(is_job, children(os.getpid()))
        below = children(job)
        os.kill(job, signal.SIGKILL)
        result = running.result(DEADLINE)
    assert not result.success
    assert "killed by signal 9" in why(result)
    assert {asset: world.lake.versions(asset) for asset in IDENTITY} == before
    assert [info.key for info in world.lake.store.list(f"{state_keys.PARTS}/identity/graph/{DAY}")] == parts
    assert below, "Java is a child of the job"
    until(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in below))
