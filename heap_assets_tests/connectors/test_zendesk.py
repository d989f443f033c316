"""Zendesk's connector passes the shared suite; and what is Zendesk's alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from heap_assets.activation import Status
from heap_assets.errors import SettingsError
from heap_assets_tests.connectors import kit
from heap_assets_tests.connectors.servers.core import VendorServer
from heap_assets_tests.connectors.servers.zendesk import ZendeskServer
from heap_assets_tests.connectors.suite import ConnectorSuite, Row

TOKEN = "zendesk-token-4711"
_ACCOUNT = """
kind: zendesk_users
base_url: {url}
email: admin@example.com
api_token: ${ZENDESK_TOKEN}
calls_per_minute: 700
poll_seconds: 0.02
requests_in_flight: 2
"""
_OWN = ("plan", "seats", "is_pql", "trial_end")


class TestZendeskUsers(ConnectorSuite):
    """update_only by external id."""

    settings = _ACCOUNT + "properties: {notes: note, plan: plan_name, seats: seats, is_pql: pql, trial_end: ends}\n"
    secrets = {"ZENDESK_TOKEN": TOKEN}
    schema = {
        "id": pl.String,
        "mail": pl.String,
        "note": pl.String,
        "plan_name": pl.String,
        "seats": pl.Int64,
        "pql": pl.Boolean,
        "ends": pl.Date,
    }
    renews = False
    many = 450
    faults = {"server_error": {"wait": 0}, "token_expired": {"path": "_many", "skip": 3}}
    absent = {"create": "no user is made: update_only"}

    def make_server(self) -> ZendeskServer:
        server = ZendeskServer()
        server.api_token = TOKEN
        server.user_fields |= {"plan": "text", "seats": "integer", "is_pql": "checkbox", "trial_end": "date"}
        return server

    def seed(self, server: VendorServer, rows: Sequence[Row]) -> None:
        assert isinstance(server, ZendeskServer)
        for row in rows:
            if len(row["id"]) <= 255 and server.find("external_id", row["id"]) is None:
                server.write(None, {"external_id": row["id"], "name": "A. Ng"})

    def row(self, number: int, version: int = 0) -> Row:
        return {
            "id": f"Person-{number}",
            "mail": f"person{number}@x.example",
            "note": f"note of {number}",
            "plan_name": f"plan-{number % 3}-{version}",
            "seats": number,
            "pql": number % 2 == 0,
            "ends": date(2026, 11, 1) + timedelta(days=number % 30),
        }

    def cleared(self, row: Row) -> Row:
        return {**row, "plan_name": None}

    def expected(self, row: Row) -> Mapping[str, Any]:
        own = {"plan": row["plan_name"], "seats": row["seats"], "is_pql": row["pql"], "trial_end": str(row["ends"])}
        return own | {"notes": row["note"]}

    def held(self, server: VendorServer) -> list[tuple[str, Mapping[str, Any]]]:
        users = server.records.get("user", {}).values()
        return [(user["external_id"], {**user["user_fields"], "notes": user.get("notes")}) for user in users]

    def bad_value(self, row: Row, server: VendorServer) -> object:
        return row["note"]

    def duplicates(self, server: VendorServer, rows: Sequence[Row]) -> tuple[Sequence[Row], set[str]]:
        key = rows[0]["id"]
        return [*rows, {**rows[0], "id": key.upper()}], {key, key.upper()}

    def at_limits(self) -> Sequence[Row]:
        return [*self.rows(199), {**self.row(199), "id": "x" * 255}]

    def beyond_limits(self) -> Sequence[Row]:
        return [{**self.row(200), "id": "x" * 256}]

    def test_a_user_field_that_is_not_there_is_not_ignored(
        self, deployment: kit.Deployment, server: ZendeskServer
    ) -> None:
        del server.user_fields["plan"]
        rows = self.rows()
        self.seed(server, rows)
        deployment.write(0, [*rows[:2], *({**row, "plan_name": None} for row in rows[2:])], self.schema)
        report = deployment.send(0, "r1")
        assert (report.sent, report.rejected) == (3, 2)
        assert "no user field plan" in str(report.rejections)
        tried = {one.name: one.passed for one in deployment.connector.preflight()}
        own = {f"user field {name}": name != "plan" for name in _OWN}
        assert tried == {"login": True, "property notes": True} | own

    @pytest.mark.parametrize("state", ["failed", "killed"])
    def test_what_a_job_left_undone_is_sent_again(
        self, deployment: kit.Deployment, server: ZendeskServer, state: str
    ) -> None:
        rows = self.rows()
        self.seed(server, rows)
        deployment.write(0, rows, self.schema)
        server.fail("job_fails", status=state, done=2)
        report = deployment.send(0, "r1")
        assert (report.status, report.sent) == (Status.SUCCEEDED, 5)
        sizes = [len(call.body["users"]) for call in server.calls if call.method == "PUT"]
        assert sizes == [5, 3]
        self.assert_held(server, rows)

    @pytest.mark.parametrize("life", [3600.0, 0.0])
    def test_a_stopped_run_goes_on_polling_and_a_lost_job_is_made_again(
        self, deployment: kit.Deployment, server: ZendeskServer, life: float
    ) -> None:
        rows = self.rows()
        self.seed(server, rows)
        deployment.write(0, rows, self.schema)
        server.fail("token_expired", path="job_statuses")
        assert deployment.send(0, "r1").status is Status.STOPPED
        server.job_life = life
        report = deployment.send(0, "r2")
        jobs = [call.method for call in server.calls].count("PUT")
        if life:
            assert (report.status, report.resumed, jobs) == (Status.SUCCEEDED, 5, 1)
            return
        assert (report.unknown, jobs) == (5, 2)
        server.job_life = 3600.0
        self.finish(deployment, server, rows)

    def test_too_many_jobs_is_a_throttle(self, deployment: kit.Deployment, server: ZendeskServer) -> None:
        rows = self.rows()
        self.seed(server, rows)
        deployment.write(0, rows, self.schema)
        server.fail("throttle", code="TooManyJobs", path="update_many", wait=0.05)
        report = deployment.send(0, "r1")
        assert (report.sent, report.throttled) == (5, 1)


class TestZendeskUsersUpsert(TestZendeskUsers):
    """upsert by external id, with name and e-mail address."""

    settings = TestZendeskUsers.settings.replace("{notes: note", "{name: note, email: mail") + "match: upsert\n"
    absent = {"no_match": "users are made: upsert"}
    test_a_user_field_that_is_not_there_is_not_ignored = None
    test_what_a_job_left_undone_is_sent_again = None
    test_a_stopped_run_goes_on_polling_and_a_lost_job_is_made_again = None
    test_too_many_jobs_is_a_throttle = None

    def seed(self, server: VendorServer, rows: Sequence[Row]) -> None: ...

    def expected(self, row: Row) -> Mapping[str, Any]:
        own = {name: value for name, value in super().expected(row).items() if name != "notes"}
        return own | {"name": row["note"], "email": row["mail"]}

    def held(self, server: VendorServer) -> list[tuple[str, Mapping[str, Any]]]:
        assert isinstance(server, ZendeskServer)
        assert not server.mails
        users = server.records.get("user", {}).values()
        return [
            (user["external_id"], {**user["user_fields"], "name": user["name"], "email": user["email"]})
            for user in users
        ]

    def duplicates(self, server: VendorServer, rows: Sequence[Row]) -> tuple[Sequence[Row], set[str]]:
        assert isinstance(server, ZendeskServer)
        server.write(None, {"external_id": rows[1]["id"], "name": "A. Ng"})
        server.write(None, {"external_id": "another", "name": "B. Ng", "email": rows[1]["mail"]})
        return rows, {rows[1]["id"]}

    def beyond_limits(self) -> Sequence[Row]:
        return [{**self.row(200), "id": "x" * 256}, {**self.row(201), "note": None}]


@pytest.mark.parametrize("identifier", ["email", "id"])
def test_users_are_matched_otherwise(identifier: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = TestZendeskUsers()
    monkeypatch.setenv("ZENDESK_TOKEN", TOKEN)
    text = suite.settings.replace("{notes: note", "{name: note") + f"identifier: {identifier}\n"
    text += "match: upsert\nkey: mail" if identifier == "email" else "key: seats"
    with suite.make_server() as server:
        deployment = kit.Deployment.make(tmp_path, text.replace("{url}", server.url))
        rows = suite.rows(2)
        ids = [server.write(None, {"name": "A. Ng", "email": row["mail"], "role": "agent"}) for row in rows]
        rows = [{**row, "seats": id} for row, id in zip(rows, ids, strict=True)]
        deployment.write(0, rows, suite.schema)
        assert deployment.send(0, "r1").sent == 2
        users = server.records["user"].values()
        told = [(user["id"], user["name"], user["role"], user["user_fields"]["seats"]) for user in users]
        assert told == [(row["seats"], row["note"], "agent", row["seats"]) for row in rows]
        assert server.violations == []


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("identifier: email", "update_only is not possible here; it must be upsert"),
        ("identifier: id\nmatch: upsert", "upsert is not possible here; it must be update_only"),
        ("match: upsert", "map `name`"),
        ("oauth_token: x", "email: log in by email and api_token, or by oauth_token alone"),
        ("requests_in_flight: 20", "requests_in_flight"),
    ],
)
def test_what_cannot_be_is_said_when_settings_are_loaded(
    more: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZENDESK_TOKEN", TOKEN)
    text = TestZendeskUsers.settings.replace("{url}", "http://127.0.0.1:9").replace("requests_in_flight: 2\n", "")
    with pytest.raises(SettingsError, match=message):
        kit.Deployment.make(tmp_path, text + more)


class TestZendeskTickets(ConnectorSuite):
    """Links to sessions in a field of tickets."""

    settings = (
        _ACCOUNT.replace("zendesk_users", "zendesk_tickets").replace("poll_seconds: 0.02\n", "")
        + "ticket_fields: {session_link: 71, visits: 72}\nproperties: {session_link: link, visits: visits}\n"
    )
    secrets = {"ZENDESK_TOKEN": TOKEN}
    schema = {"id": pl.String, "link": pl.String, "visits": pl.Int64}
    renews = False
    keys_in_addresses = True
    many = 35
    faults = {"server_error": {"wait": 0}, "token_expired": {"skip": 31}}
    absent = {
        "create": "no ticket is made",
        "duplicate_key": "an id is one ticket",
        "whole_batch_refused": "a call is one ticket",
    }

    def make_server(self) -> ZendeskServer:
        server = ZendeskServer()
        server.api_token = TOKEN
        server.ticket_fields = {71: "text", 72: "integer"}
        return server

    def seed(self, server: VendorServer, rows: Sequence[Row]) -> None:
        assert isinstance(server, ZendeskServer)
        for row in rows:
            if row["id"].isdigit() and row["id"] not in server.table("ticket"):
                server.put_ticket(int(row["id"]), subject="Help")

    def row(self, number: int, version: int = 0) -> Row:
        link = f"https://heap.example/sessions/s-{number}-{version}"
        return {"id": str(4000 + number), "link": link, "visits": number}

    def cleared(self, row: Row) -> Row:
        return {**row, "link": None}

    def expected(self, row: Row) -> Mapping[str, Any]:
        return {"session_link": row["link"], "visits": row["visits"]}

    def held(self, server: VendorServer) -> list[tuple[str, Mapping[str, Any]]]:
        tickets = server.records.get("ticket", {})
        fields = {id: {one["id"]: one["value"] for one in ticket["custom_fields"]} for id, ticket in tickets.items()}
        return [(id, {"session_link": one.get(71), "visits": one.get(72)}) for id, one in fields.items()]

    def bad_value(self, row: Row, server: VendorServer) -> object:
        return row["link"]

    def at_limits(self) -> Sequence[Row]:
        return self.rows(12)

    def beyond_limits(self) -> Sequence[Row]:
        return [{**self.row(12), "id": "T-12"}]

    def test_a_field_that_is_not_there_is_not_ignored(self, deployment: kit.Deployment, server: ZendeskServer) -> None:
        server.ticket_fields = {72: "integer"}
        rows = self.rows(2)
        self.seed(server, rows)
        deployment.write(0, [rows[0], {**rows[1], "link": None}], self.schema)
        report = deployment.send(0, "r1")
        assert (report.sent, report.rejected) == (1, 1)
        assert "no ticket field 71 (session_link)" in str(report.rejections)

    def test_closed_and_deleted_tickets_are_left(self, deployment: kit.Deployment, server: ZendeskServer) -> None:
        rows = self.rows(3)
        self.seed(server, rows)
        server.put_ticket(int(rows[0]["id"]), status="closed")
        server.put_ticket(int(rows[1]["id"]), status="deleted")
        deployment.write(0, rows, self.schema)
        report = deployment.send(0, "r1")
        assert (report.sent, report.rejected, report.no_match) == (1, 1, 1)


@pytest.mark.parametrize("fields", ["{session_link: 71}", "{session_link: 71, visits: 72, more: 73}"])
def test_every_property_of_a_ticket_has_a_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: str) -> None:
    monkeypatch.setenv("ZENDESK_TOKEN", TOKEN)
    text = TestZendeskTickets.settings.replace("{session_link: 71, visits: 72}", fields)
    with pytest.raises(SettingsError, match="ticket_fields"):
        kit.Deployment.make(tmp_path, text.replace("{url}", "http://127.0.0.1:9"))
