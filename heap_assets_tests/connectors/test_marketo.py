"""Marketo's connectors pass the shared suite; and what is Marketo's alone."""

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
from heap_assets_tests.connectors.servers.marketo import MarketoServer
from heap_assets_tests.connectors.suite import ConnectorSuite, Row

_INSTANCE = """
base_url: {url}/rest
client_id: ${MARKETO_CLIENT_ID}
client_secret: ${MARKETO_CLIENT_SECRET}
"""


class Marketo(ConnectorSuite):
    """What suites of leads and lists share."""

    secrets = {"MARKETO_CLIENT_ID": "client-4711-abc", "MARKETO_CLIENT_SECRET": "secret-4711-abc"}
    many = 700

    def make_server(self) -> MarketoServer:
        server = MarketoServer()
        server.client_id, server.client_secret = self.secrets.values()
        server.fields |= {"leadScore": "score", "productStage": "string", "isPql": "boolean"}
        server.lists["7"] = set()
        return server

    def seed(self, server: VendorServer, rows: Sequence[Row]) -> None:
        assert isinstance(server, MarketoServer)
        for row in rows:
            if not server.find("email", row["id"]):
                server.write(None, {"email": row["id"]})


class TestMarketoLeads(Marketo):
    """update_only by e-mail."""

    settings = "kind: marketo_leads\nproperties: {productStage: stage, leadScore: score, isPql: pql}" + _INSTANCE
    schema = {"id": pl.String, "stage": pl.String, "score": pl.Int64, "pql": pl.Boolean}
    absent = {"create": "no lead is made: update_only"}

    def row(self, number: int, version: int = 0) -> Row:
        key = f"person{number}@x.example"
        return {"id": key, "stage": f"stage-{number % 3}-{version}", "score": number, "pql": number % 2 == 0}

    def cleared(self, row: Row) -> Row:
        return {**row, "stage": None}

    def expected(self, row: Row) -> Mapping[str, Any]:
        return {"productStage": row["stage"], "leadScore": row["score"], "isPql": row["pql"]}

    def held(self, server: VendorServer) -> list[tuple[str, Mapping[str, Any]]]:
        names = ("productStage", "leadScore", "isPql")
        return [(lead["email"], {n: lead.get(n) for n in names}) for lead in server.records.get("lead", {}).values()]

    def duplicates(self, server: VendorServer, rows: Sequence[Row]) -> tuple[Sequence[Row], set[str]]:
        assert isinstance(server, MarketoServer)
        server.write(None, {"email": rows[1]["id"]})
        more = {**rows[0], "id": rows[0]["id"].title()}
        return [*rows, more], {rows[0]["id"], rows[1]["id"], more["id"]}

    def at_limits(self) -> Sequence[Row]:
        long = "a" * (255 - len("@x.example")) + "@x.example"
        return [*self.rows(598), {**self.row(598), "stage": "x" * 255}, {**self.row(599), "id": long}]

    def beyond_limits(self) -> Sequence[Row]:
        long = "a" * (256 - len("@x.example")) + "@x.example"
        return [{**self.row(600), "id": long}, {**self.row(601), "id": "jürgen@x.example"}]

    def seed(self, server: VendorServer, rows: Sequence[Row]) -> None:
        super().seed(server, [row for row in rows if row["id"].isascii() and len(row["id"]) <= 255])


class TestMarketoLeadsUpsert(TestMarketoLeads):
    """upsert by e-mail."""

    settings = TestMarketoLeads.settings + "match: upsert\n"
    absent = {"no_match": "leads are made: upsert"}

    def seed(self, server: VendorServer, rows: Sequence[Row]) -> None: ...

    def duplicates(self, server: VendorServer, rows: Sequence[Row]) -> tuple[Sequence[Row], set[str]]:
        assert isinstance(server, MarketoServer)
        for _ in range(2):
            server.write(None, {"email": rows[1]["id"]})
        return rows, {rows[1]["id"]}


class TestMarketoLists(Marketo):
    """Members of a static list by e-mail."""

    settings = "kind: marketo_lists\nlist_id: 7" + _INSTANCE
    schema = {"id": pl.String}
    mode = Mode.SET

    def row(self, number: int, version: int = 0) -> Row:
        return {"id": f"person{number}@x.example"}

    def expected(self, row: Row) -> Mapping[str, Any]:
        return {}

    def held(self, server: VendorServer) -> list[tuple[str, Mapping[str, Any]]]:
        return [(server.records["lead"][id]["email"], {}) for id in server.lists["7"]]

    def bad_value(self, row: Row, server: VendorServer) -> object:
        assert isinstance(server, MarketoServer)
        return server.find("email", row["id"])[0]

    absent = {"bad_row": "a lead is a member or is missing, nothing else"}

    def duplicates(self, server: VendorServer, rows: Sequence[Row]) -> tuple[Sequence[Row], set[str]]:
        assert isinstance(server, MarketoServer)
        server.write(None, {"email": rows[1]["id"]})
        return rows, {rows[1]["id"]}

    def at_limits(self) -> Sequence[Row]:
        return [{"id": f"{number:03}{'a' * 200}@x.example"} for number in range(300)]


class TestMarketoListsOtherWords(TestMarketoLists):
    """An instance that says `skipped` of members that were there already."""

    def make_server(self) -> MarketoServer:
        server = super().make_server()
        server.member_words = False
        return server


@pytest.mark.parametrize(("code", "reason"), [("607", "the day's calls"), ("603", "lacks a right")])
def test_errors_that_no_retry_will_change_end_the_run(
    code: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = TestMarketoLeads()
    for name, value in suite.secrets.items():
        monkeypatch.setenv(name, value)
    with suite.make_server() as server:
        deployment = kit.Deployment.make(tmp_path, suite.settings.replace("{url}", server.url))
        suite.seed(server, suite.rows())
        deployment.write(0, suite.rows(), suite.schema)
        server.fail("refuse_batch", code=code)
        report = deployment.send(0, "r1")
        assert (report.status, report.requests) == (Status.STOPPED, 1)
        assert reason in str(report.reason)
        suite.finish(deployment, server, suite.rows())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("match: upsert\nlookup_field: id", "upsert is not possible here; it must be update_only"),
        ("partition: Europe", "partition: only new leads are given one"),
    ],
)
def test_what_cannot_be_is_said_when_settings_are_loaded(
    more: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in Marketo.secrets.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=message):
        kit.Deployment.make(tmp_path, TestMarketoLeads.settings.replace("{url}", "http://127.0.0.1:9") + more)
