"""Amplitude's connectors pass the shared suite; and what is Amplitude's alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from heap_assets.activation import Mode, Status
from heap_assets_tests.connectors import kit
from heap_assets_tests.connectors.servers.amplitude import Amplitude
from heap_assets_tests.connectors.servers.core import VendorServer
from heap_assets_tests.connectors.suite import ConnectorSuite, Row

KEY = "amplitude-key-4711"
_ACCOUNT = "base_url: {url}\napi_key: ${AMPLITUDE_KEY}\n"


class _Amplitude(ConnectorSuite):
    secrets = {"AMPLITUDE_KEY": KEY}
    renews = False

    def make_server(self) -> Amplitude:
        return Amplitude(api_key=KEY)


class TestAmplitudeUsers(_Amplitude):
    """User properties by Identify."""

    settings = "kind: amplitude_users\n" + _ACCOUNT + "properties: {plan: plan_name, score: pql_score, is_pql: pql}"
    schema = {"id": pl.String, "plan_name": pl.String, "pql_score": pl.Float64, "pql": pl.Boolean}
    many = 450
    absent = {
        "no_match": "users are made: Amplitude has no call that only updates",
        "duplicate_key": "a key is one user",
        "token_expiry": "the key does not end",
        "whole_batch_refused": "a refused call names nothing, as for a bad row",
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
        return [{**self.row(0), "id": "12345"}, *({**self.row(n), "plan_name": "x" * 1_024} for n in range(1, 200))]

    def beyond_limits(self) -> Sequence[Row]:
        rows = [self.row(number) for number in range(500, 503)]
        return [{**rows[0], "plan_name": "x" * 1_025}, {**rows[1], "id": "Anonymous"}, {**rows[2], "id": "1234"}]

    def test_a_wrong_key_stops_the_run(self, deployment: kit.Deployment, server: Amplitude) -> None:
        server.api_key = "another"
        deployment.write(0, self.rows(), self.schema)
        report = deployment.send(0, "r1")
        assert (report.status, report.requests, len(server.violations)) == (Status.STOPPED, 1, 1)
        assert "api_key" in str(report.reason)
        server.violations.clear()


class TestAmplitudeEvents(_Amplitude):
    """Events in batches."""

    settings = (
        "kind: amplitude_events\n" + _ACCOUNT + "event_name: Signed Up\nevent_key: id\nkey: person\n"
        "timestamp_column: at\nsince: beginning\nproperties: {plan: plan_name, order: id}"
    )
    schema = {"id": pl.String, "person": pl.String, "plan_name": pl.String, "at": pl.Datetime("us", "UTC")}
    mode = Mode.INSERT
    many = 4_100
    dedupe = "window"
    faults = {"throttle": {"rows": []}}
    absent = {"token_expiry": "the key does not end"}

    def row(self, number: int, version: int = 0) -> Row:
        at = datetime(2026, 11, 1, tzinfo=UTC) + timedelta(minutes=number)
        return {"id": f"order-{number}", "person": f"person{number % 97}@x.example", "plan_name": "pro plan", "at": at}

    def expected(self, row: Row) -> Mapping[str, Any]:
        ms = None if row["at"] is None else int(row["at"].timestamp() * 1000)
        return {"plan": row["plan_name"], "user": row["person"], "time": ms, "name": "Signed Up"}

    def held(self, server: VendorServer) -> list[tuple[str, Mapping[str, Any]]]:
        return [
            (
                event["event_properties"]["order"],
                {
                    "plan": event["event_properties"].get("plan"),
                    "user": event["user_id"],
                    "time": event.get("time"),
                    "name": event["event_type"],
                },
            )
            for event in server.events
        ]

    def bad_value(self, row: Row, server: VendorServer) -> object:
        return row["person"]

    def at_limits(self) -> Sequence[Row]:
        first = {**self.row(0), "person": "12345", "at": None}
        return [first, *({**self.row(n), "plan_name": "x" * 1_024} for n in range(1, 2_000))]

    def beyond_limits(self) -> Sequence[Row]:
        rows = [self.row(number) for number in range(5_000, 5_003)]
        return [{**rows[0], "person": "1234"}, {**rows[1], "person": "N/A"}, {**rows[2], "plan_name": "x" * 1_025}]

    def test_rows_of_users_over_their_rate_wait(self, deployment: kit.Deployment, server: Amplitude) -> None:
        rows = self.rows()
        deployment.write(0, rows, self.schema)
        server.fail("throttle", rows=[1, 3])
        report = deployment.send(0, "r1")
        assert (report.status, report.sent, report.requests) == (Status.SUCCEEDED, 3, 2)
        self.assert_held(server, [rows[0], rows[2], rows[4]])
        waiting = deployment.ledger().filter(pl.col("status") == "deferred")
        assert set(waiting["key"]) == {"order-1", "order-3"}
        assert waiting["until"].max() < datetime.now(UTC) + timedelta(seconds=31)
        assert deployment.send(0, "r2").requests == 0

    def test_a_quota_of_the_day_is_over_tomorrow(self, deployment: kit.Deployment, server: Amplitude) -> None:
        deployment.write(0, self.rows(), self.schema)
        server.fail("throttle", daily=True)
        report = deployment.send(0, "r1")
        assert (report.sent, report.requests) == (0, 1)
        [until] = deployment.ledger()["until"].unique().to_list()
        assert until.date() == (datetime.now(UTC) + timedelta(days=1)).date()
        assert (until.hour, until.minute) == (0, 0)
