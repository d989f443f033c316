"""What Segment, a webhook and a destination of one's own get from a real lake."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from heap_assets.activation import Status, connector_of, runs
from heap_assets.demo.server_process import ServerProcess
from heap_assets.errors import SettingsError
from heap_assets.pipelines import delivery
from heap_assets.pipelines.sync_gate import due_days
from heap_assets_tests.pipelines.delivery_fixtures import Worlds
from heap_assets_tests.pipelines.delivery_world import (
    BEFORE,
    DAY,
    WRITE_KEY,
    World,
    accounts,
    contacts,
    events,
    migrations,
    next_day,
)

_ACME = """
from heap_assets.activation import BaseDestination, Limits, Request


class Acme(BaseDestination):
    kind = "acme_crm"
    limits = Limits(batch_rows=3)

    def __init__(self, url):
        self.url = url

    def element(self, row):
        return {"crm": row.key, **row.values}

    def request(self, elements, rows):
        return Request(self.url, b'{"contacts":[' + b",".join(elements) + b"]}")
"""


def track(segment: ServerProcess, more: str = "") -> str:
    return f"segment_track: {{url: '{segment.base_url}', write_key: {WRITE_KEY}, since: beginning{more}}}"


def messages(segment: ServerProcess, kind: str) -> list[dict[str, Any]]:
    state = segment.state()
    assert not state["rejected"]
    return [event for event in state["events"].values() if event["type"] == kind]


def send(world: World, name: str, day: date = DAY) -> delivery.Delivery:
    return delivery.send(world.project, name, day, f"run-{day}")


def test_events_of_heap_are_forwarded_once_with_only_what_is_mapped(worlds: Worlds, segment: ServerProcess) -> None:
    world = worlds(track(segment, ", properties: {Plan: plan, Path: path}"))
    sent = send(world, "segment_track")
    assert (sent.report.status, sent.report.sent, set(sent.tables)) == (Status.SUCCEEDED, 6, {"signup", "pageviews"})
    assert send(world, "segment_track").report.requests == 0
    found = messages(segment, "track")
    assert {event["event"] for event in found} == {"Signed Up", "Viewed a Page"}
    assert {json.dumps(event["properties"]) for event in found} == {'{"Plan": "pro"}', '{"Path": "/"}'}
    who = {(event.get("userId"), event["anonymousId"]) for event in found}
    assert who == {
        ("ann@x.example", "heap|11|1"),
        ("ann@x.example", "heap|11|900"),  # whom the graph has joined to her
        ("bob@x.example", "heap|11|2"),
    }
    assert all(event["integrations"] == {"Heap": False} for event in found)


def test_what_heap_assets_sent_itself_is_never_forwarded(worlds: Worlds, segment: ServerProcess) -> None:
    world = worlds(track(segment, ", tables: [signup], columns: ['*']"))
    ours = pl.Series(["heap_assets", None], dtype=pl.String)
    world.write("heap/events/signup", DAY, events(DAY, "signup", (1, 1), (2, 2), sent_by=ours))
    assert send(world, "segment_track").report.sent == 1
    [event] = messages(segment, "track")
    assert event["userId"] == "bob@x.example"
    assert event["properties"] == {"plan": "pro"}, "columns marked as personal are not taken by a pattern"


def test_a_table_whose_gate_is_shut_is_left_out_and_named(worlds: Worlds, segment: ServerProcess) -> None:
    world = worlds(track(segment, ", columns: ['*']"))
    world.judge("heap/events/signup", DAY, passed=False, only="no_personal_data")
    sent = send(world, "segment_track")
    assert (sent.report.status, sent.report.sent, list(sent.tables)) == (Status.PARTIAL, 3, ["pageviews"])
    assert "no_personal_data failed" in sent.left_out["signup"]
    assert due_days(world.project, "segment_track") == [BEFORE.replace(day=5), BEFORE, DAY]
    world.judge("heap/events/signup", DAY)
    assert send(world, "segment_track").report.sent == 3


def test_old_days_whose_gate_is_shut_are_not_asked_for_hour_after_hour(worlds: Worlds, segment: ServerProcess) -> None:
    world = worlds(track(segment, ", columns: ['*'], tables: [signup]"))
    for day in (BEFORE, DAY):
        world.judge("heap/events/signup", day, passed=False, only="no_personal_data")
    assert due_days(world.project, "segment_track") == [BEFORE.replace(day=5), DAY]


def test_days_that_landed_late_are_due_again(worlds: Worlds, segment: ServerProcess) -> None:
    world = worlds(track(segment, ", columns: ['*']"))
    for day in due_days(world.project, "segment_track"):
        send(world, "segment_track", day)
    assert due_days(world.project, "segment_track") == []
    world.write("heap/pageviews", BEFORE, events(BEFORE, "pageviews", (BEFORE.toordinal() * 10 + 1, 1), (77, 3)))
    assert due_days(world.project, "segment_track") == [BEFORE]
    assert send(world, "segment_track", BEFORE).report.sent == 1


def test_what_was_delivered_is_not_read_again_until_the_choices_change(worlds: Worlds, segment: ServerProcess) -> None:
    world = worlds(track(segment, ", columns: ['*'], tables: [signup]").replace("beginning", "2026-11-21"))
    assert send(world, "segment_track").report.addressing["before_since"] == 3
    assert send(world, "segment_track").unchanged_tables == 1
    world.choose(track(segment, ", columns: ['*'], tables: [signup]"))
    assert DAY in due_days(world.project, "segment_track")
    assert send(world, "segment_track").report.sent == 3


def test_refused_events_keep_their_day_due(worlds: Worlds, segment: ServerProcess) -> None:
    world = worlds(track(segment, ", columns: ['*'], tables: [signup]"))
    segment.fail({"kind": "status", "status": 400})
    stopped = send(world, "segment_track")
    assert stopped.report.rejected + stopped.report.unknown == 3
    assert DAY in due_days(world.project, "segment_track")
    segment.fail()
    assert send(world, "segment_track").report.sent == 3


def test_a_tracking_plan_renames_drops_and_rejects(worlds: Worlds, segment: ServerProcess) -> None:
    world = worlds(track(segment, ", properties: {plan: plan, path: path}, tracking_plan: ./plan.json"))
    with pytest.raises(SettingsError, match="does not exist"):
        send(world, "segment_track")
    planned = {"plan": {"type": "string", "rename": "Plan Name"}}
    (world.folder / "plan.json").write_text(
        json.dumps({"events": {"Signed Up": {"rename": "User Signed Up", "properties": planned}}})
    )
    sent = send(world, "segment_track")
    found = messages(segment, "track")
    assert {event["event"] for event in found} == {"User Signed Up"}
    assert all(event["properties"] == {"Plan Name": "pro"} for event in found)
    assert sent.report.addressing["tracking plan: event Viewed a Page: not planned, block_event"] == 3


def test_traits_go_to_the_identifier_that_was_chosen(worlds: Worlds, segment: ServerProcess) -> None:
    where = f"url: '{segment.base_url}', write_key: {WRITE_KEY}"
    world = worlds(
        f"segment_identify: {{{where}, user_id: crm_id, identities: one, properties: {{plan: plan}}}}\n"
        f"by_identity: {{kind: segment_identify, {where}, properties: {{plan: plan}}}}"
    )
    assert send(world, "segment_identify").report.sent == 4
    assert {event["userId"] for event in messages(segment, "identify")} == {"c-ann", "c-bob", "c-cat", "c-dan"}
    assert send(world, "by_identity").report.sent == 3
    assert send(world, "by_identity").report.requests == 0


def test_accounts_go_with_a_member_and_wait_for_one(worlds: Worlds, segment: ServerProcess) -> None:
    world = worlds(
        f"segment_group: {{url: '{segment.base_url}', write_key: {WRITE_KEY}, source: accounts, "
        "member_trait: account, properties: {size: size}}"
    )
    sent = send(world, "segment_group")
    assert (sent.report.sent, sent.report.invalid) == (2, 1)
    found = {event["groupId"]: event for event in messages(segment, "group")}
    assert found["acme"]["userId"] == "ann@x.example"
    assert found["acme"]["traits"] == {"size": 10}
    world.write("warehouse/accounts", next_day(0), accounts(20))
    assert send(world, "segment_group").report.changed == 2


def test_a_migrated_user_is_identified_again_once(worlds: Worlds, segment: ServerProcess) -> None:
    world = worlds(f"segment_reidentify: {{url: '{segment.base_url}', write_key: {WRITE_KEY}}}")
    assert send(world, "segment_reidentify").report.sent == 0
    world.write("heap/user_migrations", DAY, migrations((900, 1)))
    assert send(world, "segment_reidentify").report.sent == 1
    assert send(world, "segment_reidentify").report.requests == 0
    [event] = messages(segment, "identify")
    assert (event["userId"], event["anonymousId"]) == ("ann@x.example", "heap|11|900")


class _Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((dict(self.headers), json.loads(body)))  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def receiver() -> Iterator[http.server.ThreadingHTTPServer]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Receiver)
    server.got = []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_webhook_needs_nothing_but_settings(worlds: Worlds, receiver: Any) -> None:
    url = f"http://127.0.0.1:{receiver.server_port}/hook"
    world = worlds(
        f"webhook: {{url: '{url}', secret: s3cret, headers: {{X-Api-Key: k3y}}, key: crm_id, "
        "properties: {plan: plan}}\n"
        f"orders: {{kind: webhook, mode: insert, url: '{url}', source: orders, event_name: Ordered, "
        "since: beginning, properties: {total: total}}"
    )
    assert send(world, "webhook").report.sent == 4
    headers, body = receiver.got[0]
    assert headers["X-Api-Key"] == "k3y"
    assert headers["X-Heap-Assets-Signature"].startswith("t=")
    assert {row["key"] for row in body["rows"]} == {"c-ann", "c-bob", "c-cat", "c-dan"}
    assert send(world, "orders").report.sent == 2
    assert receiver.got[-1][1]["rows"][0]["event"] == "Ordered"
    assert send(world, "orders").report.requests == 0


@pytest.mark.parametrize("kind", [pl.Decimal(38, 9), pl.Float64(), pl.Int64()])
def test_a_key_that_is_a_number_is_sent_as_that_number(worlds: Worlds, receiver: Any, kind: pl.DataType) -> None:
    url = f"http://127.0.0.1:{receiver.server_port}/hook"
    world = worlds(f"webhook: {{url: '{url}', source: accounts, key: account_id, properties: {{size: size}}}}")
    rows = accounts().with_columns(account_id=pl.Series([17, 4503599627370497, 9], dtype=pl.Int64).cast(kind))
    world.write("warehouse/accounts", DAY, rows)
    assert send(world, "webhook").report.sent == 3
    assert {row["key"] for _, body in receiver.got for row in body["rows"]} == {"17", "4503599627370497", "9"}


def test_a_hold_names_the_key_of_its_own_sync(worlds: Worlds, receiver: Any) -> None:
    url = f"http://127.0.0.1:{receiver.server_port}/hook"
    world = worlds(f"webhook: {{url: '{url}', key: crm_id, properties: {{plan: plan}}}}")
    world.write("warehouse/contacts", DAY, contacts().filter(pl.col("contact_id") != "c-cat"))
    world.resolve(DAY)
    sent = send(world, "webhook").report
    assert (sent.sent, sent.held_reasons) == (3, {"the profile has no crm_id yet": 1})


def test_a_destination_that_no_package_has_is_named(worlds: Worlds) -> None:
    world = worlds("acme: {kind: custom, destination: acme_crm, properties: {plan: plan}}")
    with pytest.raises(SettingsError, match="'acme_crm' is not known"):
        send(world, "acme")


def test_a_destination_of_ones_own_is_installed_like_any_package(
    worlds: Worlds, receiver: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = tmp_path / "site/acme_crm-1.0.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-crm\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[heap_assets.activation]\nacme_crm = acme_crm:Acme\n")
    (facts.parent / "acme_crm.py").write_text(_ACME)
    monkeypatch.syspath_prepend(str(facts.parent))
    world = worlds(
        "acme: {kind: custom, destination: acme_crm, key: crm_id, properties: {plan: plan}, "
        f"options: {{url: 'http://127.0.0.1:{receiver.server_port}/acme'}}}}"
    )
    assert world.run(["sync/acme"], DAY).success
    contacts = [contact for _, body in receiver.got for contact in body["contacts"]]
    assert {contact["crm"] for contact in contacts} == {"c-ann", "c-bob", "c-cat", "c-dan"}
    assert send(world, "acme").report.requests == 0


def test_each_table_keeps_its_runs(worlds: Worlds, segment: ServerProcess) -> None:
    world = worlds(track(segment, ", tables: [signup], columns: [plan]"))
    send(world, "segment_track")
    [ledger] = connector_of(world.project, "segment_track").specs()
    assert runs(world.lake.store, ledger.name)["sent"].to_list() == [3]
