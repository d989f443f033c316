"""Iterable's connectors pass the shared suite; and what is Iterable's alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from heap_assets.activation import Mode, Status
from heap_assets.errors import SettingsError
from heap_assets_tests.connectors import kit
from heap_assets_tests.connectors.servers.core import VendorServer
from heap_assets_tests.connectors.servers.iterable import IterableServer
from heap_assets_tests.connectors.suite import ConnectorSuite, Row

KEY = "iterable-key-4711"
_BY_ID = "base_url: {url}\napi_key: ${ITERABLE_KEY}\nproject: userID\n"
_BY_EMAIL = "base_url: {url}\napi_key: ${ITERABLE_KEY}\nproject: email\nmatch: upsert\n"


class _Iterable(ConnectorSuite):
    secrets = {"ITERABLE_KEY": KEY}
    project = "userID"
    renews = False
    many = 2_100

    def make_server(self) -> IterableServer:
        # runs of a suite follow each other within a second, and each would count from nothing
        server = IterableServer(project=self.project, limits=[])
        server.api_key = KEY
        server.lists["7"] = set()
        return server


class TestIterableUsers(_Iterable):
    """update_only by user id: through a list."""

    settings = (
        "kind: iterable_users\nlist_id: 7\n" + _BY_ID + "properties: {plan: plan_name, score: pql_score, is_pql: pql}\n"
    )
    schema = {"id": pl.String, "plan_name": pl.String, "pql_score": pl.Float64, "pql": pl.Boolean}
    absent = {"create": "no user is made: update_only", "duplicate_key": "a user id is one user"}

    def seed(self, server: VendorServer, rows: Sequence[Row]) -> None:
        for row in rows:
            if row["id"] != "undefined":
                server.table("user").setdefault(row["id"], {"userId": row["id"], "dataFields": {}})

    def row(self, number: int, version: int = 0) -> Row:
        return {
            "id": f"Person-{number}",
            "plan_name": f"plan-{number % 3}-{version}",
            "pql_score": number + 0.5,
            "pql": number % 2 == 0,
        }

    def cleared(self, row: Row) -> Row:
        return {**row, "plan_name": None}

    def expected(self, row: Row) -> Mapping[str, Any]:
        return {"plan": row["plan_name"], "score": row["pql_score"], "is_pql": row["pql"]}

    def held(self, server: VendorServer) -> list[tuple[str, Mapping[str, Any]]]:
        users = server.records.get("user", {})
        return [(self.spelled(key), user["dataFields"]) for key, user in users.items()]

    def spelled(self, key: str) -> str:
        """Return a key of the server as we spell it."""
        return key

    def at_limits(self) -> Sequence[Row]:
        # a batch of 4 MB
        return [{**self.row(number), "plan_name": "x" * 4_100} for number in range(1_000)]

    def beyond_limits(self) -> Sequence[Row]:
        return [{**self.row(1_000), "id": "undefined"}]

    def test_five_calls_a_second(self, deployment: kit.Deployment, server: IterableServer) -> None:
        server.limits = server.documented_limits()
        rows = self.rows(5_001)
        self.seed(server, rows)
        deployment.write(0, rows, self.schema)
        report = deployment.send(0, "r1")
        assert (report.sent, report.requests, report.throttled) == (5_001, 6, 0)


class TestIterableUsersByEmail(TestIterableUsers):
    """upsert by e-mail address."""

    settings = (
        "kind: iterable_users\ncreate_fields: true\n"
        + _BY_EMAIL
        + "properties: {plan: plan_name, score: pql_score, is_pql: pql}\n"
    )
    project = "email"
    absent = {"no_match": "users are made: upsert"}
    test_five_calls_a_second = None

    def seed(self, server: VendorServer, rows: Sequence[Row]) -> None: ...

    def row(self, number: int, version: int = 0) -> Row:
        return {**super().row(number, version), "id": f"Person{number}@x.example"}

    def spelled(self, key: str) -> str:
        return key.capitalize()

    def bad_value(self, row: Row, server: VendorServer) -> object:
        return str(row["id"]).lower()

    def duplicates(self, server: VendorServer, rows: Sequence[Row]) -> tuple[Sequence[Row], set[str]]:
        key = rows[0]["id"]
        return [*rows, {**rows[0], "id": key.upper()}], {key, key.upper()}

    def test_a_field_that_the_project_does_not_have_is_not_dropped_in_silence(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ITERABLE_KEY", KEY)
        with self.make_server() as server:
            settings = self.settings.replace("create_fields: true\n", "").replace("{url}", server.url)
            deployment = kit.Deployment.make(tmp_path, settings)
            server.field_types = {"score": "number", "is_pql": "boolean"}
            rows = self.rows()
            deployment.write(0, [*rows[:2], *({**row, "plan_name": None} for row in rows[2:])], self.schema)
            report = deployment.send(0, "r1")
            assert (report.sent, report.rejected, report.requests) == (3, 2, 1)
            assert "no field plan" in str(report.rejections)


class TestIterableEvents(_Iterable):
    """Events; one that comes twice overwrites itself."""

    settings = (
        "kind: iterable_events\nmatch: upsert\n" + _BY_ID + "event_name: Signed Up\nevent_key: id\nkey: person\n"
        "timestamp_column: at\nsince: beginning\nproperties: {plan: plan_name, order: id}"
    )
    schema = {"id": pl.String, "person": pl.String, "plan_name": pl.String, "at": pl.Datetime("us", "UTC")}
    mode = Mode.INSERT

    def row(self, number: int, version: int = 0) -> Row:
        at = datetime(2026, 11, 1, tzinfo=UTC) + timedelta(minutes=number)
        return {"id": f"order-{number}", "person": f"Person-{number % 97}", "plan_name": "pro plan", "at": at}

    def expected(self, row: Row) -> Mapping[str, Any]:
        at = None if row["at"] is None else int(row["at"].timestamp())
        return {"plan": row["plan_name"], "user": row["person"], "time": at, "name": "Signed Up"}

    def held(self, server: VendorServer) -> list[tuple[str, Mapping[str, Any]]]:
        held = []
        for event in server.events:
            fields = dict(event["dataFields"])
            facts = {"user": event["userId"], "time": event.get("createdAt"), "name": event["eventName"]}
            held.append((fields.pop("order"), fields | facts))
        return held

    def bad_value(self, row: Row, server: VendorServer) -> object:
        return row["person"]

    def at_limits(self) -> Sequence[Row]:
        return [{**self.row(0), "at": None}, *({**self.row(n), "plan_name": "x" * 4_000} for n in range(1, 1_000))]

    def beyond_limits(self) -> Sequence[Row]:
        return [{**self.row(1_000), "person": "null"}]

    def test_of_a_persons_events_only_the_bad_one_is_refused(
        self, deployment: kit.Deployment, server: IterableServer
    ) -> None:
        rows = [{**self.row(number), "person": "one" if number < 3 else "two"} for number in range(5)]
        deployment.write(0, rows, self.schema)
        server.fail("bad_row", key="order-1")
        report = deployment.send(0, "r1")
        assert (report.status, report.sent, report.rejected) == (Status.PARTIAL, 4, 1)
        assert {key for key, _ in self.held(server)} == {"order-0", "order-2", "order-3", "order-4"}

    def test_a_name_that_the_project_does_not_take_is_told(
        self, deployment: kit.Deployment, server: IterableServer
    ) -> None:
        server.disallowed_events = {"Signed Up"}
        deployment.write(0, self.rows(2), self.schema)
        report = deployment.send(0, "r1")
        assert (report.rejected, report.requests) == (2, 1)
        assert "events of this name" in str(report.rejections)


class TestIterableLists(_Iterable):
    """Members of a list by user id."""

    settings = "kind: iterable_lists\nlist_id: 7\n" + _BY_ID
    schema = {"id": pl.String}
    mode = Mode.SET
    absent = {"duplicate_key": "a user id is one user"}

    def seed(self, server: VendorServer, rows: Sequence[Row]) -> None:
        for row in rows:
            server.table("user").setdefault(row["id"], {"userId": row["id"], "dataFields": {}})

    def row(self, number: int, version: int = 0) -> Row:
        return {"id": f"Person-{number}"}

    def expected(self, row: Row) -> Mapping[str, Any]:
        return {}

    def held(self, server: VendorServer) -> list[tuple[str, Mapping[str, Any]]]:
        return [(key, {}) for key in server.lists["7"]]

    def at_limits(self) -> Sequence[Row]:
        return self.rows(2_000)

    def beyond_limits(self) -> Sequence[Row]:
        return [{"id": "none"}]

    def test_who_is_gone_there_is_no_member(self, deployment: kit.Deployment, server: IterableServer) -> None:
        rows = self.first(deployment, server)
        del server.table("user")["Person-0"]
        server.lists["7"].discard("Person-0")
        deployment.write(1, rows[1:], self.schema)
        report = deployment.send(1, "r2")
        assert (report.status, report.sent, report.no_match) == (Status.SUCCEEDED, 1, 0)


_USERS = _BY_ID + "kind: iterable_users\nproperties: {plan: plan_name}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (_USERS.replace("userID", "email"), "update_only is not possible here; it must be upsert"),
        (_USERS, "list_id: match: update_only writes through a static list"),
        (_USERS + "match: upsert\nlist_id: 7", "list_id: leave it out"),
        (_BY_ID.replace("userID", "email") + "kind: iterable_lists\nlist_id: 7", "it must be upsert"),
        (_BY_ID + "kind: iterable_events\nevent_name: a", r"sync\.it\.match"),
    ],
)
def test_what_cannot_be_is_said_when_settings_are_loaded(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ITERABLE_KEY", KEY)
    with pytest.raises(SettingsError, match=message):
        kit.Deployment.make(tmp_path, text.replace("{url}", "http://127.0.0.1:9"))


def test_failures_without_a_name_are_somebodys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An older project tells of unknown people by their number only; a user id alone makes nobody there."""
    suite = TestIterableUsers()
    monkeypatch.setenv("ITERABLE_KEY", KEY)
    text = suite.settings.replace("list_id: 7\n", "").replace("project: userID", "project: email\nidentifier: userId")
    with IterableServer(project="email", old_names=True) as server:
        server.api_key, server.field_types = KEY, {"plan": "string", "score": "number", "is_pql": "boolean"}
        deployment = kit.Deployment.make(tmp_path, text.replace("{url}", server.url))
        rows = suite.rows()
        suite.seed(server, rows[1:])
        deployment.write(0, rows, suite.schema)
        report = deployment.send(0, "r1")
        assert (report.sent, report.rejected) == (4, 1)
        server.fail("refuse_batch", code="BadApiKey")
        deployment.write(1, suite.rows(5, version=1), suite.schema)
        assert "api_key" in str(deployment.send(1, "r2").reason)
