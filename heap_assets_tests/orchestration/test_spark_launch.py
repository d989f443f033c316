"""A day that a job of another process resolves, under real runs of Dagster: what it says, and that it is silent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from polars.testing import assert_frame_equal

from heap_assets import clock
from heap_assets.orchestration.spark import launch
from heap_assets.storage import state_keys
from heap_assets.tables import GRAPH
from heap_assets_tests.orchestration import spark_stubs
from heap_assets_tests.pipelines.delivery_world import DAY, IDENTITY, NOW, World, users, why

ALWAYS = "  engine: {{spark: {{above_links: 0, parts: 2, work: {work}}}}}\n"


@pytest.fixture(autouse=True)
def at_night(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(clock.VARIABLE, NOW)
    monkeypatch.setattr(launch, "SCRIPT", Path(spark_stubs.__file__))
    # of a job that is gone no message comes any more
    monkeypatch.setattr("dagster._core.pipes.utils.WAIT_FOR_LOGS_AFTER_EXECUTION_INTERVAL", 0)


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> World:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(clock.VARIABLE, NOW)
        world = World(tmp_path_factory.mktemp("native"), "{}")
        world.write_day(DAY)
        result = world.run(IDENTITY, DAY)
        assert result.success, why(result)
    return world


def on_spark(world: World, folder: Path) -> World:
    return World(folder, "{}", identity=ALWAYS.format(work=folder / "work"))


def test_what_the_job_reports_becomes_the_day(native: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB", "native")
    world = on_spark(native, tmp_path)
    world.write_day(DAY)
    result = world.run(IDENTITY, DAY)
    assert result.success, why(result)
    for asset in IDENTITY:
        expected, stored = (one.lake.scan(asset, str(DAY)).collect() for one in (native, world))
        assert_frame_equal(stored, expected)
    partition = world.lake.find(GRAPH, str(DAY))
    assert partition is not None
    assert partition.notes["why"] == "the spark engine keeps no state"
    own = native.lake.find(GRAPH, str(DAY))
    assert own is not None
    assert (partition.rows, partition.inputs.versions.keys()) == (own.rows, own.inputs.versions.keys())
    parts = [info.key for info in world.lake.store.list(f"{state_keys.PARTS}/{GRAPH}/{DAY}")]
    assert [key.rpartition("/")[2] for key in parts] == ["part-0.parquet", "part-1.parquet"], "as the job wrote them"
    assert not list((tmp_path / "work").iterdir()), "what the job wrote is removed once it is stored"


@pytest.mark.parametrize(
    ("stub", "message"),
    [
        ("silent", "ended well without reporting results"),
        ("killed", "killed by signal 9"),
        ("wrong", "ValueError: the log of the job says more"),
        ("lost", "in 3 files, and 17 in 2 are in"),
    ],
)
def test_a_job_without_whole_results_fails_the_step_and_leaves_the_old_day(
    native: World, stub: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB", stub)
    world = native.copy(tmp_path, "{}", "http://127.0.0.1:9")
    world.identity = ALWAYS.format(work=tmp_path / "work")
    world.choose("{}")
    world.write("heap/users", DAY, users((4, "dan@x.example")))
    before = {asset: world.lake.versions(asset) for asset in IDENTITY}
    result = world.run(IDENTITY, DAY)
    assert not result.success
    [failure] = [event.step_failure_data.error for event in result.all_events if event.is_step_failure]
    assert failure is not None
    assert message in failure.message
    assert "ann@x" not in json.dumps([event.message for event in result.all_events])
    assert {asset: world.lake.versions(asset) for asset in IDENTITY} == before
    assert world.lake.store.list(state_keys.PARTS) == []
    assert not list((tmp_path / "work").iterdir())
