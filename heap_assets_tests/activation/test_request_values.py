"""Rows with values of every type of the lake, through the engine and each vendor's request, read back from it."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import delivery_kit as kit
import httpx
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_canonical import DTYPES, says

from heap_assets.activation import BaseDestination, SyncSpec, deliver
from heap_assets.activation.connectors.heap import HeapApp
from heap_assets.activation.connectors.heap_account_properties import HeapAccountProperties
from heap_assets.activation.connectors.heap_events import HeapEvents
from heap_assets.activation.connectors.heap_user_properties import HeapUserProperties
from heap_assets.activation.connectors.segment import SegmentSource
from heap_assets.activation.connectors.segment_group import SegmentGroup
from heap_assets.activation.connectors.segment_identify import SegmentIdentify
from heap_assets.activation.connectors.segment_track.rows import SegmentTrack
from heap_assets.activation.connectors.webhook import Webhook, WebhookSettings
from heap_assets.activation.engine.http_client import Transport
from heap_assets.activation.engine.spec import Mode

APP, SOURCE = HeapApp(kit.APP), SegmentSource("wk")
HOOK = WebhookSettings("https://hooks.example/in")
CONNECTORS: dict[str, Callable[[], BaseDestination]] = {
    "heap users": lambda: HeapUserProperties(APP),
    "heap users one by one": lambda: HeapUserProperties(APP, bulk=False),
    "heap accounts": lambda: HeapAccountProperties(APP, account_id_configured=True, users_synced=lambda: True),
    "heap track": lambda: HeapEvents(APP, source="orders"),
    "segment identify": lambda: SegmentIdentify(SOURCE),
    "segment group": lambda: SegmentGroup(SOURCE),
    "segment track": lambda: SegmentTrack(SOURCE, table="paid"),
    "webhook": lambda: Webhook(HOOK, name="hook"),
    "webhook of events": lambda: Webhook(HOOK, name="hook", mode=Mode.INSERT),
}
SOLID = [(dtype, values) for dtype, values in DTYPES if dtype != pl.String]
"""Blank text, and `||` inside a text of a list, are other tests' matter."""
TEXT = st.text(st.characters(exclude_categories=["Cs", "Zs", "Cc"], exclude_characters="|"), min_size=1, max_size=6)
LISTED = [(dtype, values) for dtype, values in [*SOLID, (pl.String(), TEXT)] if dtype != pl.Binary]


class Recorder(httpx.BaseTransport):
    """Takes everything and keeps what it was sent."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.bodies.append(request.read())
        return httpx.Response(200, json={})


def sent(destination: BaseDestination, columns: dict[str, pl.Series]) -> tuple[dict[str, dict[str, Any]], int]:
    """Return the properties by key, every number with the digits that stand in the request; and the rows left out."""
    count = len(next(iter(columns.values())))
    keys = [f"u{n}@x.example" for n in range(count)]
    rows = pl.DataFrame({"key": keys, "event_key": keys, "event": ["Paid"] * count, "user_id": keys, **columns})
    recorder = Recorder()
    with tempfile.TemporaryDirectory() as folder:
        spec = SyncSpec("sync", {name: name for name in columns})
        wire = Transport(wire=recorder)
        report = deliver(spec, destination, rows.lazy(), kit.Store(folder), kit.DAY, "run", transport=wire)
    found: dict[str, dict[str, Any]] = {}
    for body in recorder.bodies:
        document = json.loads(body, parse_int=Decimal, parse_float=Decimal, parse_constant=_no_json)
        found |= {_key_of(element): _values_of(element) for element in _elements(document)}
    return found, report.invalid


def _no_json(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def _elements(document: Any) -> Iterator[dict[str, Any]]:
    for part in document if isinstance(document, list) else [document]:
        lists = [value for value in part.values() if isinstance(value, list)]
        yield from lists[0] if lists else [part]


def _values_of(element: dict[str, Any]) -> dict[str, Any]:
    return next(dict(element[name]) for name in ("properties", "traits") if name in element)


def _key_of(element: dict[str, Any]) -> str:
    return str(
        next(element[name] for name in ("identity", "account_id", "groupId", "userId", "key") if name in element)
    )


@pytest.mark.parametrize("connector", CONNECTORS)
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data(), count=st.integers(1, 4))
def test_every_value_arrives_exactly_or_as_text(connector: str, data: st.DataObject, count: int) -> None:
    drawn: dict[str, tuple[pl.DataType, list[Any]]] = {}
    for number, (dtype, values) in enumerate([*SOLID, (pl.String(), TEXT)]):
        drawn[f"p{number}"] = dtype, data.draw(st.lists(values, min_size=count, max_size=count))
    lists = [(dtype, data.draw(st.lists(values, min_size=1, max_size=3))) for dtype, values in LISTED]
    columns = {name: pl.Series(name, values, dtype, strict=False) for name, (dtype, values) in drawn.items()}
    columns |= {
        f"l{n}": pl.Series([values] * count, dtype=pl.List(dtype), strict=False)
        for n, (dtype, values) in enumerate(lists)
    }
    columns |= {f"s{name}": column.to_frame("x").to_struct() for name, column in columns.items() if name[0] == "p"}
    found, left_out = sent(CONNECTORS[connector](), columns)
    assert (len(found), left_out) == (count, 0)
    at_heap = connector.startswith("heap")
    for row in range(count):
        properties = found[f"u{row}@x.example"]
        for name, (dtype, values) in drawn.items():
            assert _arrived(properties[name], values[row], dtype, spelled=at_heap)
            assert _arrived(properties[f"s{name}.x"], values[row], dtype, spelled=at_heap)
        for number, (dtype, values) in enumerate(lists):
            parts = str(properties[f"l{number}"]).split("||")
            assert len(parts) == len(values)
            assert all(_arrived(part, value, dtype, spelled=True) for part, value in zip(parts, values, strict=True))


def _arrived(shown: Any, value: Any, dtype: pl.DataType, *, spelled: bool) -> bool:
    """Whether a value is in a request; truth values are text (`spelled`) at Heap, and in lists."""
    return shown == str(value).lower() if spelled and isinstance(value, bool) else says(shown, value, dtype)


@pytest.mark.parametrize("connector", CONNECTORS)
def test_a_row_with_a_number_that_json_lacks_is_left_out_and_counted(connector: str) -> None:
    values = pl.Series([1.5, math.nan, math.inf, -math.inf, None])
    found, left_out = sent(CONNECTORS[connector](), {"x": values, "plan": pl.Series(["pro"] * 5)})
    assert left_out == 3
    assert {key: properties.get("x") for key, properties in found.items()} == {
        "u0@x.example": Decimal("1.5"),
        "u4@x.example": None,
    }
