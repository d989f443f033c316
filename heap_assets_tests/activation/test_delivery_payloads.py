"""Golden payloads: what goes over the wire for every kind of request, byte for byte of its JSON.

The Heap bodies follow developers.heap.io (heap.md 1.2, 1.3, 1.5, 1.6, 1.7), the Segment ones its HTTP API (heap.md 5).
"""

from __future__ import annotations

import base64
import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import delivery_kit as kit
import polars as pl
import pytest

from heap_assets.activation import BaseDestination, Row
from heap_assets.activation.connectors.heap import HeapApp
from heap_assets.activation.connectors.heap_account_properties import HeapAccountProperties
from heap_assets.activation.connectors.heap_events import HeapEvents
from heap_assets.activation.connectors.heap_identify import HeapIdentify
from heap_assets.activation.connectors.heap_user_properties import HeapUserProperties
from heap_assets.activation.connectors.segment import SegmentSource
from heap_assets.activation.connectors.segment_group import SegmentGroup
from heap_assets.activation.connectors.segment_identify import SegmentIdentify
from heap_assets.activation.connectors.segment_reidentify import SegmentReidentify
from heap_assets.activation.connectors.segment_track.rows import SegmentTrack
from heap_assets.activation.connectors.webhook import Webhook, WebhookSettings

GOLDEN = Path(__file__).with_name("golden")
APP, EU = HeapApp("11"), HeapApp("11", "eu")
SOURCE = SegmentSource("wk", "eu")
VALUES = {"Plan": "pro", "Seats": 12, "MRR": 99.5, "Active": True, "Left": None}
ALICE = Row("alice@example.com", "alice@example.com", VALUES, {"fence": 3, "row_hash": 77})
BOB = Row("bob@example.com", "bob@example.com", {"Plan": "free"}, {"fence": 3, "row_hash": 78})
PAID = Row(
    "order-1",
    "alice@example.com",
    {"Total": 12.5, "Gift": False},
    {"event": "Order Placed", "time": "2026-11-19T08:00:00.000Z"},
)
ANONYMOUS = Row("7", None, {"plan": "pro"}, {"event": "Signed Up", "anonymous_id": "heap|11|42"})  # type: ignore[arg-type]
PAIR = Row("1847839267195673\x1falice@example.com", "alice@example.com", {}, {"user_id": "1847839267195673"})
GROUP = Row(
    "acme", "acme", {"name": "Acme", "seats": None}, {"user_id": "alice@example.com", "fence": 3, "row_hash": 9}
)
BOTH = Row("5>ann", "ann", {}, {"anonymous_id": "heap|11|5"})

CASES: dict[str, tuple[BaseDestination, list[Row]]] = {
    "heap_user_properties_bulk": (HeapUserProperties(APP), [ALICE, BOB]),
    "heap_user_properties_single": (HeapUserProperties(EU, bulk=False), [ALICE]),
    "heap_account_properties_bulk": (
        HeapAccountProperties(APP, account_id_configured=True, users_synced=lambda: True),
        [Row("Fake Company", "Fake Company", {"is_in_good_standing": True, "revenue_potential": 123456})],
    ),
    "heap_track_bulk": (
        HeapEvents(APP, source="orders"),
        [PAID, Row("order-2", "bob@example.com", {}, {"event": "X"})],
    ),
    "heap_track_single": (HeapEvents(EU, source="orders", bulk=False), [PAID]),
    "heap_identify": (HeapIdentify(APP, enabled=True), [PAIR]),
    "segment_track": (SegmentTrack(SOURCE, table="signed_up"), [ANONYMOUS, PAID]),
    "segment_identify": (SegmentIdentify(SOURCE), [ALICE]),
    "segment_reidentify": (SegmentReidentify(SOURCE), [BOTH]),
    "segment_group": (SegmentGroup(SOURCE), [GROUP]),
    "webhook_upsert": (Webhook(WebhookSettings("https://example.com/in"), name="crm"), [ALICE, BOB]),
}


def payload(destination: BaseDestination, rows: list[Row]) -> dict[str, Any]:
    elements = [
        json.dumps(destination.element(row), ensure_ascii=False, separators=(",", ":")).encode() for row in rows
    ]
    request = destination.request(elements, rows)
    return {
        "method": request.method,
        "url": request.url,
        "headers": dict(request.headers),
        "body": json.loads(request.body),
    }


@pytest.mark.parametrize("name", CASES)
def test_the_request_is_the_golden_one(name: str) -> None:
    path = GOLDEN / f"{name}.json"
    made = json.dumps(payload(*CASES[name]), indent=2, ensure_ascii=False) + "\n"
    assert path.exists(), f"{path} is missing; what would be sent now:\n{made}"
    assert made == path.read_text()


def test_there_is_no_golden_payload_that_nothing_makes() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(CASES)


def test_segment_is_authorised_by_the_write_key() -> None:
    headers = payload(*CASES["segment_track"])["headers"]
    assert base64.b64decode(headers["Authorization"].removeprefix("Basic ")) == b"wk:"


def test_the_documented_example_of_bulk_user_properties_is_what_we_send() -> None:
    """heap.md 1.5, the bulk example of developers.heap.io, apart from our properties."""
    made = payload(HeapUserProperties(HeapApp("12345")), [BOB])
    assert made["url"] == "https://heapanalytics.com/api/add_user_properties"
    assert made["body"] == {
        "app_id": "12345",
        "users": [{"identity": "bob@example.com", "properties": {"Plan": "free"}}],
    }


def test_dates_of_a_row_are_iso(tmp_path: Path) -> None:
    from heap_assets.activation.engine.canonical import property_columns

    rows = pl.LazyFrame({"key": ["a"], "d": [date(2026, 1, 2)], "t": [datetime(2026, 1, 2, 3, tzinfo=UTC)]})
    columns = property_columns(kit.spec(properties={"d": "d", "t": "t"}), rows)
    row = rows.select(value.alias(name) for name, (value, _) in columns.items()).collect().row(0)
    assert row == ("2026-01-02", "2026-01-02T03:00:00.000Z")
