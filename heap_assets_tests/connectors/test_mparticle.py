"""mParticle's connectors pass the shared suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from heap_assets.activation import Mode
from heap_assets_tests.connectors import kit
from heap_assets_tests.connectors.servers.core import VendorServer
from heap_assets_tests.connectors.servers.mparticle import MParticle
from heap_assets_tests.connectors.suite import ConnectorSuite, Row

KEY, SECRET = "input-key-4711", "input-secret-4711"
_ACCOUNT = "base_url: {url}\napi_key: ${MPARTICLE_KEY}\napi_secret: ${MPARTICLE_SECRET}\n"


class _MParticle(ConnectorSuite):
    secrets = {"MPARTICLE_KEY": KEY, "MPARTICLE_SECRET": SECRET}
    renews = False

    def make_server(self) -> MParticle:
        # the suite's runs follow each other within the second that is limited, each with a window of its own
        return MParticle(key=KEY, secret=SECRET, limits=[])


class TestMParticleUsers(_MParticle):
    """User attributes."""

    settings = "kind: mparticle_users\n" + _ACCOUNT + "properties: {plan: plan_name, score: pql_score, is_pql: pql}"
    schema = {"id": pl.String, "plan_name": pl.String, "pql_score": pl.Float64, "pql": pl.Boolean}
    absent = {
        "no_match": "users are made: mParticle has no call that only updates",
        "duplicate_key": "a key is one user",
    }

    def row(self, number: int, version: int = 0) -> Row:
        return {
            "id": f"person{number}@x.example",
            "plan_name": f"plan-{number % 3}-{version}",
            "pql_score": number + 0.5,
            "pql": number % 2 == 0,
        }

    def cleared(self, row: Row) -> Row:
        return {**row, "plan_name": None}

    def expected(self, row: Row) -> Mapping[str, Any]:
        return {"plan": row["plan_name"], "score": row["pql_score"], "is_pql": row["pql"]}

    def held(self, server: VendorServer) -> list[tuple[str, Mapping[str, Any]]]:
        return list(server.records.get("users", {}).items())

    def at_limits(self) -> Sequence[Row]:
        return [{**self.row(number), "plan_name": "ü" * 4_096} for number in range(100)]

    def beyond_limits(self) -> Sequence[Row]:
        rows = [self.row(number) for number in range(200, 202)]
        return [{**rows[0], "plan_name": "x" * 4_097}, {**rows[1], "id": "Anonymous"}]

    def test_a_run_keeps_the_rate(self, deployment: kit.Deployment, server: MParticle) -> None:
        server.limits = server.documented_limits()
        rows = self.rows(600)
        deployment.write(0, rows, self.schema)
        report = deployment.send(0, "r1")
        assert (report.sent, report.throttled) == (600, 0)


class TestMParticleEvents(_MParticle):
    """Custom events; nothing is deduped."""

    settings = (
        "kind: mparticle_events\nevent_type: transaction\n" + _ACCOUNT + "event_name: Signed Up\nevent_key: id\n"
        "key: person\ntimestamp_column: at\nsince: beginning\nproperties: {plan: plan_name, order: id, total: total}"
    )
    schema = {
        "id": pl.String,
        "person": pl.String,
        "plan_name": pl.String,
        "total": pl.Float64,
        "at": pl.Datetime("us", "UTC"),
    }
    mode = Mode.INSERT
    dedupe = "none"
    faults = {"server_error": {"status": 500}}

    def row(self, number: int, version: int = 0) -> Row:
        at = datetime(2026, 11, 1, tzinfo=UTC) + timedelta(minutes=number)
        person = f"person{number % 97}@x.example"
        return {"id": f"order-{number}", "person": person, "plan_name": "pro plan", "total": 1.5, "at": at}

    def expected(self, row: Row) -> Mapping[str, Any]:
        ms = None if row["at"] is None else int(row["at"].timestamp() * 1000)
        return {"plan": row["plan_name"], "total": "1.5", "user": row["person"], "time": ms, "name": "Signed Up"}

    def held(self, server: VendorServer) -> list[tuple[str, Mapping[str, Any]]]:
        found = []
        for event in server.events:
            data = event["data"]
            told = dict(data["custom_attributes"])
            key = told.pop("order")
            own = {"user": event["user"], "time": data.get("timestamp_unixtime_ms"), "name": data["event_name"]}
            found.append((key, {**told, **own}))
        return found

    def test_what_was_unavailable_is_asked_again(self, deployment: kit.Deployment, server: MParticle) -> None:
        rows = self.rows()
        deployment.write(0, rows, self.schema)
        server.fail("server_error", status=503)
        assert deployment.send(0, "r1").sent == len(rows)
        self.assert_held(server, rows)

    def bad_value(self, row: Row, server: VendorServer) -> object:
        return row["person"]

    def at_limits(self) -> Sequence[Row]:
        first = {**self.row(0), "at": None}
        return [first, *({**self.row(number), "plan_name": "x" * 4_096} for number in range(1, 100))]

    def beyond_limits(self) -> Sequence[Row]:
        rows = [self.row(number) for number in range(200, 202)]
        return [{**rows[0], "plan_name": "x" * 4_097}, {**rows[1], "person": "null"}]
