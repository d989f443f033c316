"""What each Heap sync sends from a real lake to a real server."""

from __future__ import annotations

import polars as pl
import pytest

from heap_assets.activation import Status
from heap_assets.demo.server_process import ServerProcess
from heap_assets.errors import SettingsError
from heap_assets.pipelines import delivery
from heap_assets.pipelines.delivery import RunOptions
from heap_assets_tests.pipelines.delivery_fixtures import Worlds
from heap_assets_tests.pipelines.delivery_world import (
    BEFORE,
    DAY,
    at,
    calls,
    contacts,
    moves,
    orders,
    properties,
    users,
)

USERS = "heap_user_properties: {properties: {Plan: plan}}"


def test_profiles_reach_the_users_that_heap_knows_and_nobody_else(worlds: Worlds, heap: ServerProcess) -> None:
    world = worlds(USERS)
    sent = delivery.send(world.project, "heap_user_properties", DAY, "r1")
    assert (sent.report.status, sent.report.sent, sent.report.held) == (Status.SUCCEEDED, 3, 1)
    assert properties(heap)["ann@x.example"] == {"Plan": "pro"}
    assert "dan@x.example" not in properties(heap)
    assert delivery.send(world.project, "heap_user_properties", DAY, "r2").report.requests == 0


def test_a_hold_says_that_the_identity_means_nobody(worlds: Worlds, heap: ServerProcess) -> None:
    world = worlds(f"{USERS}\n{EVENTS}, since: beginning}}")
    world.write("heap/users", DAY, users((900, "test@x.example")).filter(pl.col("identity").is_not_null()))
    world.write("warehouse/contacts", DAY, contacts().with_columns(visitor=pl.Series([None, None, None, "900"])))
    world.write("warehouse/orders", DAY, orders(("o-1", "dan@x.example", at(DAY))))
    world.resolve(DAY)
    junk = "its Heap identity is no identifier: it is on the list of values that mean nobody"
    people = delivery.send(world.project, "heap_user_properties", DAY, "r1").report
    assert (people.sent, people.held_reasons) == (3, {junk: 1})
    placed = delivery.send(world.project, "heap_events", DAY, "r2").report
    assert (placed.sent, placed.held_reasons) == (0, {junk: 1})


def test_a_table_of_identities_makes_no_ghosts(worlds: Worlds, heap: ServerProcess) -> None:
    world = worlds("heap_user_properties: {source: contacts, key: email, properties: {Plan: plan}}")
    sent = delivery.send(world.project, "heap_user_properties", DAY, "r1")
    assert (sent.report.sent, sent.report.held) == (3, 1)
    assert set(properties(heap)) == {"ann@x.example", "bob@x.example", "cat@x.example"}


def test_accounts_wait_for_their_configuration_and_for_users(worlds: Worlds, heap: ServerProcess) -> None:
    accounts_only = "heap_account_properties: {source: accounts, properties: {Size: size}"
    world = worlds(f"{accounts_only}}}\n{USERS}")
    refused = delivery.send(world.project, "heap_account_properties", DAY, "r1")
    assert refused.report.status is Status.REFUSED
    assert "Account ID" in str(refused.report.reason)
    world.choose(f"{accounts_only}, account_id_configured: true}}\n{USERS}")
    assert "no user was synced yet" in str(
        delivery.send(world.project, "heap_account_properties", DAY, "r2").report.reason
    )
    assert calls(heap) == 0
    delivery.send(world.project, "heap_user_properties", DAY, "r3")
    sent = delivery.send(world.project, "heap_account_properties", DAY, "r4")
    assert (sent.report.status, sent.report.sent) == (Status.SUCCEEDED, 3)
    assert heap.state()["accounts"]["acme"] == {"Size": 10}


EVENTS = "heap_events: {source: orders, event_name: Order Placed, event_key: order_id, properties: {Total: total}"


def test_events_go_once_to_the_identity_of_their_person(worlds: Worlds, heap: ServerProcess) -> None:
    world = worlds(EVENTS + ", since: beginning}")
    assert delivery.send(world.project, "heap_events", DAY, "r1").report.sent == 2
    assert delivery.send(world.project, "heap_events", DAY, "r2").report.requests == 0
    stored = {event["identity"]: event for event in heap.state()["events"].values()}
    assert set(stored) == {"ann@x.example", "bob@x.example"}
    assert stored["ann@x.example"]["timestamp"] == "2026-11-19T12:00:00.000Z"
    assert stored["ann@x.example"]["properties"] == {"Total": 9.5, "sent_by": "heap_assets"}


def test_events_before_the_day_of_enabling_stay(
    worlds: Worlds, heap: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = worlds(EVENTS + "}")
    planned, _ = delivery.plan(world.project, "heap_events", DAY)
    assert planned.report.planned == 0
    monkeypatch.setenv("HEAP_ASSETS_NOW", "2026-11-20T23:00:00+00:00")
    sent = delivery.send(world.project, "heap_events", DAY, "r1")
    assert sent.report.sent == 1, "a dry run before did not enable it"
    assert sent.report.addressing["before_since"] == 1
    monkeypatch.setenv("HEAP_ASSETS_NOW", "2026-11-21T03:00:00+00:00")
    late = orders(("o-1", "ann@x.example", at(BEFORE)), ("o-9", "cat@x.example", at(DAY, 23)))
    world.write("warehouse/orders", DAY, late)
    world.resolve(DAY)
    assert delivery.send(world.project, "heap_events", DAY, "r2").report.sent == 1, "the first day is remembered"


def test_an_event_waits_for_its_person(worlds: Worlds, heap: ServerProcess) -> None:
    world = worlds(EVENTS + ", since: beginning, hold_days: 3}")
    placed = [("o-1", "dan@x.example", at(DAY)), ("o-2", "dan@x.example", at(BEFORE.replace(day=10)))]
    world.write("warehouse/orders", DAY, orders(*placed))
    world.resolve(DAY)
    sent = delivery.send(world.project, "heap_events", DAY, "r1")
    assert (sent.report.sent, sent.report.held, sent.report.invalid) == (0, 1, 1)


def test_a_table_that_names_nobody_has_no_events(worlds: Worlds, heap: ServerProcess) -> None:
    world = worlds("heap_events: {source: accounts, event_name: Grew, since: beginning, properties: {Size: size}}")
    with pytest.raises(SettingsError, match="accounts maps no identifiers"):
        delivery.send(world.project, "heap_events", DAY, "r1")


def test_rows_without_a_time_are_new_if_the_days_before_lack_them(worlds: Worlds, heap: ServerProcess) -> None:
    world = worlds("heap_events: {source: moves, event_name: Moved, since: 2026-11-20, properties: {To: city}}")
    world.write("warehouse/moves", DAY, moves("ann", "bob", "cat"))
    world.resolve(DAY)
    assert delivery.send(world.project, "heap_events", DAY, "r1").report.sent == 2
    assert {e["identity"] for e in heap.state()["events"].values()} == {"bob@x.example", "cat@x.example"}
    world.choose("heap_events: {source: moves, event_name: Moved, since: 2026-11-01, properties: {To: city}}")
    with pytest.raises(SettingsError, match="set since: beginning"):
        delivery.send(world.project, "heap_events", DAY, "r2")


def test_identify_is_off_until_somebody_says_so(worlds: Worlds, heap: ServerProcess) -> None:
    world = worlds("heap_identify: {}")
    refused = delivery.send(world.project, "heap_identify", DAY, "r1")
    assert refused.report.status is Status.REFUSED
    assert calls(heap) == 0


def test_identify_sends_what_stood_for_two_weeks_and_believes_the_export(worlds: Worlds, heap: ServerProcess) -> None:
    world = worlds("heap_identify: {enabled: true}")
    sent = delivery.send(world.project, "heap_identify", DAY, "r1")
    assert (sent.report.status, sent.report.sent, sent.confirmed) == (Status.SUCCEEDED, 1, 0)
    migrated = pl.DataFrame({"from_user_id": [900], "to_user_id": [1], "resolved_to": [1]}).with_columns(
        time=pl.lit(at(DAY)), cycle=pl.lit(value=False)
    )
    world.write("heap/user_migrations", DAY, migrated)
    again = delivery.send(world.project, "heap_identify", DAY, "r2")
    assert (again.report.sent, again.confirmed) == (0, 1)


def test_identify_waits_for_joins_to_stand(worlds: Worlds, heap: ServerProcess) -> None:
    world = worlds("heap_identify: {enabled: true, stands_days: 20}")
    sent = delivery.send(world.project, "heap_identify", DAY, "r1")
    assert sent.report.status is Status.BLOCKED
    assert "20 days before" in str(sent.report.reason)
    assert calls(heap) == 0


def test_a_withdrawn_value_is_cleared_and_a_full_resend_sends_all(worlds: Worlds, heap: ServerProcess) -> None:
    world = worlds(USERS)
    delivery.send(world.project, "heap_user_properties", BEFORE, "r1")
    frame = contacts(bob="free").with_columns(
        plan=pl.when(pl.col("email") == "ann@x.example").then(None).otherwise("plan")
    )
    world.write("warehouse/contacts", DAY, frame)
    world.resolve(DAY)
    sent = delivery.send(world.project, "heap_user_properties", DAY, "r2")
    assert (sent.report.sent, sent.report.withdrawn, sent.report.changed) == (2, 1, 2)
    assert properties(heap)["ann@x.example"] == {"Plan": "(none)"}
    again = delivery.send(world.project, "heap_user_properties", DAY, "r3", RunOptions(full_resend=True))
    assert again.report.sent == 2, "nothing is left to say of Ann"


def test_an_event_of_an_identity_that_heap_has_never_seen(worlds: Worlds, heap: ServerProcess) -> None:
    world = worlds(EVENTS + ", since: beginning}")
    world.write("warehouse/orders", DAY, orders(("o-1", "dan@x.example", at(DAY))))
    world.resolve(DAY)
    profiles = world.lake.scan("profiles", str(DAY)).collect()
    named = pl.when(pl.col("heap_identities").list.len() == 0).then(pl.lit(["dan"])).otherwise("heap_identities")
    world.write("profiles", DAY, profiles.with_columns(named.alias("heap_identities")))
    waits = delivery.send(world.project, "heap_events", DAY, "r1").report
    assert (waits.sent, waits.held_reasons) == (0, {"Heap has never seen its identity": 1})
    assert waits.addressing_in_words["identities that Heap does not know, whose events wait"] == 1
    world.choose(EVENTS + ", since: beginning, unknown_identity: create}")
    created = delivery.send(world.project, "heap_events", DAY, "r2").report
    assert (created.sent, created.addressing["would_create"]) == (1, 1)
    assert [event["identity"] for event in heap.state()["events"].values()] == ["dan"]
