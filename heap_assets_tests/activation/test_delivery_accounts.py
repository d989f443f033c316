"""What one address and account acknowledged says nothing of another; ledgers from before that was kept apart go on."""

from __future__ import annotations

import zipfile
from datetime import date
from pathlib import Path

import delivery_kit as kit
import httpx
import polars as pl
import pytest

from heap_assets.activation import (
    BaseDestination,
    LeaseHeldError,
    Mode,
    Row,
    Status,
    SyncReport,
    SyncSpec,
    deliver,
    dry_run,
    forget,
    retry_rejected,
    runs,
)
from heap_assets.activation.connectors.heap import HeapApp
from heap_assets.activation.connectors.heap_events import HeapEvents
from heap_assets.activation.connectors.heap_user_properties import HeapUserProperties
from heap_assets.activation.connectors.segment import SegmentSource
from heap_assets.activation.connectors.segment_identify import SegmentIdentify
from heap_assets.activation.connectors.webhook import Webhook, WebhookSettings
from heap_assets.activation.engine.http_client import Transport
from heap_assets.activation.engine.lease import Lease
from heap_assets.errors import DeliveryError
from heap_assets.storage import Store

OLD = Path(__file__).parent / "golden" / "ledgers_before_accounts.zip"
PEOPLE = [f"u{n}@x.example" for n in range(5)]
USERS = pl.DataFrame(
    {"key": PEOPLE, "plan": ["pro", "free", None, "pro", "team"], "seats": [1, 2, 3, None, 5]},
    schema_overrides={"seats": pl.Int64},
)
EVENTS = pl.DataFrame(
    {
        "key": PEOPLE,
        "event_key": [f"order-{n}" for n in range(5)],
        "event": ["Paid"] * 5,
        "time": ["2026-11-19T10:00:00.000Z"] * 5,
        "plan": ["pro"] * 5,
    }
)
BOTH = {"Plan": "plan", "Seats": "seats"}
PLAN = {"Plan": "plan"}
DAY = date(2026, 11, 20)


class Accepting(httpx.BaseTransport):
    """Takes everything, and keeps the addresses."""

    def __init__(self) -> None:
        self.addresses: list[str] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.addresses.append(str(request.url))
        return httpx.Response(200, json={})


def users(app: str = "4711", url: str | None = None) -> HeapUserProperties:
    return HeapUserProperties(HeapApp(app, base_url=url))


def hook(url: str, mode: Mode = Mode.INSERT) -> Webhook:
    return Webhook(WebhookSettings(url), name="hook", mode=mode)


def send(
    lake: Store, destination: BaseDestination, rows: pl.DataFrame, mapping: dict[str, str], name: str = "sync"
) -> SyncReport:
    wire = Transport(wire=Accepting())
    return deliver(SyncSpec(name, mapping), destination, rows.lazy(), lake, DAY, "run", transport=wire)


KINDS = {
    "users": (users(), USERS, BOTH),
    "events": (HeapEvents(HeapApp("4711"), source="orders"), EVENTS, PLAN),
    "identify": (SegmentIdentify(SegmentSource("wk-old")), USERS, BOTH),
    "hook": (hook("https://hooks.example/in/7?token=abc"), EVENTS, PLAN),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_ledger_of_an_older_version_goes_on_and_nothing_is_sent_again(name: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(OLD) as packed:
        packed.extractall(tmp_path)
    lake = Store(str(tmp_path))
    destination, rows, mapping = KINDS[name]
    report = send(lake, destination, rows, mapping, name)
    assert (report.status, report.requests, report.planned) == (Status.SUCCEEDED, 0, 0)
    assert report.unchanged == len(rows)
    if "event_key" in rows.columns:
        new = rows.with_columns(event_key=pl.concat_str(pl.lit("new "), "event_key"))
    else:
        new = rows.with_columns(plan=pl.lit("other"))
    assert deliver(
        SyncSpec(name, mapping),
        destination,
        new.lazy(),
        lake,
        DAY,
        "run",
        confirmed=True,
        transport=Transport(wire=Accepting()),
    ).sent == len(rows)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (users(), users("4712")),
        (users(), users(url="https://heap.acme.example")),
        (users(), HeapUserProperties(HeapApp("4711", "eu"))),
        (SegmentIdentify(SegmentSource("wk")), SegmentIdentify(SegmentSource("wk2"))),
        (SegmentIdentify(SegmentSource("wk")), SegmentIdentify(SegmentSource("wk", "eu"))),
        (hook("https://h.example/a", Mode.UPSERT), hook("https://h.example/b", Mode.UPSERT)),
        (hook("https://h.example/a", Mode.UPSERT), hook("https://h.example:8443/a", Mode.UPSERT)),
        (hook("https://h.example/?list=1", Mode.UPSERT), hook("https://h.example/?list=2", Mode.UPSERT)),
    ],
)
def test_another_address_or_account_gets_everything(
    one: BaseDestination, other: BaseDestination, tmp_path: Path
) -> None:
    lake = kit.store(tmp_path)
    assert send(lake, one, USERS, BOTH).sent == len(USERS)
    assert send(lake, one, USERS, BOTH).requests == 0
    assert send(lake, other, USERS, BOTH).sent == len(USERS)
    assert send(lake, other, USERS, BOTH).requests == 0
    # the first one's ledger was kept: what it acknowledged it still has
    assert send(lake, one, USERS, BOTH).requests == 0


def test_events_go_to_another_account_too(tmp_path: Path) -> None:
    lake = kit.store(tmp_path)
    for app in ("1", "2"):
        destination = HeapEvents(HeapApp(app), source="orders")
        assert send(lake, destination, EVENTS, PLAN).sent == len(EVENTS)
        assert send(lake, destination, EVENTS, PLAN).requests == 0


def test_another_password_is_no_other_account(tmp_path: Path) -> None:
    lake = kit.store(tmp_path)
    assert send(lake, hook("https://h.example/in?token=1&list=3"), EVENTS, PLAN).sent == len(EVENTS)
    assert send(lake, hook("https://ann:pw@H.example/in/?list=3&token=2"), EVENTS, PLAN).requests == 0


def test_a_file_that_somebody_left_among_the_leases_stops_nothing(tmp_path: Path) -> None:
    lake = kit.store(tmp_path)
    send(lake, users("1"), USERS, BOTH)
    for name in ("notes.txt", "²²².json", f"{'9' * 200}.json"):
        lake.write(f"_sync/sync/lease/{name}", b"{}")
    report, _ = dry_run(SyncSpec("sync", BOTH), users("1"), USERS.lazy(), lake, DAY)
    assert (report.status, report.planned) == (Status.PLANNED, 0)
    assert send(lake, users("1"), USERS, BOTH).status is Status.SUCCEEDED


def test_a_dry_run_makes_no_ledger_an_accounts(tmp_path: Path) -> None:
    lake = kit.store(tmp_path)
    report, _ = dry_run(SyncSpec("sync", BOTH), users("1"), USERS.lazy(), lake, DAY)
    assert report.planned == len(USERS)
    send(lake, users("2"), USERS, BOTH)
    report, _ = dry_run(SyncSpec("sync", BOTH), users("2"), USERS.lazy(), lake, DAY)
    assert report.planned == 0
    report, _ = dry_run(SyncSpec("sync", BOTH), users("1"), USERS.lazy(), lake, DAY)
    assert report.planned == len(USERS)


def test_each_account_has_its_own_runs_and_lease(tmp_path: Path) -> None:
    lake = kit.store(tmp_path)
    send(lake, users("1"), USERS, BOTH)
    send(lake, users("2"), USERS.head(2), BOTH)
    others = {info.key.split("/")[1] for info in lake.list("_sync")} - {"sync", "salt"}
    assert len(others) == 1
    [other] = others
    assert runs(lake, "sync")["sent"].to_list() == [5]
    assert runs(lake, other)["sent"].to_list() == [2]
    with Lease(lake, other, "somebody", SyncSpec("sync").lease_ttl):
        assert send(lake, users("1"), USERS, BOTH).status is Status.SUCCEEDED
        with pytest.raises(LeaseHeldError):
            send(lake, users("2"), USERS, BOTH)
    retry_rejected(lake, SyncSpec("sync", BOTH, ledger=other), "run")


def test_a_forgotten_key_is_forgotten_at_every_account_that_was_and_that_will_be(tmp_path: Path) -> None:
    lake = kit.store(tmp_path)
    for app in ("1", "2"):
        send(lake, users(app), USERS, BOTH)
    assert forget(lake, SyncSpec("sync", PLAN), PEOPLE[0], "by hand")
    kept = b"".join(lake.read(info.key) for info in lake.list("_sync"))
    for name in {info.key.split("/")[1] for info in lake.list("_sync")} - {"salt"}:
        assert PEOPLE[0] not in kit.ledger(lake, name)["key"].to_list()
    assert PEOPLE[0].encode() not in kept
    for app in ("1", "2", "3"):
        send(lake, users(app), USERS, BOTH)
    for name in {info.key.split("/")[1] for info in lake.list("_sync")} - {"salt"}:
        assert PEOPLE[0] not in kit.ledger(lake, name)["key"].to_list()


def test_a_damaged_note_of_whose_ledger_it_is_is_named(tmp_path: Path) -> None:
    lake = kit.store(tmp_path)
    send(lake, users("1"), USERS, BOTH)
    lake.write("_sync/sync/destination.json", b"\0")
    with pytest.raises(DeliveryError, match=r"destination\.json is damaged"):
        send(lake, users("1"), USERS, BOTH)


def test_only_a_hash_of_the_account_is_kept(tmp_path: Path) -> None:
    lake = kit.store(tmp_path)
    for key in ("wk-canary-1", "wk-canary-2"):
        send(lake, SegmentIdentify(SegmentSource(key)), USERS, BOTH)
    assert not [i.key for i in lake.list("_sync") if b"wk-canary" in lake.read(i.key) or "wk-canary" in i.key]


def test_a_row_whose_values_cannot_be_written_stops_that_row_alone(tmp_path: Path) -> None:
    class Dividing(HeapUserProperties):
        def element(self, row: Row) -> dict[str, object]:
            return {
                **super().element(row),
                "share": 1 / (len(row.key) - len("u1@x.example")) if row.key[1] == "1" else 1,
            }

    lake = kit.store(tmp_path)
    report = send(lake, Dividing(HeapApp("1")), USERS, BOTH)
    assert (report.status, report.sent, report.rejected) == (Status.PARTIAL, len(USERS) - 1, 1)
    [reason] = report.rejections
    assert reason.startswith("cannot be written as a request: ZeroDivisionError")
