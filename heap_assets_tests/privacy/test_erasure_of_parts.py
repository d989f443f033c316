"""People are erased from partitions of several files as from those of one, and from what a killed job left of them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from heap_assets.pipelines import erasure
from heap_assets.pipelines.erasure_index import index_values
from heap_assets.pipelines.person_export import export_person
from heap_assets.storage import Parts, parts_folder
from heap_assets_tests.pipelines.delivery_world import DAY, World
from heap_assets_tests.privacy.canary import CANARIES, DAYS, ZOE, copied, places_of

ASSETS = ("identity/graph", "profiles", "heap/users", "heap/events/signup")


def parted(world: World) -> World:
    """Write some tables of a lake again, each day as three files."""
    for asset in ASSETS:
        for day in map(str, DAYS):
            rows, partition = world.lake.scan(asset, day).collect(), world.lake.find(asset, day)
            assert partition is not None
            world.lake.delete(asset, day)
            keys = [f"{parts_folder(asset, day, 'run')}/piece={number}/part.parquet" for number in range(3)]
            size = -(-rows.height // 3)
            for number, key in enumerate(keys):
                world.lake.store.sink(key, rows.slice(number * size, size))
            parts = Parts(rows.schema, tuple(keys), rows.height)
            world.lake.write(asset, day, parts, partition.inputs, notes=partition.notes)
    return world


def erased(world: World) -> erasure.Erasure:
    request = erasure.request_erasure(world.project, [("email", ZOE)], author="dpo")
    erasure.confirm(world.project, request.id, "dpo")
    return erasure.run(world.project, "run")


@pytest.mark.parametrize("indexed", [False, True])
def test_nothing_of_the_person_is_left_in_any_part_and_the_tables_are_those_of_one_file(
    canary_base: World, tmp_path: Path, indexed: bool
) -> None:
    whole, world = copied(canary_base, tmp_path / "whole"), parted(copied(canary_base, tmp_path / "world"))
    if indexed:
        index_values(world.project)
    before = world.lake.versions("identity/graph")
    assert [*export_person(world.project, [("email", ZOE)], tmp_path / "a.zip").items()] == [
        *export_person(whole.project, [("email", ZOE)], tmp_path / "b.zip").items()
    ]
    for one in (whole, world):
        assert [*erased(one).requests.values()] == ["complete"]
        assert places_of(one.folder / "lake", *CANARIES) == {}
    for asset in ASSETS:
        for day in map(str, DAYS):
            expected, left = (one.lake.scan(asset, day).collect() for one in (whole, world))
            assert_frame_equal(left, expected)
            found, partition = (one.lake.find(asset, day) for one in (whole, world))
            assert found is not None
            assert partition is not None
            assert (partition.rows, partition.inputs) == (found.rows, found.inputs)
    assert all(before[day] != version for day, version in world.lake.versions("identity/graph").items())
    assert world.lake.tidy_parts() == 0


def left_behind(world: World, seconds: float) -> str:
    """Leave a part that no marker names, as a job that was killed some time ago."""
    key = f"{parts_folder('identity/graph', str(DAY), 'killed')}/part.parquet"
    world.lake.store.sink(key, pl.DataFrame({"identifier_type": ["email"], "identifier": [ZOE]}))
    path = world.lake.store.local_path(key)
    assert path is not None
    written = time.time() - seconds
    os.utime(path, (written, written))
    return key


def test_what_a_killed_job_left_is_deleted_and_one_that_goes_on_is_waited_for(
    canary_base: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = copied(canary_base, tmp_path / "world")
    monkeypatch.delenv("HEAP_ASSETS_NOW")  # files of this test are as old as its clock says
    key = left_behind(world, 60)
    assert [*erased(world).requests.values()] != ["complete"]
    assert world.lake.store.exists(key)
    left_behind(world, 7 * 3600)
    assert [*erasure.run(world.project, "again").requests.values()] == ["complete"]
    assert places_of(world.folder / "lake", *CANARIES) == {}
