"""What people do: who they are to Heap at each moment, and that tables agree with each other."""

from datetime import date

import polars as pl
import pytest

from heap_assets.demo.behaviour import day_of_use
from heap_assets.demo.chance import DAY, NEVER
from heap_assets.demo.events import events_of_use, sign_ups
from heap_assets.demo.heap_users import migrations_of, users_of
from heap_assets.demo.plan import Plan
from heap_assets.demo.world import World, make_world

DAYS = range(20)


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(Plan(people=400, days=len(DAYS), seed=11, first_day=date(2026, 9, 1), faults=False))


@pytest.fixture(scope="module")
def views(world: World) -> pl.DataFrame:
    return pl.concat([day_of_use(world, day).pageviews for day in DAYS])


def test_a_day_is_the_same_made_alone_or_after_others(world: World) -> None:
    again = make_world(world.plan)
    assert day_of_use(again, 7).pageviews.equals(day_of_use(world, 7).pageviews)


def test_users_are_anonymous_until_they_log_in_and_then_a_hash_of_their_identity(
    world: World, views: pl.DataFrame
) -> None:
    clients = world.devices.clients[views["client"].to_numpy()]
    skewed = views["time"] - views["time"] % DAY != clients["login_at"] - clients["login_at"] % DAY
    before = views.filter((views["time"] < clients["login_at"]) & skewed)
    assert not before["identified"].any()
    identified = set(world.people.identities["heap_user_id"])
    assert set(views.filter("identified")["user_id"]) <= identified
    assert not set(views.filter(~pl.col("identified"))["user_id"]) & identified


def test_people_browse_before_they_sign_up_and_use_several_devices(world: World, views: pl.DataFrame) -> None:
    signup = world.people.persons["signup_at"].gather(views["person"])
    assert views.filter((views["time"] < signup) & (signup < NEVER)).height > 0
    devices = world.devices.devices.filter(kind="own").group_by("person").len()
    assert devices["len"].max() >= 3
    assert devices.filter(pl.col("len") > 1).height > world.people.count // 4


def test_kiosks_and_pairs_share_devices_and_nobody_else_does(world: World, views: pl.DataFrame) -> None:
    used = views.with_columns(device=world.devices.clients["device"].gather(views["client"]))
    people = used.filter("identified").group_by("device").agg(pl.col("person").n_unique().alias("people"))
    kinds = people.join(world.devices.devices.select("device", "kind"), on="device")
    assert kinds.filter(kind="own")["people"].max() == 1
    assert kinds.filter(kind="shared_laptop")["people"].max() == 2
    assert kinds.filter(kind="kiosk")["people"].max() > 10  # type: ignore[operator]


def test_every_event_names_a_session_that_heap_exports(world: World, views: pl.DataFrame) -> None:
    uses = [day_of_use(world, day) for day in DAYS]
    sessions = set(pl.concat([use.sessions for use in uses])["session_id"])
    assert set(views["session_id"]) == sessions
    for use in uses:
        for rows in events_of_use(world, use).values():
            assert set(rows["session_id"].drop_nulls()) <= sessions
    assert set(sign_ups(world, DAYS[0], DAYS[-1])["session_id"]) <= sessions


def test_every_user_of_an_event_is_in_users_by_then(world: World, views: pl.DataFrame) -> None:
    seen = views.select("user_id", "person", pl.col("time").alias("last_seen"))
    users = users_of(world, 0, DAYS[-1], seen)
    assert users["user_id"].is_unique().all()
    assert set(views["user_id"]) <= set(users["user_id"])
    assert (users["last_modified"] >= users["joindate"]).all()


def test_a_migration_ends_at_a_user_with_an_identity(world: World) -> None:
    migrations = migrations_of(world, DAYS[-1])
    assert migrations["from_user_id"].is_unique().all()
    assert set(migrations["to_user_id"]) <= set(world.people.identities["heap_user_id"])
    chained = migrations.filter(pl.col("to_user_id").is_in(migrations["from_user_id"].implode()))
    assert chained.height > 0, "where Heap merged two identities, some migrations take two steps"
