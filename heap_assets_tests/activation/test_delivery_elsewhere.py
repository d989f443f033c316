"""Accounts, webhooks, and destinations of one's own."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import EntryPoint, EntryPoints
from types import SimpleNamespace
from typing import Any

import delivery_kit as kit
import polars as pl
import pytest

from heap_assets.activation import (
    BaseDestination,
    Limits,
    Mode,
    Request,
    Response,
    Row,
    Status,
    SyncReport,
    SyncSpec,
    deliver,
)
from heap_assets.activation.connectors import custom
from heap_assets.activation.connectors.custom import CustomConnector, CustomSync, custom_destination
from heap_assets.activation.connectors.heap import HeapApp
from heap_assets.activation.connectors.heap_account_properties import HeapAccountProperties
from heap_assets.activation.connectors.webhook import Webhook, WebhookSettings
from heap_assets.demo.server_process import ServerProcess
from heap_assets.errors import SettingsError
from heap_assets.storage import Lake, Store

ACCOUNTS = pl.LazyFrame({"key": ["acme", "blank"], "mrr": [120.5, None]})


def accounts(heap: ServerProcess, lake: Store, **ready: bool) -> SyncReport:
    spec = SyncSpec("accounts", {"MRR": "mrr"}, retry=kit.QUICK)
    destination = HeapAccountProperties(HeapApp(kit.APP, base_url=heap.base_url), **ready)  # type: ignore[arg-type]
    return deliver(spec, destination, ACCOUNTS, lake, kit.DAY, "r")


def test_accounts_are_refused_until_heap_can_use_them(heap: ServerProcess, lake: Store) -> None:
    report = accounts(heap, lake, account_id_configured=False, users_synced=lambda: True)
    assert (report.status, kit.requests(heap)) == (Status.REFUSED, 0)
    assert "Account ID" in str(report.reason)
    report = accounts(heap, lake, account_id_configured=True, users_synced=lambda: False)
    assert report.status == Status.REFUSED
    assert "heap_user_properties" in str(report.reason)


def test_accounts_answer_in_plain_text(heap: ServerProcess, lake: Store) -> None:
    report = accounts(heap, lake, account_id_configured=True, users_synced=lambda: True)
    assert (report.status, report.sent, report.unchanged, report.empty) == (Status.SUCCEEDED, 1, 0, 1)
    assert heap.state()["accounts"] == {"acme": {"MRR": 120.5}}


class Receiver(ThreadingHTTPServer):
    """Somebody's webhook: remembers calls, refuses the rows it is told to."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.calls: list[tuple[Mapping[str, str], bytes]] = []
        self.refuse: frozenset[str] = frozenset()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/in?token=url-secret"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.calls.append((dict(self.headers), body))
        rows = json.loads(body)["rows"]
        errors = [
            {"index": n, "message": f"no {r['key']}"} for n, r in enumerate(rows) if r["key"] in self.server.refuse
        ]
        answer = json.dumps({"errors": errors} if errors else {}).encode()
        self.send_response(207 if errors else 200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_webhook_is_signed_and_its_rows_have_ids(receiver: Receiver, lake: Store) -> None:
    receiver.refuse = frozenset({"u1@x.example"})
    settings = WebhookSettings(receiver.url, secret="s3cret", headers={"X-Api-Key": "k"}, batch_rows=2)
    assert "url-secret" not in repr(settings)
    hook = Webhook(settings, name="crm")
    report = deliver(kit.spec(name="crm"), hook, kit.people(3).lazy(), lake, kit.DAY, "r")
    assert (report.sent, report.rejected, report.requests) == (2, 1, 2)
    assert report.rejections == {"HTTP 207: no •••": 1}
    for headers, body in receiver.calls:
        stamp, digest = (part.split("=")[1] for part in headers["X-Heap-Assets-Signature"].split(","))
        assert digest == hmac.new(b"s3cret", f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
        assert headers["X-Api-Key"] == "k"
        assert all(len(row["id"]) == 40 for row in json.loads(body)["rows"])


def test_a_webhook_in_insert_mode_sends_each_event_once(receiver: Receiver, lake: Store) -> None:
    rows = kit.people(3).with_columns(event_key=pl.format("e{}", "seats"), event=pl.lit("Paid")).lazy()
    hook = Webhook(WebhookSettings(receiver.url), name="crm", mode=Mode.INSERT)
    assert deliver(kit.spec(name="crm"), hook, rows, lake, kit.DAY, "r").sent == 3
    assert deliver(kit.spec(name="crm"), hook, rows, lake, kit.DAY, "r").requests == 0
    (call,) = receiver.calls
    assert json.loads(call[1])["rows"][0]["event"] == "Paid"


@pytest.mark.parametrize("url", ["ftp://x", "example.com/hook", ""])
def test_a_webhook_needs_an_http_address(url: str) -> None:
    with pytest.raises(SettingsError, match="http"):
        WebhookSettings(url)


class Mailing(BaseDestination):
    """What a user writes to send elsewhere: an element, a request, and how refusals read."""

    kind = "mailing"
    limits = Limits(batch_rows=2)

    def __init__(self, url: str) -> None:
        self.url = url

    def element(self, row: Row) -> Any:
        return {"key": row.key, **row.values}

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        return Request(self.url, b'{"rows":[' + b",".join(elements) + b"]}", method="POST")

    def rejections(self, response: Response, rows: Sequence[Row]) -> Mapping[int, str] | None:
        return {e["index"]: "unsubscribed" for e in json.loads(response.body).get("errors", [])}


def test_a_class_of_ones_own_gets_batching_retries_and_the_ledger(
    receiver: Receiver, lake: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = EntryPoint("mailing", f"{__name__}:Mailing", custom.GROUP)
    monkeypatch.setattr(custom, "entry_points", lambda group: EntryPoints([point]).select(group=group))
    mailing = custom_destination("mailing", url=receiver.url)
    receiver.refuse = frozenset({"u2@x.example"})
    report = deliver(kit.spec(name="mail"), mailing, kit.people(3).lazy(), lake, kit.DAY, "r")
    assert (report.sent, report.rejections) == (2, {"unsubscribed": 1})
    assert deliver(kit.spec(name="mail"), mailing, kit.people(2).lazy(), lake, kit.DAY, "r").requests == 0
    with pytest.raises(SettingsError, match="does not take these options"):
        custom_destination("mailing", address="x")


def test_an_unknown_kind_names_the_known_ones() -> None:
    with pytest.raises(SettingsError, match="heap_user_properties"):
        custom_destination("hubspt")


def test_a_destination_of_a_package_is_made_once(monkeypatch: pytest.MonkeyPatch, lake: Store) -> None:
    made: list[str] = []

    def make(url: str) -> Mailing:
        made.append(url)
        return Mailing(url)

    monkeypatch.setattr(EntryPoint, "load", lambda _: make)
    monkeypatch.setattr(custom, "entry_points", lambda group: EntryPoints([EntryPoint("mailing", "m:make", group)]))
    settings = CustomSync(destination="mailing", options={"url": "https://m.example"}, properties={"plan": "plan"})
    deployment: Any = SimpleNamespace(lake=Lake(lake), settings=SimpleNamespace(sync_tables={}))
    connector = CustomConnector("mail", settings, deployment)
    assert connector.unavailable(make=True) is None
    assert connector.mode is Mode.UPSERT
    assert connector.ledger_folder() == connector.spec().folder
    assert connector.destination() is connector.destination()
    assert made == ["https://m.example"]
