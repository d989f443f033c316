"""Nothing is sent from what failed its checks, was never judged, or was judged in another version."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl
import pytest

from heap_assets.activation import Status
from heap_assets.demo.server_process import ServerProcess
from heap_assets.pipelines import delivery
from heap_assets.pipelines.sync_gate import feeding_snapshots, has_news, is_first_of_hour
from heap_assets.quality import result_store
from heap_assets_tests.pipelines.delivery_fixtures import Worlds
from heap_assets_tests.pipelines.delivery_world import BEFORE, DAY, World, calls, contacts

USERS = "heap_user_properties: {properties: {Plan: plan}}"


def blocked(world: World, heap: ServerProcess, name: str = "heap_user_properties") -> str:
    sent = delivery.send(world.project, name, DAY, "r")
    assert sent.report.status is Status.BLOCKED
    assert not sent.arrived
    assert calls(heap) == 0
    assert not world.lake.store.list(f"_sync/{name}/log")
    return str(sent.report.reason)


@pytest.mark.parametrize("asset", ["profiles", "heap/users", "warehouse/contacts"])
def test_a_failed_check_of_profiles_or_of_what_they_are_made_of_shuts_the_gate(
    worlds: Worlds, heap: ServerProcess, asset: str
) -> None:
    world = worlds(USERS)
    world.judge(asset, DAY, passed=False, only="unique_keys")
    assert f"{asset} {DAY}: unique_keys failed" in blocked(world, heap)


def test_a_collapsed_table_shuts_the_gate_of_profiles(worlds: Worlds, heap: ServerProcess) -> None:
    world = worlds(USERS)
    world.judge("warehouse/contacts", DAY, passed=False, only="not_shrunk")
    assert "not_shrunk failed" in blocked(world, heap)


@pytest.mark.parametrize("asset", ["warehouse/accounts", "heap/events/signup"])
def test_tables_that_give_profiles_nothing_stop_nobody(worlds: Worlds, heap: ServerProcess, asset: str) -> None:
    world = worlds(USERS)
    assert asset not in feeding_snapshots(world.project)
    world.judge(asset, DAY, passed=False)
    assert delivery.send(world.project, "heap_user_properties", DAY, "r").report.sent == 3


def test_a_trait_that_clashes_stops_the_syncs_that_send_it_and_no_others(worlds: Worlds, heap: ServerProcess) -> None:
    world = worlds(USERS)
    world.write("warehouse/contacts", DAY, contacts().with_columns(plan=pl.concat_list("plan")))
    world.resolve(DAY)
    reason = blocked(world, heap)
    assert f"profiles {DAY}: trait 'plan' needs plain values" in reason, "cleared values would be sent otherwise"
    told = result_store.read(world.lake.store, "profiles", "traits_made", str(DAY))
    assert told is not None
    assert told.failed
    world.choose("heap_user_properties: {properties: {Account: account}}")
    assert delivery.send(world.project, "heap_user_properties", DAY, "r").report.sent == 3


def test_a_trait_that_is_set_aside_keeps_its_type_for_those_who_read_it(worlds: Worlds, heap: ServerProcess) -> None:
    world = worlds(USERS)
    seats = pl.Series([1, 2, 3, 4])
    world.write("warehouse/contacts", BEFORE, contacts().with_columns(plan=seats))
    world.resolve(BEFORE)
    world.lake.delete("profiles", str(DAY))
    world.write("warehouse/contacts", DAY, contacts().with_columns(plan=pl.concat_list("plan")))
    world.resolve(DAY)
    profiles = world.lake.scan("profiles", str(DAY)).collect()
    assert profiles.schema["plan"] == pl.Int64
    assert profiles["plan"].null_count() == profiles.height


def test_a_verdict_on_another_version_counts_for_nothing(worlds: Worlds, heap: ServerProcess) -> None:
    world = worlds(USERS)
    world.lake.write("profiles", str(DAY), world.lake.scan("profiles", str(DAY)).collect())
    assert "judged another version" in blocked(world, heap)


def test_profiles_older_than_their_table_wait_for_new_ones(worlds: Worlds, heap: ServerProcess) -> None:
    world = worlds(USERS)
    world.write("warehouse/contacts", DAY, contacts("enterprise"))
    assert "was built from an older warehouse/contacts" in blocked(world, heap)
    world.resolve(DAY)
    assert delivery.send(world.project, "heap_user_properties", DAY, "r").report.sent == 3


def test_a_check_that_never_judged_shuts_the_gate(worlds: Worlds, heap: ServerProcess) -> None:
    world = worlds(USERS)
    world.lake.store.delete(f"_verdicts/warehouse/contacts/unique_keys/{DAY}.json")
    assert "unique_keys has not judged it" in blocked(world, heap)


def test_events_need_their_table_and_the_profiles_they_go_to(worlds: Worlds, heap: ServerProcess) -> None:
    world = worlds("heap_events: {source: orders, event_name: Ordered, since: beginning, properties: {Total: total}}")
    world.judge("warehouse/orders", DAY, passed=False, only="unique_keys")
    assert "warehouse/orders" in blocked(world, heap, "heap_events")
    world.judge("warehouse/orders", DAY)
    world.judge("profiles", DAY, passed=False, only="one_profile_per_identity")
    assert "one_profile_per_identity failed" in blocked(world, heap, "heap_events")


def test_a_dry_run_says_that_the_gate_is_shut(worlds: Worlds, heap: ServerProcess) -> None:
    world = worlds(USERS)
    world.judge("profiles", DAY, passed=False, only="unique_keys")
    planned, rows = delivery.plan(world.project, "heap_user_properties", DAY)
    assert (planned.report.planned, len(rows)) == (3, 3)
    assert "the gate is shut" in str(planned.report.reason)
    assert calls(heap) == 0


def test_between_the_hours_only_what_was_built_since_and_may_be_sent_starts_a_run(
    worlds: Worlds, heap: ServerProcess
) -> None:
    world, name = worlds(USERS), "heap_user_properties"
    assert has_news(world.project, name, DAY), "it never ran"
    assert delivery.send(world.project, name, DAY, "r").arrived
    assert not has_news(world.project, name, DAY)
    world.write("warehouse/contacts", DAY, contacts().with_columns(plan=pl.lit("other")))
    world.resolve(DAY)
    assert has_news(world.project, name, DAY)
    world.judge("profiles", DAY, passed=False, only="unique_keys")
    assert not has_news(world.project, name, DAY), "the gate is shut"


@pytest.mark.parametrize(
    ("cron", "minute", "first"),
    [("*/15 * * * *", 0, True), ("*/15 * * * *", 15, False), ("15 * * * *", 15, True), ("* * * * *", 1, False)],
)
def test_which_tick_of_an_hour_tries_everything(cron: str, minute: int, first: bool) -> None:
    assert is_first_of_hour(cron, datetime(2026, 11, 20, 3, minute, tzinfo=UTC)) is first
