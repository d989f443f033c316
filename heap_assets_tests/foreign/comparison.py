"""Holds what a deployment made against the truth of the foreign company: rows, people, traits, checks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl

from heap_assets.identity import Quality, quality
from heap_assets_tests.foreign.company import ForeignCompany
from heap_assets_tests.foreign.heap_export import EVENTS
from heap_assets_tests.foreign.warehouse import INFINITY

Row = Mapping[str, Any]
_TIMES = ("time", "joindate", "last_modified")
_USERS_OWN = {"migrated_to", "resolved_to", "cycle"}
"""Columns that the platform adds to Heap's tables of users."""
_NOT_KEPT = (INFINITY, "24:00:00")
"""Values that no column of the lake's types can hold: null there, and counted by the check `values_kept`."""
RENAMED = {"migrated_to": "property_migrated_to"}
"""A customer's user property called like a column of the platform's."""


def heap_rows(company: ForeignCompany, lake: Path, day: date) -> dict[str, str]:
    """Compare every Heap table with its truth; return table to what differs, empty where all rows are equal."""
    differences = {}
    for table, rows in company.heap.rows.items():
        is_event = table in EVENTS
        folder = lake / "heap" / ("" if table in ("pageviews", "users", "user_migrations") else "events") / table
        pattern = "*.parquet" if is_event else f"{day}.parquet"
        frame = pl.concat([pl.read_parquet(p) for p in sorted(folder.glob(pattern))], how="diagonal_relaxed")
        own = frozenset() if is_event else _USERS_OWN
        actual = [_landed(row, own) for row in frame.iter_rows(named=True)]
        expected = [_exported(row, table) for row in rows.values()]
        if difference := _difference(expected, actual):
            differences[table] = difference
    return differences


def warehouse_rows(company: ForeignCompany, lake: Path, day: date) -> dict[str, str]:
    """Compare every warehouse table of a day with its truth; return table to what differs."""
    differences = {}
    for table, rows in company.warehouse.rows.items():
        frame = pl.read_parquet(lake / "warehouse" / table / f"{day}.parquet")
        actual = [_canonical(row) for row in frame.iter_rows(named=True)]
        if difference := _difference([_canonical(row) for row in rows.values()], actual):
            differences[table] = difference
    return differences


def people(company: ForeignCompany, lake: Path, day: date) -> Quality:
    """Measure the graph of a day against the groups that the data joins; shared inboxes are nobody's."""
    truth = [
        (kind, value, str(number)) for number, group in enumerate(company.groups()) for kind, value in sorted(group)
    ]
    graph = pl.scan_parquet(lake / "identity" / "graph" / f"{day}.parquet")
    schema = {"identifier_type": pl.String, "identifier": pl.String, "person": pl.String}
    return quality(graph.filter(~pl.col("shared")), pl.LazyFrame(truth, schema=schema, orient="row"))


def expected_at_heap(company: ForeignCompany, properties: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return Heap identity to the properties that it must have."""
    expected = {}
    for group in company.groups():
        traits = company.traits(group)
        values = {name: _plain(traits[trait]) for name, trait in properties.items() if trait in traits}
        for kind, identity in group:
            if kind == "heap_identity" and values:
                expected[identity] = values
    return expected


def sent_to_heap(users: Mapping[str, Mapping[str, Any]], properties: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return Heap identity to what the local Heap has of these properties; users without any are left out."""
    names = set(properties)
    stored = {
        identity: {name: _plain(value) for name, value in user["properties"].items() if name in names}
        for identity, user in users.items()
    }
    return {identity: values for identity, values in stored.items() if values}


def _difference(expected: list[str], actual: list[str]) -> str:
    missing, unexpected = set(expected) - set(actual), set(actual) - set(expected)
    if not missing and not unexpected and len(expected) == len(actual):
        return ""
    return (
        f"{len(expected)} rows expected, {len(actual)} in the lake; {len(missing)} missing, such as "
        f"{min(missing, default='')}; {len(unexpected)} that should not be there, such as {min(unexpected, default='')}"
    )


def _exported(row: Row, table: str) -> str:
    """Spell an exported row as its table must hold it."""
    renamed = {RENAMED.get(name, name) if table == "users" else name: value for name, value in row.items()}
    timed = {name: _utc(value) if _is_time(name, table) else value for name, value in renamed.items()}
    return _canonical(timed)


def _is_time(name: str, table: str) -> bool:
    return name == "time" or (table == "users" and name in _TIMES)


def _landed(row: Row, own: frozenset[str] | set[str]) -> str:
    """Spell a row of the lake: a value under `<column>__<type>` is one of its column."""
    values: dict[str, Any] = {}
    for name, value in row.items():
        if value is None or name in own:
            continue
        base, _, _ = name.rpartition("__")
        values[base or name] = value
    return _canonical(values)


def _canonical(row: Row) -> str:
    filled = {name: _plain(value) for name, value in row.items()}
    return json.dumps({k: v for k, v in filled.items() if v is not None}, sort_keys=True, ensure_ascii=False)


def _plain(value: Any) -> Any:
    """Give equal values one spelling: numbers, moments, durations, documents."""
    if value is None or value in _NOT_KEPT:
        return None
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float | Decimal):
        return _number(Decimal(str(value)))
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC).isoformat()
    if isinstance(value, date | time_of_day):
        return value.isoformat()
    if isinstance(value, timedelta):
        return f"{value.days} days {timedelta(seconds=value.seconds)!s:0>8}"
    if isinstance(value, dict | list):
        return json.dumps(value, sort_keys=True)
    text = str(value)
    return json.dumps(json.loads(text), sort_keys=True) if text.startswith(("[", "{")) else text


def _number(value: Decimal) -> str:
    return format(value.normalize(), "f")


def _utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
