"""Braze's connectors pass the shared suite; and what is Braze's alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from heap_assets.activation import Mode
from heap_assets.errors import SettingsError
from heap_assets_tests.connectors import kit
from heap_assets_tests.connectors.servers.braze import BrazeServer
from heap_assets_tests.connectors.servers.core import VendorServer
from heap_assets_tests.connectors.suite import ConnectorSuite, Row

KEY = "braze-rest-key-4711"
_ACCOUNT = "base_url: {url}\napi_key: ${BRAZE_KEY}\n"


class _Braze(ConnectorSuite):
    secrets = {"BRAZE_KEY": KEY}
    renews = False

    def make_server(self) -> BrazeServer:
        server = BrazeServer()
        server.api_key = KEY
        return server


class TestBrazeUsers(_Braze):
    """Attributes of users that are there."""

    settings = "kind: braze_users\n" + _ACCOUNT + "properties: {plan: plan_name, score: pql_score, is_pql: pql}"
    schema = {"id": pl.String, "plan_name": pl.String, "pql_score": pl.Float64, "pql": pl.Boolean}
    absent = {
        "create": "no user is made: update_only",
        "no_match": "Braze drops the rows of users that it does not have, and does not say so",
        "duplicate_key": "an external id is one user",
    }

    def seed(self, server: VendorServer, rows: Sequence[Row]) -> None:
        assert isinstance(server, BrazeServer)
        for row in rows:
            if server._find({"external_id": row["id"]}) is None:
                user = f"braze-{server.next_id()}"
                server.table("user")[user] = {"braze_id": user}
                server._set(user, {"external_id": row["id"]})

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
        users = server.records.get("user", {}).values()
        own = ("external_id", "braze_id")
        return [(user["external_id"], {n: v for n, v in user.items() if n not in own}) for user in users]

    def at_limits(self) -> Sequence[Row]:
        return [{**self.row(number), "plan_name": "ü" * 255} for number in range(75)]

    def beyond_limits(self) -> Sequence[Row]:
        return [{**self.row(200), "plan_name": "x" * 256}]

    def assert_held(self, server: VendorServer, rows: Sequence[Row]) -> None:
        """Users of rows that were never sent are there too, with nothing of ours."""
        sent = {str(row[self.key]) for row in rows}
        held = [(key, values) for key, values in self.held(server) if key in sent or values]
        assert {key: dict(values) for key, values in held} == {
            str(row[self.key]): {n: v for n, v in self.expected(row).items() if v is not None} for row in rows
        }

    def test_only_what_changed_is_billed(self, deployment: kit.Deployment, server: BrazeServer) -> None:
        rows = self.first(deployment, server)
        assert server.data_points == 15
        deployment.write(1, [{**rows[0], "plan_name": "other"}, *rows[1:]], self.schema)
        deployment.send(1, "r2")
        assert server.data_points == 16

    def test_nobody_is_made(self, deployment: kit.Deployment, server: BrazeServer) -> None:
        deployment.write(0, self.rows(), self.schema)
        assert deployment.send(0, "r1").sent == 5
        assert not server.records.get("user")

    def test_queued_is_taken(self, deployment: kit.Deployment, server: BrazeServer) -> None:
        server.queued = True
        self.first(deployment, server)
        assert deployment.send(0, "r2").requests == 0


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ("instance: braze.com", r"sync\.it\.instance"),
        ("", "instance: which one is it"),
        ("instance: rest.iad-01.braze.com\nidentifier: user_alias", "alias_label: give it"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: str, named: str) -> None:
    monkeypatch.setenv("BRAZE_KEY", KEY)
    text = "kind: braze_users\napi_key: ${BRAZE_KEY}\nproperties: {plan: plan_name}\n"
    with pytest.raises(SettingsError, match=named):
        kit.Deployment.make(tmp_path, text + lines)


class TestBrazeUsersUpserted(TestBrazeUsers):
    """Attributes of users by alias, who are made."""

    settings = "match: upsert\nidentifier: user_alias\nalias_label: crm\n" + TestBrazeUsers.settings
    absent = {"no_match": "users are made: upsert", "duplicate_key": "an alias is one user"}
    test_nobody_is_made = None

    def seed(self, server: VendorServer, rows: Sequence[Row]) -> None: ...

    def bad_value(self, row: Row, server: VendorServer) -> object:
        return {"alias_name": row["id"], "alias_label": "crm"}

    def held(self, server: VendorServer) -> list[tuple[str, Mapping[str, Any]]]:
        users = server.records.get("user", {}).values()
        own = ("user_alias", "braze_id")
        return [(user["user_alias"]["alias_name"], {n: v for n, v in user.items() if n not in own}) for user in users]


class TestBrazeEvents(_Braze):
    """Custom events; nothing is deduped."""

    settings = (
        "kind: braze_events\nmatch: upsert\n" + _ACCOUNT + "event_name: Signed Up\nevent_key: id\nkey: person\n"
        "timestamp_column: at\nsince: beginning\nproperties: {plan: plan_name, order: id}"
    )
    schema = {"id": pl.String, "person": pl.String, "plan_name": pl.String, "at": pl.Datetime("us", "UTC")}
    mode = Mode.INSERT
    dedupe = "none"

    def row(self, number: int, version: int = 0) -> Row:
        at = datetime(2026, 11, 1, tzinfo=UTC) + timedelta(minutes=number)
        return {"id": f"order-{number}", "person": f"person{number % 97}@x.example", "plan_name": "pro plan", "at": at}

    def expected(self, row: Row) -> Mapping[str, Any]:
        at = row["at"].strftime("%Y-%m-%dT%H:%M:%S.000Z")
        return {"plan": row["plan_name"], "user": row["person"], "time": at, "name": "Signed Up"}

    def held(self, server: VendorServer) -> list[tuple[str, Mapping[str, Any]]]:
        found = []
        for event in server.events:
            told = dict(event["properties"])
            key = told.pop("order")
            found.append((key, {**told, "user": event["external_id"], "time": event["time"], "name": event["name"]}))
        return found

    def bad_value(self, row: Row, server: VendorServer) -> object:
        return row["person"]

    def at_limits(self) -> Sequence[Row]:
        return [{**self.row(number), "plan_name": "x" * 255} for number in range(75)]

    def beyond_limits(self) -> Sequence[Row]:
        rows = [self.row(number) for number in range(200, 203)]
        return [{**rows[0], "plan_name": "x" * 256}, {**rows[1], "at": None}, {**rows[2], "person": "null"}]
