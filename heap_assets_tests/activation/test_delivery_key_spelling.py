"""A key that is a number stays one person, whatever type its column has, and however a former release spelled it.

The destination here compares keys as numbers: a withdrawal of `17.0` that came after `17` was sent would empty it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import delivery_kit as kit
import httpx
import polars as pl
import pytest

from heap_assets.activation import Mode, Status, SyncReport, SyncSpec, deliver, forget
from heap_assets.activation.connectors.webhook import Webhook, WebhookSettings
from heap_assets.activation.engine.event_keys import EventKey
from heap_assets.activation.engine.events import EventMapping, event_rows
from heap_assets.activation.engine.http_client import Transport
from heap_assets.storage import Store
from heap_assets.values import key_text, number_key

Refuses = Callable[[dict[str, Any]], bool]
COUNT = 40


class Numeric(httpx.BaseTransport):
    """A receiver whose records are keyed by numbers; it keeps the keys in the order in which they came."""

    def __init__(self) -> None:
        self.records: dict[float, dict[str, Any]] = {}
        self.keys: list[str] = []
        self.refuses: Refuses = lambda _row: False

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        rows = json.loads(request.read())["rows"]
        errors = [{"index": n, "message": "no"} for n, row in enumerate(rows) if self.refuses(row)]
        for row in [row for row in rows if not self.refuses(row)]:
            self.keys.append(row["key"])
            record = self.records.setdefault(float(row["key"]), {})
            record |= row["properties"]
        return httpx.Response(200, json={"errors": errors})


@pytest.fixture
def receiver() -> Numeric:
    return Numeric()


def send(lake: Store, receiver: Numeric, keys: pl.Series, mode: Mode = Mode.UPSERT) -> SyncReport:
    rows = pl.DataFrame({"key": keys, "event_key": keys, "plan": [f"plan {n}" for n in range(len(keys))]})
    hook = Webhook(WebhookSettings("https://hooks.example/in", batch_rows=3), name="hook", mode=mode)
    spec = SyncSpec("hook", {"Plan": "plan"}, retry=kit.QUICK, broken_share=1.0)
    wire = Transport(wire=receiver)
    return deliver(spec, hook, rows.lazy(), lake, kit.DAY, "run", confirmed=True, transport=wire)


def spelled(kind: pl.DataType) -> pl.Series:
    """Keys as a sync has them of a column of this type."""
    numbers = pl.Series("key", range(1, COUNT + 1)).cast(kind)
    return numbers.to_frame().select(key_text(pl.col("key"), kind))["key"]


FORMER = pl.Series("key", range(1, COUNT + 1)).cast(pl.Float64).cast(pl.String)
EXPECTED = {float(n + 1): {"Plan": f"plan {n}"} for n in range(COUNT)}


def test_a_column_that_changes_its_type_sends_nothing(lake: Store, receiver: Numeric) -> None:
    assert send(lake, receiver, spelled(pl.Float64())).sent == COUNT
    for kind in (pl.Int64(), pl.Decimal(18, 4), pl.Int32()):
        assert send(lake, receiver, spelled(kind)).requests == 0


def test_what_a_former_release_spelled_otherwise_is_withdrawn_before_it_is_sent_anew(
    lake: Store, receiver: Numeric
) -> None:
    send(lake, receiver, FORMER)
    receiver.keys.clear()
    report = send(lake, receiver, spelled(pl.Int64()))
    assert (report.status, report.planned, report.sent) == (Status.SUCCEEDED, 2 * COUNT, 2 * COUNT)
    assert {*receiver.keys[:COUNT]} == {*FORMER}
    assert receiver.records == EXPECTED
    assert send(lake, receiver, spelled(pl.Int64())).requests == 0


def test_a_number_waits_until_its_former_spelling_was_withdrawn(lake: Store, receiver: Numeric) -> None:
    send(lake, receiver, FORMER)
    receiver.refuses = lambda row: row["key"] == "7.0"
    report = send(lake, receiver, spelled(pl.Int64()))
    assert (report.status, report.sent, report.rejected, report.aborted) == (Status.PARTIAL, COUNT - 1, 1, COUNT)
    receiver.refuses = lambda _row: False
    assert send(lake, receiver, spelled(pl.Int64())).status is Status.SUCCEEDED
    assert receiver.records == EXPECTED
    assert send(lake, receiver, spelled(pl.Int64())).requests == 0


def test_keys_that_only_look_alike_wait_for_nobody(lake: Store, receiver: Numeric) -> None:
    send(lake, receiver, pl.Series("key", ["1", "2"]))
    receiver.refuses = lambda row: row["key"] == "1"
    report = send(lake, receiver, pl.Series("key", ["2", "3"]))
    assert (report.sent, report.rejected, report.aborted) == (2, 1, 0)


def test_events_of_a_column_that_changes_its_type_are_sent_once(lake: Store, receiver: Numeric) -> None:
    mapping = EventMapping(EventKey(("order_id",)), "Ordered")
    for kind in (pl.Float64(), pl.Int64(), pl.Decimal(18, 4)):
        table = pl.LazyFrame({"order_id": pl.Series(range(1, COUNT + 1)).cast(kind)})
        keys = event_rows(table, mapping, ["order_id"]).collect()["event_key"].alias("key")
        assert keys.to_list() == spelled(kind).to_list()
        assert send(lake, receiver, keys, Mode.INSERT).sent == (COUNT if kind == pl.Float64() else 0)


def test_events_that_a_former_release_sent_are_not_sent_again(lake: Store, receiver: Numeric) -> None:
    send(lake, receiver, FORMER, Mode.INSERT)
    assert send(lake, receiver, spelled(pl.Int64()), Mode.INSERT).planned == 0


def test_versions_are_no_numbers(lake: Store, receiver: Numeric) -> None:
    send(lake, receiver, pl.Series("key", ["1.0", "2.0"]), Mode.INSERT)
    assert send(lake, receiver, pl.Series("key", ["1", "1.0", "2.0"]), Mode.INSERT).sent == 1


@pytest.mark.parametrize("former", ["17.0", "17.00", "17.000000000"])
def test_who_was_forgotten_stays_forgotten_in_every_spelling(lake: Store, receiver: Numeric, former: str) -> None:
    send(lake, receiver, pl.Series("key", [former, "18.0"]))
    spec = SyncSpec("hook", {"Plan": "plan"})
    assert forget(lake, spec, former, "by hand") == 1
    receiver.keys.clear()
    assert send(lake, receiver, pl.Series("key", ["17", "18"])).held == 1
    assert "17" not in receiver.keys


def test_a_number_is_forgotten_however_the_ledger_spells_it(lake: Store, receiver: Numeric) -> None:
    others = ["017", "17.01", "17.5", "18.0", "1.7e1"]
    send(lake, receiver, pl.Series("key", ["17.0", *others]))
    assert forget(lake, SyncSpec("hook", {"Plan": "plan"}), "17", "by hand") == 1
    assert sorted(kit.ledger(lake, "hook")["key"]) == sorted(others), "texts that only look alike are other people's"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *(("17.0", "17"), ("17.000000000", "17"), ("0017", "17"), ("+17", "17"), ("1.7e1", "17"), ("100", "100")),
        *(("-0.0", "0"), ("000", "0"), ("0.50", "0.5"), ("1e16", "10000000000000000"), ("-5.0", "-5")),
        *(("90071992547409931", "90071992547409931"), ("ann", None), ("17 ", None), ("٣", None), ("", None)),
        *(("1.", None), ("0x1F", None), ("nan", None), ("1.2.3", None)),
    ],
)
def test_a_number_is_one_text(text: str, number: str | None) -> None:
    assert pl.select(number_key(pl.lit(text))).item() == number
