"""Intercom's connectors pass the shared suite; and what is Intercom's alone."""

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
from heap_assets_tests.connectors.servers.intercom import IntercomServer
from heap_assets_tests.connectors.suite import ConnectorSuite, Row

TOKEN = "intercom-token-4711"
_WORKSPACE = "base_url: {url}\nworkspace: w1\ntoken: ${INTERCOM_TOKEN}\nrequests_in_flight: 2\n"
_ONE_BY_ONE = _WORKSPACE.replace("in_flight: 2", "in_flight: 1")
"""So that the golden file of calls that hold one row has an order."""


class _Intercom(ConnectorSuite):
    secrets = {"INTERCOM_TOKEN": TOKEN}
    renews = False
    many = 35
    index_seconds = 0.0

    def make_server(self) -> IntercomServer:
        server = IntercomServer(index_seconds=self.index_seconds)
        server.token = TOKEN
        server.attributes |= {"plan": "string", "seats": "integer", "is_pql": "boolean", "trial_end_at": "date"}
        return server

    def make(self, server: VendorServer, **values: Any) -> str:
        """Make a contact, as people there do."""
        assert isinstance(server, IntercomServer)
        id = f"{server.next_id():024x}"
        server.write(id, {"role": "user", **values})
        return id

    def seed(self, server: VendorServer, rows: Sequence[Row]) -> None:
        assert isinstance(server, IntercomServer)
        for row in rows:
            key = row.get("person", row["id"])
            if key not in ("undefined", None) and len(key) <= 255 and not server.find("external_id", key):
                self.make(server, external_id=key)


class TestIntercomContacts(_Intercom):
    """update_only by external id."""

    settings = (
        "kind: intercom_contacts\n"
        + _WORKSPACE
        + "properties: {name: full, plan: plan_name, seats: seats, is_pql: pql, trial_end_at: ends}\n"
    )
    schema = {
        "id": pl.String,
        "full": pl.String,
        "plan_name": pl.String,
        "seats": pl.Int64,
        "pql": pl.Boolean,
        "ends": pl.Datetime("us", "UTC"),
    }
    faults = {"token_expired": {"skip": 34}}
    absent = {
        "create": "no contact is made: update_only",
        "duplicate_key": "an external id is one contact",
        "whole_batch_refused": "a call is one contact",
    }

    def row(self, number: int, version: int = 0) -> Row:
        return {
            "id": f"Person-{number}",
            "full": f"Ann Ng {number}",
            "plan_name": f"plan-{number % 3}-{version}",
            "seats": number,
            "pql": number % 2 == 0,
            "ends": datetime(2026, 11, 1, tzinfo=UTC) + timedelta(hours=number),
        }

    def cleared(self, row: Row) -> Row:
        return {**row, "plan_name": None}

    def expected(self, row: Row) -> Mapping[str, Any]:
        own = {"plan": row["plan_name"], "seats": row["seats"], "is_pql": row["pql"]}
        return own | {"trial_end_at": int(row["ends"].timestamp()), "name": row["full"]}

    def held(self, server: VendorServer) -> list[tuple[str, Mapping[str, Any]]]:
        contacts = server.records.get("contact", {}).values()
        return [
            (one["external_id"], {**one["custom_attributes"], "name": one.get("name")})
            for one in contacts
            if not one["archived"]
        ]

    def bad_value(self, row: Row, server: VendorServer) -> object:
        return row["full"]

    def at_limits(self) -> Sequence[Row]:
        return [*self.rows(29), {**self.row(29), "id": "x" * 255, "plan_name": "ü" * 255}]

    def beyond_limits(self) -> Sequence[Row]:
        return [{**self.row(30), "id": "x" * 256}, {**self.row(31), "id": "undefined", "plan_name": "x" * 256}]

    def test_an_id_is_looked_up_once_and_again_when_it_is_gone(
        self, deployment: kit.Deployment, server: IntercomServer
    ) -> None:
        rows = self.first(deployment, server)
        searches = [call.path for call in server.calls].count("/contacts/search")
        assert searches == 1
        [gone, merged] = [server.find("external_id", row["id"])[0] for row in rows[:2]]
        server.table("contact")[gone]["archived"] = True
        del server.table("contact")[merged]
        server._keys["external_id", rows[1]["id"]] = []
        another = self.make(server, external_id=rows[1]["id"])
        deployment.write(1, self.rows(5, version=1), self.schema)
        report = deployment.send(1, "r2")
        assert (report.status, report.sent, report.no_match) == (Status.SUCCEEDED, 5, 0)
        assert server.table("contact")[another]["custom_attributes"]["plan"] == "plan-1-1"
        assert [call.path for call in server.calls].count("/contacts/search") == 2

    def test_a_search_that_is_refused_is_no_miss(self, deployment: kit.Deployment, server: IntercomServer) -> None:
        rows = self.rows()
        self.seed(server, rows)
        deployment.write(0, rows, self.schema)
        server.fail("refuse_batch", path="search", times=3)
        report = deployment.send(0, "r1")
        assert (report.sent, report.rejected, report.no_match) == (4, 1, 0)

    def test_preflight_names_attributes_that_are_missing(
        self, deployment: kit.Deployment, server: IntercomServer
    ) -> None:
        del server.attributes["seats"]
        tried = {one.name: one.passed for one in deployment.connector.preflight()}
        names = {f"attribute {name}": name != "seats" for name in ("name", "plan", "seats", "is_pql", "trial_end_at")}
        assert tried == {"login": True} | names


class TestIntercomContactsUpsert(TestIntercomContacts):
    """upsert by external id, of contacts that the search does not know yet."""

    settings = TestIntercomContacts.settings + "match: upsert\n"
    index_seconds = 3_600.0
    absent = {"no_match": "contacts are made: upsert", "whole_batch_refused": "a call is one contact"}
    test_an_id_is_looked_up_once_and_again_when_it_is_gone = None
    test_a_search_that_is_refused_is_no_miss = None
    test_preflight_names_attributes_that_are_missing = None

    def seed(self, server: VendorServer, rows: Sequence[Row]) -> None: ...

    def duplicates(self, server: VendorServer, rows: Sequence[Row]) -> tuple[Sequence[Row], set[str]]:
        id = self.make(server, external_id=rows[1]["id"])
        server.table("contact")[id]["archived"] = True
        return rows, {rows[1]["id"]}

    def test_another_contact_with_the_same_details_is_not_written(
        self, deployment: kit.Deployment, server: IntercomServer
    ) -> None:
        other = self.make(server, external_id="other", name="Other")
        rows = self.rows(1)
        deployment.write(0, rows, self.schema)
        find = server.find
        server.find = lambda name, value, **more: [other] if value == rows[0]["id"] else find(name, value, **more)
        report = deployment.send(0, "r1")
        assert (report.sent, report.invalid) == (0, 1)
        assert server.table("contact")[other]["name"] == "Other"


class TestIntercomEvents(_Intercom):
    """Events by external id; a repeat is ignored there."""

    settings = (
        "kind: intercom_events\n" + _ONE_BY_ONE + "event_name: trial-expiring\nevent_key: id\nkey: person\n"
        "timestamp_column: at\nsince: beginning\nproperties: {plan: plan_name, order: id}"
    )
    schema = {"id": pl.String, "person": pl.String, "plan_name": pl.String, "at": pl.Datetime("us", "UTC")}
    mode = Mode.INSERT
    faults = {"token_expired": {"skip": 20}}
    absent = {"whole_batch_refused": "a call is one event"}

    def row(self, number: int, version: int = 0) -> Row:
        at = datetime(2026, 11, 1, tzinfo=UTC) + timedelta(minutes=number)
        return {"id": f"order-{number}", "person": f"Person-{number % 7}", "plan_name": "pro plan", "at": at}

    def expected(self, row: Row) -> Mapping[str, Any]:
        facts = {"plan": row["plan_name"], "user": row["person"], "name": "trial-expiring"}
        return facts | {"time": int(row["at"].timestamp())}

    def held(self, server: VendorServer) -> list[tuple[str, Mapping[str, Any]]]:
        held = []
        for event in server.events:
            told = dict(event["metadata"])
            facts = {"user": event["user_id"], "time": event["created_at"], "name": event["event_name"]}
            held.append((told.pop("order"), told | facts))
        return held

    def bad_value(self, row: Row, server: VendorServer) -> object:
        return row["id"]

    def at_limits(self) -> Sequence[Row]:
        return self.rows(20)

    def beyond_limits(self) -> Sequence[Row]:
        rows = [self.row(number) for number in range(20, 23)]
        same_second = {**self.row(3), "id": "order-9999"}
        return [{**rows[0], "at": None}, {**rows[1], "person": "undefined"}, same_second]

    def test_events_of_people_who_are_not_there_are_no_match(
        self, deployment: kit.Deployment, server: IntercomServer
    ) -> None:
        rows = self.rows()
        self.seed(server, rows[:3])
        deployment.write(0, rows, self.schema)
        report = deployment.send(0, "r1")
        assert (report.status, report.sent, report.no_match, report.rejected) == (Status.SUCCEEDED, 3, 2, 0)


def test_of_an_address_that_two_contacts_have_none_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = TestIntercomContacts()
    monkeypatch.setenv("INTERCOM_TOKEN", TOKEN)
    text = suite.settings + "identifier: email\n"
    with suite.make_server() as server:
        deployment = kit.Deployment.make(tmp_path, text.replace("{url}", server.url))
        rows = [{**suite.row(n), "id": f"Person{n}@x.example"} for n in range(3)]
        for n in (0, 0, 1):
            suite.make(server, email=f"person{n}@x.example", role="lead")
        deployment.write(0, rows, suite.schema)
        report = deployment.send(0, "r1")
        assert (report.sent, report.invalid, report.no_match) == (1, 1, 1)
        assert server.violations == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TestIntercomContacts.settings + "identifier: email\nmatch: upsert", "it must be update_only"),
        (TestIntercomContacts.settings + "api_version: latest", "api_version"),
        (
            TestIntercomEvents.settings.partition("properties")[0]
            + f"properties: {{{', '.join(f'p{n}: id' for n in range(11))}}}",
            "keeps 10 properties",
        ),
    ],
)
def test_what_cannot_be_is_said_when_settings_are_loaded(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INTERCOM_TOKEN", TOKEN)
    with pytest.raises(SettingsError, match=message):
        kit.Deployment.make(tmp_path, text.replace("{url}", "http://127.0.0.1:9"))
