"""Optimizely's connectors pass the shared suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from heap_assets.activation import Mode
from heap_assets_tests.connectors.servers.core import VendorServer
from heap_assets_tests.connectors.servers.optimizely import OptimizelyDataPlatform
from heap_assets_tests.connectors.suite import ConnectorSuite, Row

KEY = "platform-key-4711"
_ACCOUNT = "base_url: {url}\napi_key: ${OPTIMIZELY_KEY}\n"


class _Optimizely(ConnectorSuite):
    secrets = {"OPTIMIZELY_KEY": KEY}
    schema: Mapping[str, Any] = {"id": pl.String, "plan_name": pl.String, "pql_score": pl.Float64, "pql": pl.Boolean}
    renews = False
    many = 1_100

    def make_server(self) -> OptimizelyDataPlatform:
        return OptimizelyDataPlatform(key=KEY, fields=frozenset(("plan", "score", "is_pql")))

    def row(self, number: int, version: int = 0) -> Row:
        return {
            "id": f"person{number}@x.example",
            "plan_name": f"plan-{number % 3}-{version}",
            "pql_score": number + 0.5,
            "pql": number % 2 == 0,
        }

    def beyond_limits(self) -> Sequence[Row]:
        return [{**self.row(2_000), "id": "Anonymous"}]

    def at_limits(self) -> Sequence[Row]:
        return self.rows(500)


class TestOptimizelyProfiles(_Optimizely):
    """Profiles."""

    settings = (
        "kind: optimizely_profiles\nidentifier: email\n"
        + _ACCOUNT
        + "properties: {plan: plan_name, score: pql_score, is_pql: pql}"
    )
    absent = {
        "no_match": "profiles are made: Optimizely has no call that only updates",
        "duplicate_key": "a key is one profile",
    }

    def cleared(self, row: Row) -> Row:
        return {**row, "plan_name": None}

    def expected(self, row: Row) -> Mapping[str, Any]:
        return {"plan": row["plan_name"], "score": row["pql_score"], "is_pql": row["pql"]}

    def held(self, server: VendorServer) -> list[tuple[str, Mapping[str, Any]]]:
        profiles = server.records.get("profiles", {})
        return [(key, {n: v for n, v in values.items() if n != "email"}) for key, values in profiles.items()]


class TestOptimizelyList(_Optimizely):
    """Subscribers of a list."""

    settings = "kind: optimizely_list\nidentifier: email\nlist_id: newsletter\n" + _ACCOUNT
    mode = Mode.SET
    absent = {"no_match": "a list takes any identifier", "duplicate_key": "a key is one subscriber"}

    def expected(self, row: Row) -> Mapping[str, Any]:
        return {}

    def held(self, server: VendorServer) -> list[tuple[str, Mapping[str, Any]]]:
        return [(key, {}) for key in server.lists.get("newsletter", ())]


class TestOptimizelyEvents(_Optimizely):
    """Events; nothing is deduped."""

    settings = (
        "kind: optimizely_events\nidentifier: email\naction: purchase\n" + _ACCOUNT + "event_name: order\n"
        "event_key: id\nkey: person\ntimestamp_column: at\nsince: beginning\nproperties: {plan: plan_name, order: id}"
    )
    schema = {"id": pl.String, "person": pl.String, "plan_name": pl.String, "at": pl.Datetime("us", "UTC")}
    mode = Mode.INSERT
    dedupe = "none"

    def row(self, number: int, version: int = 0) -> Row:
        at = datetime(2026, 11, 1, tzinfo=UTC) + timedelta(minutes=number)
        return {"id": f"order-{number}", "person": f"person{number % 97}@x.example", "plan_name": "pro plan", "at": at}

    def beyond_limits(self) -> Sequence[Row]:
        return [{**self.row(2_000), "person": "Anonymous"}]

    def expected(self, row: Row) -> Mapping[str, Any]:
        own = {"user": row["person"], "type": "order", "action": "purchase", "ts": int(row["at"].timestamp())}
        return {"plan": row["plan_name"], **own}

    def held(self, server: VendorServer) -> list[tuple[str, Mapping[str, Any]]]:
        found = []
        for event in server.events:
            told = dict(event["data"])
            key = told.pop("order")
            own = {"user": event["identifiers"]["email"], "type": event["type"], "action": event["action"]}
            found.append((key, {**told, **own}))
        return found

    def bad_value(self, row: Row, server: VendorServer) -> object:
        return row["person"]
