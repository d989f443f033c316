"""HubSpot's connectors pass the shared suite; and what is HubSpot's alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from heap_assets.activation import Mode, Status
from heap_assets.errors import SettingsError
from heap_assets_tests.connectors import kit
from heap_assets_tests.connectors.servers.core import VendorServer
from heap_assets_tests.connectors.servers.hubspot import HubSpotServer, Property
from heap_assets_tests.connectors.suite import ConnectorSuite, Row

TOKEN = "pat-na1-secret-4711"


def account(**choices: Any) -> HubSpotServer:
    server = HubSpotServer(**choices)
    server.token = TOKEN
    for of in ("contacts", "companies"):
        server.properties[of] |= {"plan": Property(), "score": Property("number"), "is_pql": Property("bool")}
    return server


class HubSpotRecords(ConnectorSuite):
    """What suites of contacts and companies share."""

    secrets = {"HUBSPOT_TOKEN": TOKEN}
    schema = {"id": pl.String, "plan_name": pl.String, "pql_score": pl.Float64, "pql": pl.Boolean}
    renews = False
    of = "contacts"
    key_property = "heap_id"

    def make_server(self) -> HubSpotServer:
        return account()

    def row(self, number: int, version: int = 0) -> Row:
        key = f"person{number}@x.example"
        return {
            "id": key,
            "plan_name": f"plan-{number % 3}-{version}",
            "pql_score": number + 0.5,
            "pql": number % 2 == 0,
        }

    def cleared(self, row: Row) -> Row:
        return {**row, "plan_name": None}

    def expected(self, row: Row) -> Mapping[str, Any]:
        score = None if row["pql_score"] is None else format(row["pql_score"], "f").rstrip("0").rstrip(".")
        pql = None if row["pql"] is None else str(row["pql"]).lower()
        return {"plan": row["plan_name"], "score": score, "is_pql": pql}

    def held(self, server: VendorServer) -> list[tuple[str, Mapping[str, Any]]]:
        records = [record["properties"] for record in server.records.get(self.of, {}).values()]
        return [(r[self.key_property], {name: r.get(name) for name in ("plan", "score", "is_pql")}) for r in records]

    def bad_value(self, row: Row, server: VendorServer) -> object:
        return self.expected(row)["score"]

    def at_limits(self) -> Sequence[Row]:
        return self.rows(2 * 100)


_SETTINGS = """
base_url: {url}
hub_id: 123
token: ${HUBSPOT_TOKEN}
calls_per_10_seconds: 190
properties: {plan: plan_name, score: pql_score, is_pql: pql}
"""
_ONE_RECORD = "a unique property is of one record"


class TestHubSpotContacts(HubSpotRecords):
    """update_only, by a property of one's own."""

    settings = "kind: hubspot_contacts\nkey_property: heap_id" + _SETTINGS
    absent = {"create": "no contact is made: update_only", "duplicate_key": _ONE_RECORD}

    def seed(self, server: VendorServer, rows: Sequence[Row]) -> None:
        assert isinstance(server, HubSpotServer)
        for row in rows:
            server.write(self.of, None, {"heap_id": row["id"]})


class TestHubSpotContactsByEmail(HubSpotRecords):
    """upsert by e-mail."""

    settings = "kind: hubspot_contacts\nkey_property: email\nmatch: upsert" + _SETTINGS
    key_property = "email"
    absent = {"no_match": "contacts are made: upsert"}

    def duplicates(self, server: VendorServer, rows: Sequence[Row]) -> tuple[Sequence[Row], set[str]]:
        key = rows[0]["id"]
        return [*rows, {**rows[0], "id": key.title()}], {key, key.title()}


class TestHubSpotCompanies(HubSpotRecords):
    """upsert of companies."""

    settings = "kind: hubspot_companies\nkey_property: heap_id\nmatch: upsert" + _SETTINGS
    of = "companies"
    absent = {"no_match": "companies are made: upsert", "duplicate_key": _ONE_RECORD}


_ACCOUNT = "base_url: {url}\nhub_id: 123\ntoken: ${HUBSPOT_TOKEN}\ncalls_per_10_seconds: 190"


class TestHubSpotEvents(ConnectorSuite):
    """Custom events by e-mail; an answer tells nothing of a row."""

    settings = f"""
kind: hubspot_events
key: email
event_name: trial_started
event_key: id
timestamp_column: at
since: beginning
properties: {{plan: plan_name, seats: seats, number: id}}
{_ACCOUNT}
"""
    secrets = {"HUBSPOT_TOKEN": TOKEN}
    schema = {"id": pl.String, "email": pl.String, "plan_name": pl.String, "seats": pl.Int64, "at": pl.String}
    mode = Mode.INSERT
    renews = False
    dedupe = "none"
    many = 1200
    absent = {"bad_row": "HubSpot takes it without a word, or refuses the call as a whole"}

    def make_server(self) -> HubSpotServer:
        server = account(uuid_dedupes=False)
        server.event_definitions["pe123_trial_started"] = {"plan", "seats", "number"}
        return server

    def row(self, number: int, version: int = 0) -> Row:
        person = {"id": f"order-{number}", "email": f"person{number}@x.example"}
        return {**person, "plan_name": f"plan-{number % 3}", "seats": number, "at": "2026-11-19T10:00:00Z"}

    def expected(self, row: Row) -> Mapping[str, Any]:
        facts = {"eventName": "pe123_trial_started", "email": row["email"], "occurredAt": "2026-11-19T10:00:00.000Z"}
        return facts | {"plan": row["plan_name"], "seats": str(row["seats"]), "number": row["id"]}

    def held(self, server: VendorServer) -> list[tuple[str, Mapping[str, Any]]]:
        assert len({event["uuid"] for event in server.events}) == len(server.events)
        names = ("eventName", "email", "occurredAt")
        return [
            (event["properties"]["number"], {name: event[name] for name in names} | event["properties"])
            for event in server.events
        ]

    def at_limits(self) -> Sequence[Row]:
        return [*self.rows(499), {**self.row(499), "plan_name": "x" * 1024}]

    def beyond_limits(self) -> Sequence[Row]:
        return [{**self.row(500), "plan_name": "x" * 1025}]

    def test_an_event_that_cannot_be_read_is_not_sent(self, deployment: kit.Deployment, server: HubSpotServer) -> None:
        rows = self.rows()
        deployment.write(0, [*rows[:2], {**rows[2], "at": "yesterday"}, *rows[3:]], self.schema)
        report = deployment.send(0, "r1")
        assert (report.status, report.sent, report.invalid) == (Status.PARTIAL, 4, 1)
        self.assert_held(server, [*rows[:2], *rows[3:]])


class TestHubSpotLists(ConnectorSuite):
    """Members of a static list by e-mail, which is looked up once."""

    settings = f"kind: hubspot_lists\nlist_id: 7\n{_ACCOUNT}"
    secrets = {"HUBSPOT_TOKEN": TOKEN}
    schema = {"id": pl.String}
    mode = Mode.SET
    renews = False
    # three batches look their members up, whichever writes first
    faults = {"token_expired": {"skip": 4}}
    absent = {"bad_row": "a record id is a member or is missing, nothing else"}

    def make_server(self) -> HubSpotServer:
        server = account()
        server.lists["7"] = set()
        return server

    def seed(self, server: VendorServer, rows: Sequence[Row]) -> None:
        assert isinstance(server, HubSpotServer)
        for row in rows:
            if server.find("contacts", "email", row["id"]) is None:
                server.write("contacts", None, {"email": row["id"]})

    def row(self, number: int, version: int = 0) -> Row:
        return {"id": f"Person{number}@x.example"}

    def expected(self, row: Row) -> Mapping[str, Any]:
        return {}

    def held(self, server: VendorServer) -> list[tuple[str, Mapping[str, Any]]]:
        return [(self.spelled(server, id), {}) for id in server.lists["7"]]

    def spelled(self, server: VendorServer, id: str) -> str:
        """Return the key as we spell it."""
        return str(server.records["contacts"][id]["properties"]["email"]).capitalize()

    def duplicates(self, server: VendorServer, rows: Sequence[Row]) -> tuple[Sequence[Row], set[str]]:
        assert isinstance(server, HubSpotServer)
        id = server.find("contacts", "email", rows[0]["id"])
        server.write("contacts", id, {"hs_additional_emails": "second@x.example"})
        return [*rows, {"id": "second@x.example"}], set()

    def at_limits(self) -> Sequence[Row]:
        return self.rows(2 * 100)


@pytest.mark.parametrize("answer", ["silent", "CONFLICT", "VALIDATION_ERROR"])
def test_a_batch_that_fares_badly_as_a_whole_is_halved(
    answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = TestHubSpotContactsByEmail()
    monkeypatch.setenv("HUBSPOT_TOKEN", TOKEN)
    with account() as server:
        deployment = kit.Deployment.make(tmp_path, suite.settings.replace("{url}", server.url))
        deployment.write(0, suite.rows(4), suite.schema)
        server.fail("refuse_batch", code=answer, times=3)
        report = deployment.send(0, "r1")
        assert (report.sent, report.rejected, report.requests) == (3, 1, 5)
        server.fail("throttle", code="DAILY")
        stopped = deployment.send(0, "r2")
        assert (stopped.status, stopped.reason) == (
            Status.STOPPED,
            "the day's calls of the HubSpot account are used up",
        )
        suite.finish(deployment, server, suite.rows(4))


def test_by_email_the_settings_must_say_upsert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBSPOT_TOKEN", TOKEN)
    settings = TestHubSpotContactsByEmail.settings.replace("{url}", "http://127.0.0.1:9").replace("match: upsert\n", "")
    with pytest.raises(SettingsError, match="update_only is not possible here; it must be upsert"):
        kit.Deployment.make(tmp_path, settings)


def test_members_of_a_static_list_have_no_properties(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBSPOT_TOKEN", TOKEN)
    settings = TestHubSpotLists.settings.replace("{url}", "http://127.0.0.1:9") + "\nproperties: {plan: plan_name}"
    with pytest.raises(SettingsError, match="properties: members of this list have none"):
        kit.Deployment.make(tmp_path, settings)
