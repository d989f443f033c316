"""Nothing of suppressed people is sent, a forgotten person is in no ledger, and a resync is told once."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from heap_assets.activation import Addressed, Log, connector_of, fold
from heap_assets.demo.server_process import ServerProcess
from heap_assets.errors import SettingsError
from heap_assets.pipelines import delivery
from heap_assets.pipelines.offenders import forget_person
from heap_assets.pipelines.sync_gate import SentDay, remember_day
from heap_assets.project import parse_settings
from heap_assets.project.project import open_project
from heap_assets_tests.pipelines.delivery_fixtures import Worlds
from heap_assets_tests.pipelines.delivery_world import DAY, WRITE_KEY, World, migrations
from heap_assets_tests.sources.heap_connect.dump_builders import Bucket, event, land_all

ANN = "ann@x.example"


def track(segment: ServerProcess, more: str = "") -> str:
    return f"segment_track: {{url: '{segment.base_url}', write_key: {WRITE_KEY}, since: beginning{more}}}"


def reidentify(segment: ServerProcess) -> str:
    return f"segment_reidentify: {{url: '{segment.base_url}', write_key: {WRITE_KEY}}}"


def suppress(world: World, *people: tuple[str, str]) -> None:
    lines = ["identifier_type,identifier", *(",".join(person) for person in people)]
    (world.folder / "suppressed.csv").write_text("\n".join(lines) + "\n")
    path = world.folder / "heap_assets.yaml"
    text = path.read_text().replace("  suppressed: ./suppressed.csv\n", "")
    text = text.replace("identity:\n", "identity:\n  suppressed: ./suppressed.csv\n", 1)
    world.project = open_project(parse_settings(text, path))


def send(world: World, name: str) -> delivery.Delivery:
    return delivery.send(world.project, name, DAY, "run")


def who(segment: ServerProcess) -> set[tuple[str | None, str]]:
    return {(event.get("userId"), event["anonymousId"]) for event in segment.state()["events"].values()}


@pytest.mark.parametrize(
    "listed", [("heap_identity", ANN), ("email", ANN), ("heap_user_id", "1")], ids=lambda listed: listed[0]
)
def test_no_event_of_a_suppressed_person_is_forwarded(
    worlds: Worlds, segment: ServerProcess, listed: tuple[str, str]
) -> None:
    world = worlds(track(segment))
    suppress(world, listed)
    sent = send(world, "segment_track")
    assert (ANN, "heap|11|1") not in who(segment)
    assert not [person for person in who(segment) if person[1] == "heap|11|1" or person[0] == ANN]
    assert ("bob@x.example", "heap|11|2") in who(segment)
    assert sent.report.addressing["suppressed"] == 2


def test_a_row_of_a_suppressed_person_is_held_and_not_cleared(worlds: Worlds) -> None:
    world = worlds("webhook: {url: 'http://127.0.0.1:9', source: contacts, properties: {Plan: plan}}")
    suppress(world, ("email", ANN))
    rows = connector_of(world.project, "webhook").rows(DAY)
    assert isinstance(rows, Addressed)
    assert rows.rows.collect()["key"].sort().to_list() == ["c-bob", "c-cat", "c-dan"]
    assert rows.held.collect().select("key", "reason").rows() == [("c-ann", "suppressed")]


def test_a_list_without_its_columns_is_refused(worlds: Worlds, segment: ServerProcess) -> None:
    world = worlds(track(segment))
    suppress(world, ("email", ANN))
    (world.folder / "suppressed.csv").write_text(f"email\n{ANN}\n")
    with pytest.raises(SettingsError, match="must name the columns identifier_type and identifier"):
        _ = world.project.rules


def test_an_erased_person_is_on_no_profile_and_one_identifier_left_off_the_list_is(worlds: Worlds) -> None:
    """What docs/production.md says of erasing a person."""
    world = worlds("heap_user_properties: {properties: {Plan: plan}}")
    named = [("heap_identity", ANN), ("email", ANN), ("heap_user_id", "1"), ("heap_user_id", "900")]
    suppress(world, *named)
    world.resolve(DAY)
    assert remaining(world) == ["c-ann"]
    suppress(world, *named, ("crm_id", "c-ann"))
    world.resolve(DAY)
    assert remaining(world) == []
    assert ANN in world.lake.scan("heap/users", str(DAY)).collect()["identity"].to_list(), "what is stored stays"


def remaining(world: World) -> list[str]:
    """Return Ann's identifiers on any profile."""
    graph = world.lake.scan("identity/graph", str(DAY)).collect()["identifier"].to_list()
    listed = str(world.lake.scan("profiles", str(DAY)).collect()["identifiers"].to_list())
    known = [ANN, "c-ann", "1", "900"]
    assert [each for each in known if f"'{each}'" in listed] == [each for each in known if each in graph]
    return [each for each in known if each in graph]


def test_no_suppressed_person_is_identified_again(worlds: Worlds, segment: ServerProcess) -> None:
    world = worlds(reidentify(segment))
    send(world, "segment_reidentify")
    world.write("heap/user_migrations", DAY, migrations((900, 1), (901, 2)))
    suppress(world, ("email", ANN))
    assert send(world, "segment_reidentify").report.sent == 1
    assert who(segment) == {("bob@x.example", "heap|11|901")}


def test_one_person_has_one_user_id_whatever_an_event_came_from(worlds: Worlds, segment: ServerProcess) -> None:
    world = worlds(track(segment))
    send(world, "segment_track")
    assert who(segment) == {(ANN, "heap|11|1"), (ANN, "heap|11|900"), ("bob@x.example", "heap|11|2")}


@pytest.mark.parametrize(
    ("syncs", "name", "events"),
    [
        ("segment_track", "segment_track", 4),
        ("segment_reidentify", "segment_reidentify", 1),
        ("heap_events: {source: orders, event_name: Ordered, event_key: order_id, since: beginning}", "heap_events", 1),
        ("heap_user_properties: {properties: {Plan: plan}}", "heap_user_properties", 1),
    ],
)
def test_a_forgotten_person_is_in_no_ledger_and_is_not_sent_again(
    worlds: Worlds, segment: ServerProcess, heap: ServerProcess, syncs: str, name: str, events: int
) -> None:
    world = worlds({"segment_track": track(segment), "segment_reidentify": reidentify(segment)}.get(syncs, syncs))
    if name == "segment_reidentify":
        world.write("heap/user_migrations", DAY, migrations((900, 1), (901, 2)))
    send(world, name)
    before = ledger_of(world, name)
    assert forget_person(world.project, name, ANN, "by hand") == events
    after = ledger_of(world, name)
    assert len(before) - len(after) == events
    assert not [key for key in after if ANN in key]
    again = delivery.send(world.project, name, DAY, "later", delivery.RunOptions(force=True))
    assert again.report.sent == 0
    assert ledger_of(world, name) == after


def ledger_of(world: World, name: str) -> list[str]:
    keys: list[str] = []
    for spec in connector_of(world.project, name).specs():
        log = Log(world.lake.store, spec.name)
        keys += fold(log, log.ledger()).frame["key"].to_list()
    return sorted(keys)


def test_a_day_noted_under_another_scheme_of_versions_is_looked_at_again_and_not_sent(
    worlds: Worlds, segment: ServerProcess
) -> None:
    world = worlds(track(segment))
    assert send(world, "segment_track").report.sent == 6
    for table in ("signup", "pageviews"):
        remember_day(connector_of(world.project, "segment_track"), table, DAY, SentDay("what an older release wrote"))
    again = send(world, "segment_track")
    assert (again.unchanged_tables, again.report.sent) == (0, 0)


def test_people_in_a_full_resync_are_identified_again_once(worlds: Worlds, segment: ServerProcess) -> None:
    world = worlds(reidentify(segment))
    assert send(world, "segment_reidentify").report.sent == 0
    bucket = Bucket(world.folder / "bucket")

    def dump(number: int, as_of: str, full: tuple[str, ...], *users: int) -> None:
        rows: list[dict[str, Any]] = [
            event(number * 10 + user, "2026-11-18 10:00:00") | {"user_id": user} for user in users
        ]
        bucket.dump(number, as_of, full=full, signup=rows)
        land_all(world.project.landing, bucket)

    dump(1, "2026-11-19T02:00:00", ("signup",), 1, 2)
    assert send(world, "segment_reidentify").report.sent == 0, "a first delivery is no resync"
    dump(2, "2026-11-21T02:00:00", ("signup",), 1, 2, 900)
    assert send(world, "segment_reidentify").report.sent == 2
    assert {person for person, _ in who(segment)} == {ANN, "bob@x.example"}
    assert send(world, "segment_reidentify").report.requests == 0
    dump(3, "2026-11-21T02:30:00", (), 1, 2)
    assert send(world, "segment_reidentify").report.requests == 0, "an increment is no resync"


def test_a_tables_column_may_be_called_like_one_of_ours(worlds: Worlds, heap: ServerProcess) -> None:
    world = worlds(
        "heap_events: {source: orders, event_name: Ordered, event_key: order_id, since: beginning,\n"
        "  properties: {Key: key, Event: event, Time: time, Profile: profile_id, Total: total}}"
    )
    rows = (
        world.lake.scan("warehouse/orders", str(DAY))
        .collect()
        .with_columns(
            pl.lit(f"their {name}").alias(name) for name in ("key", "event", "time", "profile_id", "event_key")
        )
    )
    world.write("warehouse/orders", DAY, rows)
    world.resolve(DAY)
    assert send(world, "heap_events").report.sent == 2
    theirs = {"Key": "key", "Event": "event", "Time": "time", "Profile": "profile_id"}
    for event_ in heap.state()["events"].values():
        assert event_["properties"] | {prop: f"their {name}" for prop, name in theirs.items()} == event_["properties"]
        assert event_["identity"] in (ANN, "bob@x.example")


@pytest.mark.parametrize("number", ["²", "٣", "9" * 19, "1" * 5000])
def test_an_anonymous_id_without_a_user_id_is_nobodys(worlds: Worlds, segment: ServerProcess, number: str) -> None:
    world = worlds(track(segment))
    key = f"heap|{world.project.settings.heap.app_id}|{number}"
    assert forget_person(world.project, "segment_track", key, "gdpr") == 0
