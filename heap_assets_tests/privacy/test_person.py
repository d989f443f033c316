"""The export of one person is whole and holds nobody else's rows; the sharing log says who got what."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import polars as pl
import pytest

from heap_assets.demo.server_process import ServerProcess
from heap_assets.errors import MissingInputError
from heap_assets.pipelines import delivery
from heap_assets.pipelines.person_export import export_person, sharing_log
from heap_assets_tests.pipelines.delivery_world import DAY, World
from heap_assets_tests.privacy.canary import BOB, CANARIES, DAYS, USERS, ZOE, copied

SYNC = "heap_user_properties: {properties: {Plan: plan}}"


def test_all_rows_links_and_destinations_of_a_person(canary_base: World, tmp_path: Path, heap: ServerProcess) -> None:
    world = copied(canary_base, tmp_path / "world", SYNC, heap.base_url)
    heap.seed([ZOE, BOB, "ann@x.example", "cat@x.example"], app_id="11")
    assert delivery.send(world.project, "heap_user_properties", DAY, "run").report.sent == 4
    out = tmp_path / "person.zip"
    counts = export_person(world.project, [("email", ZOE)], out)
    assert counts["heap/events/signup"] == 2 * len(DAYS)
    assert counts["heap/pageviews"] == counts["warehouse/contacts"] == counts["profiles"] == len(DAYS)
    with zipfile.ZipFile(out) as archive:
        document = json.loads(archive.read("person.json"))
        everything = b"".join(archive.read(name) for name in archive.namelist())
        signup = pl.read_parquet(io.BytesIO(archive.read("rows/heap/events/signup.parquet")))
        assert json.loads(archive.read("rows/heap/events/signup.json"))[0]["plan"] == "canary-plan"
    assert set(signup["user_id"]) == set(USERS)
    assert {one["value"] for one in document["identifiers"]} >= {ZOE, *map(str, USERS)}
    assert {one["source"] for one in document["links"]} >= {"contacts"}
    [shared] = document["shared_with"]
    assert (shared["sync"], shared["field"], shared["destination"]) == ("heap_user_properties", "Plan", "heap")
    assert all(canary.encode() in everything for canary in CANARIES)
    assert BOB.encode() not in everything
    log = sharing_log(world.project)
    assert log.select("sync", "field", "people").rows() == [("heap_user_properties", "Plan", 4)]


def test_nobody_is_told_as_nobody(canary_base: World, tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="nobody is known"):
        export_person(canary_base.project, [("email", "who@y.example")], tmp_path / "x.zip")
