"""Pipedrive's connectors pass the shared suite; and what is Pipedrive's alone."""

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
from heap_assets_tests.connectors.servers.pipedrive import PipedriveServer
from heap_assets_tests.connectors.suite import ConnectorSuite, Row

TOKEN = "pipedrive-token-4711"
_COMPANY = """
base_url: {url}
api_token: ${PIPEDRIVE_TOKEN}
tokens_per_day: 1000000
calls_per_2_seconds: 2000
requests_in_flight: 2
"""
_CUSTOM = {"Heap id": "varchar", "Plan": "varchar", "Seats": "double", "Is PQL": "enum", "Trial end": "date"}


class Pipedrive(ConnectorSuite):
    """What suites of persons and organizations share."""

    secrets = {"PIPEDRIVE_TOKEN": TOKEN}
    schema = {
        "id": pl.String,
        "full": pl.String,
        "plan_name": pl.String,
        "seats": pl.Int64,
        "pql": pl.Boolean,
        "ends": pl.Date,
    }
    of = "persons"
    index_seconds = 0.0
    renews = False
    many = 25
    faults = {"token_expired": {"skip": 45}}
    keys_in_addresses = True

    def make_server(self) -> PipedriveServer:
        server = PipedriveServer(index_seconds=self.index_seconds, day_tokens=1_000_000, burst=2_000)
        server.token = TOKEN
        for name, kind in _CUSTOM.items():
            server.add_field(self.of, name, kind, {1: "True", 2: "False"} if kind == "enum" else None)
        return server

    def codes(self, server: VendorServer) -> dict[str, str]:
        """Return the keys of custom fields by name."""
        assert isinstance(server, PipedriveServer)
        return {name: code for code, (name, _, _) in server.fields[self.of].items()}

    def make(self, server: VendorServer, key: str) -> str:
        """Make a record, as people there do."""
        assert isinstance(server, PipedriveServer)
        id = str(server.next_id())
        server._write(self.of, id, {"name": "A. Ng", "custom_fields": {self.codes(server)["Heap id"]: key}})
        return id

    def seed(self, server: VendorServer, rows: Sequence[Row]) -> None:
        known = {key for key, _ in self.held(server)}
        for row in rows:
            if row["id"] not in known and len(row["id"]) <= 255:
                self.make(server, row["id"])

    def row(self, number: int, version: int = 0) -> Row:
        return {
            "id": f"Person-{number}",
            "full": f"Ann Ng {number}",
            "plan_name": f"plan-{number % 3}-{version}",
            "seats": number,
            "pql": number % 2 == 0,
            "ends": date(2026, 11, 1) + timedelta(days=number % 30),
        }

    def cleared(self, row: Row) -> Row:
        return {**row, "plan_name": None}

    def expected(self, row: Row) -> Mapping[str, Any]:
        custom = {"Plan": row["plan_name"], "Seats": row["seats"], "Is PQL": 1 if row["pql"] else 2}
        return custom | {"Trial end": str(row["ends"]), "name": row["full"]}

    def held(self, server: VendorServer) -> list[tuple[str, Mapping[str, Any]]]:
        names = {code: name for name, code in self.codes(server).items()}
        held = []
        for record in server.records.get(self.of, {}).values():
            values = {names[code]: value for code, value in record["custom_fields"].items()}
            key = values.pop("Heap id", None) or record["emails"][0]["value"]
            held.append((key, {**values, "name": record["name"]}))
        return held

    def bad_value(self, row: Row, server: VendorServer) -> object:
        return row["full"]

    def at_limits(self) -> Sequence[Row]:
        return [*self.rows(19), {**self.row(19), "plan_name": "ü" * 255}]

    def beyond_limits(self) -> Sequence[Row]:
        return [{**self.row(20), "plan_name": "x" * 256}, {**self.row(21), "id": "x" * 256}]

    def assert_held(self, server: VendorServer, rows: Sequence[Row]) -> None:
        """Records of rows that cannot be sent are there too, as people made them."""
        sent = {str(row[self.key]) for row in rows}
        held = self.held(server)
        assert len({key for key, _ in held}) == len(held), "something was made twice"
        told = {key: {n: v for n, v in values.items() if v is not None} for key, values in held if key in sent}
        assert told == {
            str(row[self.key]): {n: v for n, v in self.expected(row).items() if v is not None} for row in rows
        }


_PROPERTIES = "properties: {name: full, Plan: plan_name, Seats: seats, Is PQL: pql, Trial end: ends}\n"


class TestPipedrivePersons(Pipedrive):
    """update_only by a custom field."""

    settings = "kind: pipedrive_persons\nkey_field: Heap id\n" + _PROPERTIES + _COMPANY
    faults = {"token_expired": {"skip": 66}}
    absent = {"create": "no person is made: update_only", "whole_batch_refused": "a call is one person"}

    def duplicates(self, server: VendorServer, rows: Sequence[Row]) -> tuple[Sequence[Row], set[str]]:
        self.make(server, rows[1]["id"])
        # the same text in another field is no hit
        other = server.table(self.of)[self.make(server, "other")]
        other["custom_fields"][self.codes(server)["Plan"]] = rows[2]["id"]
        return rows, {rows[1]["id"]}

    def test_an_id_is_searched_for_once_and_again_when_it_is_gone(
        self, deployment: kit.Deployment, server: PipedriveServer
    ) -> None:
        rows = self.first(deployment, server)
        gone = next(iter(server.table(self.of).values()))
        gone["is_deleted"] = True
        deployment.write(1, self.rows(5, version=1), self.schema)
        report = deployment.send(1, "r2")
        assert (report.status, report.sent, report.no_match) == (Status.SUCCEEDED, 4, 1)
        assert [call.path.rpartition("/")[2] for call in server.calls].count("search") == len(rows) + 1

    @pytest.mark.parametrize("wrong", ["Plan", "Heap id"])
    def test_a_field_that_is_not_there_ends_the_run(
        self, deployment: kit.Deployment, server: PipedriveServer, wrong: str
    ) -> None:
        code = self.codes(server)[wrong]
        rows = self.rows()
        deployment.write(0, rows, self.schema)
        name, _, options = server.fields[self.of][code]
        if wrong == "Plan":
            del server.fields[self.of][code]
        else:
            server.fields[self.of][code] = (name, "double", options)
        report = deployment.send(0, "r1")
        assert (report.status, report.sent, report.requests) == (Status.STOPPED, 0, 1)
        assert wrong in str(report.reason)
        tried = {one.name: one.passed for one in deployment.connector.preflight()}
        fields = {f"field {name}": name != wrong for name in ("name", *_CUSTOM) if name != "Heap id"}
        assert tried == {"login": True, "key Heap id": wrong != "Heap id"} | fields

    def test_an_option_that_a_field_does_not_have_refuses_its_row(
        self, deployment: kit.Deployment, server: PipedriveServer
    ) -> None:
        rows = self.rows()
        self.seed(server, rows)
        server.fields[self.of][self.codes(server)["Is PQL"]][2].pop(2)
        deployment.write(0, rows, self.schema)
        report = deployment.send(0, "r1")
        assert (report.sent, report.invalid) == (3, 2)

    def test_the_edge_is_a_throttle_and_the_days_tokens_end_the_run(
        self, deployment: kit.Deployment, server: PipedriveServer
    ) -> None:
        rows = self.rows(2)
        self.seed(server, rows)
        deployment.write(0, rows, self.schema)
        server.edge_after, server._refused = 0, 0
        unauthorised = server.authorise

        def once(call: Any) -> None:
            server.authorise = unauthorised  # type: ignore[method-assign]
            try:
                unauthorised(call)
            finally:
                server.edge_after = None

        server.authorise = once  # type: ignore[method-assign]
        report = deployment.send(0, "r1")
        assert (report.sent, report.throttled, len(server.violations)) == (2, 1, 1)
        server.violations.clear()
        server.limits[1].amount = 0
        deployment.write(1, self.rows(2, version=1), self.schema)
        report = deployment.send(1, "r2")
        assert (report.status, report.reason) == (
            Status.STOPPED,
            "the day's tokens of the Pipedrive company are used up",
        )
        server.violations.clear()


class TestPipedrivePersonsByEmail(Pipedrive):
    """upsert by e-mail address, of persons that the search does not know yet."""

    settings = "kind: pipedrive_persons\nkey_field: email\nmatch: upsert\n" + _PROPERTIES + _COMPANY
    index_seconds = 3_600.0
    absent = {"no_match": "persons are made: upsert", "whole_batch_refused": "a call is one person"}

    def seed(self, server: VendorServer, rows: Sequence[Row]) -> None: ...

    def row(self, number: int, version: int = 0) -> Row:
        return {**super().row(number, version), "id": f"Person{number}@x.example"}

    def duplicates(self, server: VendorServer, rows: Sequence[Row]) -> tuple[Sequence[Row], set[str]]:
        assert isinstance(server, PipedriveServer)
        for _ in range(2):
            emails = [{"value": rows[1]["id"].lower(), "primary": True, "label": "work"}]
            server._write("persons", str(server.next_id()), {"name": "A. Ng", "emails": emails})
        more = {**rows[0], "id": rows[0]["id"].upper()}
        return [*rows, more], {rows[0]["id"], rows[1]["id"], more["id"]}

    def beyond_limits(self) -> Sequence[Row]:
        return [*super().beyond_limits(), {**self.row(22), "full": None}]

    def test_timeout_after_acceptance(self, deployment: kit.Deployment, server: VendorServer) -> None:
        """A person that may have been made is not made again: the next run looks."""
        rows = self.rows(self.many)
        deployment.write(0, rows, self.schema)
        self.fail(server, "accept_then_no_answer")
        report = deployment.send(0, "r1")
        assert report.status is Status.PARTIAL
        assert 0 < report.unknown <= 10
        self.finish(deployment, server, rows)


class TestPipedriveOrganizations(Pipedrive):
    """upsert by a custom field."""

    settings = "kind: pipedrive_organizations\nkey_field: Heap id\nmatch: upsert\n" + _PROPERTIES + _COMPANY
    of = "organizations"
    absent = {
        "no_match": "organizations are made: upsert",
        "whole_batch_refused": "a call is one organization",
        "duplicate_key": "as with persons",
    }
    test_timeout_after_acceptance = TestPipedrivePersonsByEmail.test_timeout_after_acceptance

    def seed(self, server: VendorServer, rows: Sequence[Row]) -> None: ...


class TestPipedriveDeals(Pipedrive):
    """update_only by Pipedrive's own id."""

    settings = (
        "kind: pipedrive_deals\nkey_field: id\n" + _COMPANY + "properties: {title: full, value: seats, "
        "Plan: plan_name, Is PQL: pql, expected_close_date: ends}\n"
    )
    of = "deals"
    faults = {"token_expired": {"skip": 22}}
    absent = {
        "create": "no deal is made: an id is Pipedrive's to give",
        "duplicate_key": "an id is one deal",
        "whole_batch_refused": "a call is one deal",
    }

    def seed(self, server: VendorServer, rows: Sequence[Row]) -> None:
        assert isinstance(server, PipedriveServer)
        for row in rows:
            if row["id"].isdigit() and row["id"] not in server.table(self.of):
                server._write(self.of, row["id"], {"title": "A deal"})

    def row(self, number: int, version: int = 0) -> Row:
        return {**super().row(number, version), "id": str(7000 + number)}

    def expected(self, row: Row) -> Mapping[str, Any]:
        custom = {"Plan": row["plan_name"], "Is PQL": 1 if row["pql"] else 2}
        return custom | {"title": row["full"], "value": row["seats"], "expected_close_date": str(row["ends"])}

    def held(self, server: VendorServer) -> list[tuple[str, Mapping[str, Any]]]:
        names, held = {code: name for name, code in self.codes(server).items()}, []
        for id, record in server.records.get(self.of, {}).items():
            own = {name: record.get(name) for name in ("title", "value", "expected_close_date")}
            held.append((id, own | {names[code]: value for code, value in record["custom_fields"].items()}))
        return held

    def beyond_limits(self) -> Sequence[Row]:
        return [{**self.row(20), "plan_name": "x" * 256}, {**self.row(21), "id": "D-21"}]


def test_deals_by_a_custom_field_and_by_title(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = TestPipedriveDeals()
    monkeypatch.setenv("PIPEDRIVE_TOKEN", TOKEN)
    for name, key, mapped in (("own", "Heap id", "title: full, "), ("title", "title", "")):
        text = suite.settings.replace("key_field: id", f"key_field: {key}\nmatch: upsert")
        with suite.make_server() as server:
            (tmp_path / name).mkdir()
            sync = text.replace("title: full, ", mapped).replace("{url}", server.url)
            deployment = kit.Deployment.make(tmp_path / name, sync)
            rows = suite.rows(2)
            there = {"title": rows[0]["id"], "custom_fields": {suite.codes(server)["Heap id"]: rows[0]["id"]}}
            server._write("deals", "900", there)
            deployment.write(0, rows, suite.schema)
            assert deployment.send(0, "r1").sent == 2
            values = {id: one["value"] for id, one in server.records["deals"].items()}
            assert (len(values), values["900"]) == (2, rows[0]["seats"])
            assert server.violations == []


def test_organizations_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = TestPipedriveOrganizations()
    monkeypatch.setenv("PIPEDRIVE_TOKEN", TOKEN)
    text = suite.settings.replace("key_field: Heap id", "key_field: name").replace("name: full, ", "")
    with suite.make_server() as server:
        deployment = kit.Deployment.make(tmp_path, text.replace("{url}", server.url))
        rows = suite.rows(2)
        server._write("organizations", "900", {"name": rows[0]["id"].upper()})
        deployment.write(0, rows, suite.schema)
        assert deployment.send(0, "r1").sent == 2
        names = [record["name"] for record in server.records["organizations"].values()]
        assert names == [rows[0]["id"].upper(), rows[1]["id"]]
        assert server.violations == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: full, ", "", "map `name`"),
        ("base_url: {url}", "", "company: which one is it"),
        ("key_field: email", "key_field: id", "it must be update_only"),
    ],
)
def test_what_cannot_be_is_said_when_settings_are_loaded(
    old: str, new: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPEDRIVE_TOKEN", TOKEN)
    text = TestPipedrivePersonsByEmail.settings.replace(old, new).replace("{url}", "http://127.0.0.1:9")
    with pytest.raises(SettingsError, match=message):
        kit.Deployment.make(tmp_path, text)


def test_the_days_tokens_are_counted_by_what_calls_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = TestPipedrivePersons()
    monkeypatch.setenv("PIPEDRIVE_TOKEN", TOKEN)
    text = suite.settings.replace("tokens_per_day: 1000000", "tokens_per_day: 100")
    with suite.make_server() as server:
        server.limits[1].amount = 100
        deployment = kit.Deployment.make(tmp_path, text.replace("{url}", server.url))
        rows = suite.rows()
        suite.seed(server, rows)
        deployment.write(0, rows, suite.schema)
        report = deployment.send(0, "r1")
        # a list, and a search, a look and a write for each of three persons, and one more search without its look
        assert (report.status, report.throttled, report.requests) == (Status.STOPPED, 0, 1 + 3 * 3)
        assert "100 tokens are used up" in str(report.reason)
        assert server.violations == []


def test_lists_that_people_have_added_to_are_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = TestPipedrivePersons()
    monkeypatch.setenv("PIPEDRIVE_TOKEN", TOKEN)
    text = suite.settings.replace("name: full", "phones: full").replace("{url}", "http://127.0.0.1:9")
    deployment = kit.Deployment.make(tmp_path, text)
    deployment.write(0, suite.rows(1), suite.schema)
    with pytest.raises(SettingsError, match="'phones' clashes"):
        deployment.send(0, "r1")
