"""A tracking plan decides what may leave, and counts what it takes away."""

from __future__ import annotations

import json
from datetime import date, time
from decimal import Decimal

import polars as pl
import pytest

from heap_assets.activation.connectors.tracking_plan import TrackingPlan
from heap_assets.errors import SettingsError

PLAN = {
    "events": {
        "Signed Up": {
            "rename": "User Signed Up",
            "properties": {
                "plan": {"type": "string", "required": True},
                "seats": {"rename": "seat_count", "type": "integer"},
                "active": {"type": "boolean"},
            },
        }
    }
}
PROPERTIES = ("plan", "seats", "active", "extra")


def rows(**columns: list[object]) -> pl.LazyFrame:
    count = len(next(iter(columns.values())))
    blank = {name: [None] * count for name in PROPERTIES}
    head = {"key": ["ann"] * count, "event_key": [str(n) for n in range(count)], "event": ["Signed Up"] * count}
    return pl.LazyFrame({**head, **blank, **columns}, schema_overrides=dict.fromkeys(blank, pl.String), strict=False)


def plan(**choices: str) -> TrackingPlan:
    return TrackingPlan.from_json(json.dumps({**PLAN, **choices}))


def test_events_and_properties_are_renamed_and_converted() -> None:
    result = plan().apply(rows(plan=["pro"], seats=["12"], active=["Yes"]), PROPERTIES)
    record = result.rows.collect().row(0, named=True)
    assert record["event"] == "User Signed Up"
    assert (record["plan"], record["seat_count"], record["active"]) == ("pro", 12, True)
    assert "extra" not in record
    assert plan().names(PROPERTIES) == ["active", "plan", "seat_count"]
    assert result.counts == {}


CONVERSIONS: list[tuple[str, pl.Series, object]] = [
    ("number", pl.Series([2**53 + 1]), None),
    ("number", pl.Series([2**53]), 2.0**53),
    ("number", pl.Series([Decimal("12345678901234567.89")]), None),
    ("number", pl.Series([Decimal("1.50")]), 1.5),
    ("number", pl.Series(["9007199254740993"]), None),
    ("number", pl.Series(["9007199254740992"]), 2.0**53),
    ("number", pl.Series(["0.12345678901234567891"]), None),
    ("number", pl.Series(["1e300"]), 1e300),
    ("integer", pl.Series([Decimal("1.50")]), None),
    ("integer", pl.Series([Decimal("2.00")]), 2),
    ("integer", pl.Series([1.5]), None),
    ("integer", pl.Series([2.0**63]), None),
    ("integer", pl.Series([2**64 - 1], dtype=pl.UInt64), None),
    ("integer", pl.Series([date(2026, 1, 1)]), None),
    ("number", pl.Series([time(1)]), None),
    ("string", pl.Series([{"a": Decimal("1.10")}]), '{"a":1.10}'),
    ("string", pl.Series([b"\xff"]), "/w=="),
    ("boolean", pl.Series([[True]]), None),
]


@pytest.mark.parametrize(("kind", "values", "value"), CONVERSIONS, ids=[f"{k}-{v.item()}" for k, v, _ in CONVERSIONS])
def test_a_value_is_converted_exactly_or_is_a_violation(kind: str, values: pl.Series, value: object) -> None:
    planned = {"on_violation": "drop_property", "events": {"Signed Up": {"properties": {"x": {"type": kind}}}}}
    given = rows(plan=[None]).drop(PROPERTIES).with_columns(values.alias("x"))
    result = TrackingPlan.from_json(json.dumps(planned)).apply(given, ("x",))
    assert result.rows.collect()["x"].to_list() == [value]
    assert sum(result.counts.values()) == (1 if value is None else 0)


@pytest.mark.parametrize(
    ("amounts", "sent"),
    [(["7", "2.5"], [7.0, 2.5]), (["9007199254740993", "2.5"], ["9007199254740993", "2.5"])],
)
def test_a_property_of_two_types_keeps_every_value(amounts: list[str], sent: list[object]) -> None:
    events = {
        name: {"properties": {"amount": {"type": kind}}} for name, kind in (("Bought", "integer"), ("Sold", "number"))
    }
    given = rows(plan=[None, None], event=["Bought", "Sold"]).drop(PROPERTIES).with_columns(amount=pl.Series(amounts))
    result = TrackingPlan.from_json(json.dumps({"events": events})).apply(given, ("amount",))
    assert result.rows.collect()["amount"].to_list() == sent


def test_an_unplanned_property_is_dropped_and_counted() -> None:
    result = plan().apply(rows(plan=["pro", "pro"], extra=["x", None]), PROPERTIES)
    assert "extra" not in result.rows.collect().columns
    assert result.counts == {"event Signed Up: extra is not planned, drop_property": 1}


def test_an_unplanned_event_is_blocked_and_counted() -> None:
    given = rows(plan=["pro", "pro"], event=["Signed Up", "Typo"])
    result = plan().apply(given, PROPERTIES)
    assert len(result.rows.collect()) == 1
    assert result.invalid is None
    assert result.counts == {"event Typo: not planned, block_event": 1}


@pytest.mark.parametrize(
    ("choice", "sent", "invalid"), [("reject_row", 1, 2), ("block_event", 1, 0), ("drop_property", 3, 0)]
)
def test_a_violation_rejects_the_row_blocks_the_event_or_drops_the_property(
    choice: str, sent: int, invalid: int
) -> None:
    given = rows(plan=["pro", None, "pro"], seats=["1", "2", "many"])
    result = plan(on_violation=choice).apply(given, PROPERTIES)
    assert len(result.rows.collect()) == sent
    assert (0 if result.invalid is None else len(result.invalid.collect())) == invalid
    assert sum(result.counts.values()) == 2


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("{", "not JSON"),
        ('{"events": {"A": {}, "A": {}}}', "the key 'A' stands twice"),
        ('{"a": ' + "[" * 100_000, "not JSON|too deeply"),
        ('{"evnts": {}}', "'evnts'"),
        ('{"events": {"A": {"properties": {"p": {"type": "text"}}}}}', r"events\['A'\].properties\['p'\].type"),
        ('{"on_violation": "ignore"}', "on_violation"),
    ],
)
def test_a_mistake_in_the_plan_says_where(text: str, where: str) -> None:
    with pytest.raises(SettingsError, match=where):
        TrackingPlan.from_json(text)
