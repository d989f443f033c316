"""A person is erased from every place; others keep their rows; what was erased does not come back."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from heap_assets.errors import MissingInputError, SettingsError
from heap_assets.pipelines import erasure
from heap_assets.privacy import BLANKED, State
from heap_assets_tests.pipelines.delivery_world import DAY, World
from heap_assets_tests.privacy.canary import BOB, CANARIES, CRM, DAYS, USERS, ZOE, copied, places_of


@pytest.fixture
def world(canary_base: World, tmp_path: Path) -> World:
    return copied(canary_base, tmp_path / "world")


def erased(world: World, *pairs: tuple[str, str]) -> str:
    request = erasure.request_erasure(world.project, pairs or (("email", ZOE),), author="dpo")
    erasure.confirm(world.project, request.id, "dpo")
    result = erasure.run(world.project, "run")
    assert result.requests == {request.id: "complete"}, result
    return request.id


def test_the_canaries_are_planted_in_every_kind_of_place(world: World) -> None:
    planted = {
        place.split("/")[0] for places in places_of(world.folder / "lake", *CANARIES).values() for place in places
    }
    assert planted >= {"_landing", "_identity", "heap", "warehouse", "identity", "profiles"}


def test_nothing_of_the_person_is_left_and_others_keep_their_rows(world: World) -> None:
    before = {day: world.lake.scan("heap/events/signup", str(day)).collect() for day in DAYS}
    request = erased(world)
    assert places_of(world.folder / "lake", *CANARIES) == {}
    for day in DAYS:
        after = world.lake.scan("heap/events/signup", str(day)).collect()
        others = before[day].filter(~pl.col("user_id").is_in(USERS))
        assert after.drop("contact_mail").equals(others.drop("contact_mail"))
        assert after["contact_mail"].to_list() == [None, f"invited by <{BLANKED}>"]
    path = world.lake.scan("heap/pageviews", str(DAY)).collect()["path"]
    assert path.to_list() == [f"/invite?from={BLANKED}&x=1"]
    assert BOB in world.lake.scan("profiles", str(DAY)).collect()["heap_identity"].to_list()
    assert world.lake.scan("warehouse/contacts", str(DAY)).collect().height == 4
    proof = erasure.proof(world.project, request)
    assert proof["state"] == "complete"
    assert proof["identifiers"] == {"crm_id": 1, "email": 1, "heap_identity": 1, "heap_user_id": 2}
    assert proof["places"]["Heap's tables"]["rows"] == 3 * (3 + 2)
    assert proof["places"]["landed rows"]["rows"] == 3 * (1 + 2 + 1)
    assert proof["places"]["landed rows set aside"]["rows"] == 3
    assert proof["scan"]["hits"] == proof["scan"]["unregistered"] == 0


def test_landed_rows_are_built_as_they_are_and_the_dump_does_not_land_again(world: World) -> None:
    from heap_assets.sources.heap_connect import build_event_day

    erased(world)
    project = world.choose("{}").project
    assert project.landing.pending(project.source()) == []
    built = build_event_day(project.landing, "signup", DAY).frame.collect()
    assert built.select("user_id", "contact_mail").rows() == [(2, f"{BLANKED};{BOB}")]


def test_an_old_dump_and_a_full_resync_do_not_bring_the_person_back(world: World) -> None:
    erased(world)
    project = world.choose("{}").project
    assert project.landing.reset("signup") == project.landing.reset("users") == 3
    for manifest in project.landing.pending(project.source()):
        project.landing.land(project.source(), manifest)
    assert places_of(world.folder / "lake", ZOE, *map(str, USERS)) == {}
    records = project.landing.records()
    assert [records[number].tables["signup"].counts.erased for number in (1, 2, 3)] == [2, 2, 2]
    assert records[1].tables["signup"].counts.rejected == 1


def test_a_value_that_is_anothers_today_is_listed_and_left_unless_named(world: World) -> None:
    graph = world.lake.scan("identity/graph", str(DAY)).collect()
    bobs = graph.filter(pl.col("identifier") == BOB)["profile_id"][0]
    zoes = graph.filter(pl.col("identifier") == ZOE)["profile_id"][0]
    merged = graph.with_columns(
        profile_id=pl.when(pl.col("profile_id") == bobs).then(pl.lit(zoes)).otherwise("profile_id")
    )
    world.lake.write("identity/graph", str(DAYS[0]), merged)
    request = erasure.request_erasure(world.project, [("email", ZOE)])
    assert request.plan is not None
    assert {one.why for one in request.plan.left} == {"conflicting"}
    assert {one.identifier for one in request.plan.left} == {BOB, "c-bob", "2"}
    assert ("email", BOB) not in request.plan.identifiers
    erasure.confirm(world.project, request.id, "dpo", also=[("email", BOB)])
    erasure.run(world.project, "run")
    assert places_of(world.folder / "lake", *CANARIES) == {}


def test_tombstones_are_lifted_with_a_reason_and_the_person_comes_in_again(world: World) -> None:
    request = erased(world)
    assert erasure.lift_tombstones(world.project, request, "consented anew") == 5
    project = world.choose("{}").project
    project.landing.reset("users")
    for manifest in project.landing.pending(project.source()):
        project.landing.land(project.source(), manifest)
    assert ZOE in places_of(world.folder / "lake", ZOE)


def test_requests_that_cannot_be(world: World) -> None:
    with pytest.raises(SettingsError, match="no identifier type 'shoe_size'"):
        erasure.request_erasure(world.project, [("shoe_size", "44")])
    with pytest.raises(MissingInputError, match="erase list"):
        erasure.confirm(world.project, "../../x", "dpo")
    request = erasure.request_erasure(world.project, [("email", ZOE)])
    assert erasure.run(world.project, "run").requests == {}, "nothing is erased before it is confirmed"
    assert erasure.cancel(world.project, request.id).state is State.CANCELLED
    assert ZOE not in (world.folder / "lake" / "_privacy" / "requests" / f"{request.id}.json").read_text()
    with pytest.raises(MissingInputError, match="only a new one"):
        erasure.confirm(world.project, request.id, "dpo")


@pytest.mark.parametrize(
    "value", ["x' or 1=1 --@y.example", "../../etc/passwd@y.example", "*@y.example", 'a"b\\@y.example', ".*@y.example"]
)
def test_hostile_identifiers_are_data(world: World, value: str) -> None:
    before = places_of(world.folder / "lake", BOB)[BOB]
    erased(world, ("heap_identity", value), ("crm_id", CRM + "%"))
    assert places_of(world.folder / "lake", BOB)[BOB] == before
    assert ZOE in places_of(world.folder / "lake", ZOE)


def test_a_row_of_the_warehouse_does_not_bring_the_person_back(world: World) -> None:
    import duckdb

    with duckdb.connect(str(world.folder / "warehouse.duckdb")) as connection:
        rows = world.lake.scan("warehouse/contacts", str(DAY)).collect().to_arrow()
        connection.execute("create schema crm")
        connection.register("rows", rows)
        connection.execute("create table crm.contacts as select * from rows")
    erased(world)
    world.choose("{}")
    result = world.run(["warehouse/contacts"], DAY)
    assert result.success, result
    assert world.lake.scan("warehouse/contacts", str(DAY)).collect().height == 4
    partition = world.lake.find("warehouse/contacts", str(DAY))
    assert partition is not None
    assert partition.notes["erased"] == 1
    assert places_of(world.folder / "lake", *CANARIES) == {}
