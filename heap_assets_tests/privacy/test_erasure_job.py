"""Requests from tables, the job with ids of requests, what came back, and Dagster's storage without a value."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from heap_assets.errors import SettingsError
from heap_assets.orchestration.definitions import build_definitions
from heap_assets.pipelines import erasure, erasure_requests
from heap_assets.privacy import Requests, State
from heap_assets.tables import ERASURES
from heap_assets_tests.pipelines.delivery_world import DAY, World
from heap_assets_tests.privacy.canary import CANARIES, ZOE, copied, places_of

TABLE = """
privacy:
  erasure:
    confirm: ambiguous
    requests:
      - {table: moves, identifiers: {email: email}, id: move_id, where: {city: Oslo}}
"""


def moves(*rows: tuple[str, str, str]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["move_id", "email", "city"], orient="row")


@pytest.fixture
def world(canary_base: World, tmp_path: Path) -> World:
    world = copied(canary_base, tmp_path / "world", more=TABLE)
    world.write("warehouse/moves", DAY, moves(("m-zoe-canary7", ZOE.upper(), "Oslo"), ("m-2", "x@y.example", "Rome")))
    return world


def test_a_row_of_a_table_is_a_request_once_and_the_job_erases_it(world: World, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        job = build_definitions(world.project).resolve_job_def("erase_people")
        for _ in range(2):
            result = job.execute_in_process(instance=instance)
            assert result.success
        [event] = result.get_asset_materialization_events()
        metadata = event.materialization.metadata
        assert metadata["requests_complete"].value == 1
        assert metadata["new_requests"].value == 0
    requests = Requests(world.lake.store).all()
    assert [(one.source, one.state) for one in requests] == [("warehouse/moves", State.COMPLETE)]
    assert places_of(world.folder / "lake", *CANARIES, "m-zoe-canary7") == {}
    assert places_of(home, *CANARIES, "m-zoe-canary7") == {}
    table = world.lake.scan(ERASURES).collect()
    assert table.select("request", "state", "identifiers").rows() == [(requests[0].id, "complete", 5)]
    assert world.lake.scan("warehouse/moves", str(DAY)).collect()["move_id"].to_list() == ["m-2"]


def test_only_the_requests_whose_ids_a_run_has_are_erased(world: World) -> None:
    ids = [erasure.request_erasure(world.project, [("email", one)]).id for one in (ZOE, "ann@x.example")]
    erasure.confirm_all(
        world.project, [one for one in ids if Requests(world.lake.store).get(one).state is State.REQUESTED], "dpo"
    )
    job = build_definitions(world.project).resolve_job_def("erase_people")
    ops = {"ops": {"privacy__erasures": {"config": {"requests": ids[:1]}}}}
    assert job.execute_in_process(instance=world.instance, run_config=ops).success
    states = {one.id: one.state for one in Requests(world.lake.store).all()}
    assert (states[ids[0]], states[ids[1]]) == (State.COMPLETE, State.CONFIRMED)


def test_what_a_run_wrote_that_had_begun_before_is_removed_by_the_next(world: World) -> None:
    before = {key: world.lake.scan(key, str(DAY)).collect() for key in ("identity/graph", "heap/users", "profiles")}
    request = erasure.request_erasure(world.project, [("email", ZOE)])
    if request.state is State.REQUESTED:
        erasure.confirm(world.project, request.id, "dpo")
    erasure.run(world.project, "run")
    for asset, rows in before.items():
        world.lake.write(asset, str(DAY), rows)
    assert places_of(world.folder / "lake", ZOE)
    assert erasure_requests.sweep(world.choose("{}").project) > 3
    assert places_of(world.folder / "lake", *CANARIES) == {}
    assert erasure_requests.sweep(world.project) == 0


def test_a_column_that_the_table_does_not_have_is_named(canary_base: World, tmp_path: Path) -> None:
    world = copied(canary_base, tmp_path / "world", more=TABLE.replace("email: email", "mail: email"))
    with pytest.raises(SettingsError, match=r"privacy.erasure.requests\[0\]: warehouse/moves has no column 'mail'"):
        erasure_requests.take_in_from_tables(world.project)
