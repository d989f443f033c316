"""Marketing Cloud's connectors pass the shared suite; and what is Marketing Cloud's alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from heap_assets.activation import Mode, Status, connectors
from heap_assets.activation.engine import auth
from heap_assets.errors import SettingsError
from heap_assets_tests.connectors import kit
from heap_assets_tests.connectors.servers.core import VendorServer
from heap_assets_tests.connectors.servers.marketing_cloud import Column, MarketingCloudServer
from heap_assets_tests.connectors.suite import ConnectorSuite, Row

_TENANT = """
base_url: {url}
account_id: "100"
client_id: ${MARKETING_CLOUD_CLIENT_ID}
client_secret: ${MARKETING_CLOUD_CLIENT_SECRET}
longest_value: 200
"""


class MarketingCloud(ConnectorSuite):
    """What suites of rows and journeys share."""

    secrets = {"MARKETING_CLOUD_CLIENT_ID": "client-4711-abc", "MARKETING_CLOUD_CLIENT_SECRET": "secret-4711-abc"}

    def make_server(self) -> MarketingCloudServer:
        server = MarketingCloudServer()
        server.client_id, server.client_secret = self.secrets.values()
        server.extensions["people"] = {
            "Contact Key": Column(length=100, primary=True),
            "Stage": Column(length=200),
            "Score": Column("Number"),
            "IsPQL": Column("Boolean"),
            "Seen": Column("Date"),
        }
        server.extensions["orders"] = {"Order": Column(length=100, required=True), "Plan": Column(length=200)}
        server.event_extensions["APIEvent-1"] = "orders"
        return server


class TestMarketingCloudRows(MarketingCloud):
    """Rows of a data extension by its primary key."""

    settings = (
        "kind: marketing_cloud_rows\nmatch: upsert\ndata_extension: people\nkey_column: Contact Key\n"
        "properties: {Stage: stage, Score: score, IsPQL: pql, Seen: seen}\npoll_seconds: 0.02\nbatch_rows: 100"
        + _TENANT
    )
    schema = {
        "id": pl.String,
        "stage": pl.String,
        "score": pl.Int64,
        "pql": pl.Boolean,
        "seen": pl.Datetime("us", "UTC"),
    }
    many = 250
    absent = {"no_match": "rows are made: there is no call that only updates"}

    def row(self, number: int, version: int = 0) -> Row:
        return {
            "id": f"person{number}@x.example",
            "stage": f"stage-{number % 3}-{version}",
            "score": number,
            "pql": number % 2 == 0,
            "seen": datetime(2026, 11, 1, 9, number % 60, tzinfo=UTC),
        }

    def cleared(self, row: Row) -> Row:
        return {**row, "stage": None}

    def expected(self, row: Row) -> Mapping[str, Any]:
        seen = row["seen"].strftime("%Y-%m-%dT%H:%M:%SZ")
        return {"Stage": row["stage"], "Score": row["score"], "IsPQL": str(row["pql"]).lower(), "Seen": seen}

    def held(self, server: VendorServer) -> list[tuple[str, Mapping[str, Any]]]:
        rows = server.records.get("people", {}).values()
        return [(row["Contact Key"], {n: v for n, v in row.items() if n != "Contact Key"}) for row in rows]

    def duplicates(self, server: VendorServer, rows: Sequence[Row]) -> tuple[Sequence[Row], set[str]]:
        more = {**rows[0], "id": rows[0]["id"].title()}
        return [*rows, more], {rows[0]["id"], more["id"]}

    def at_limits(self) -> Sequence[Row]:
        return [*self.rows(199), {**self.row(199), "stage": "x" * 200}]

    def beyond_limits(self) -> Sequence[Row]:
        return [{**self.row(200), "stage": "x" * 201}]


class TestMarketingCloudJourneys(MarketingCloud):
    """Entries into a journey; nothing is deduped."""

    settings = (
        "kind: marketing_cloud_journeys\nevent_name: APIEvent-1\nevent_key: id\nkey: person\nsince: beginning\n"
        "timestamp_column: at\nproperties: {Order: id, Plan: plan_name}" + _TENANT
    )
    schema = {"id": pl.String, "person": pl.String, "plan_name": pl.String, "at": pl.Datetime("us", "UTC")}
    mode = Mode.INSERT
    dedupe = "none"

    def row(self, number: int, version: int = 0) -> Row:
        at = datetime(2026, 11, 1, tzinfo=UTC)
        return {"id": f"order-{number}", "person": f"person{number % 97}@x.example", "plan_name": "pro plan", "at": at}

    def expected(self, row: Row) -> Mapping[str, Any]:
        return {"contact": row["person"], "Plan": row["plan_name"]}

    def held(self, server: VendorServer) -> list[tuple[str, Mapping[str, Any]]]:
        return [
            (one["data"]["Order"], {"contact": one["contact"], "Plan": one["data"]["Plan"]}) for one in server.events
        ]

    def at_limits(self) -> Sequence[Row]:
        return [{**self.row(number), "plan_name": "x" * 200} for number in range(200)]

    def beyond_limits(self) -> Sequence[Row]:
        return [{**self.row(200), "plan_name": "x" * 201}]


# what is Marketing Cloud's alone


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[MarketingCloudServer]:
    for name, value in MarketingCloud.secrets.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(auth, "_tokens", {})
    with TestMarketingCloudRows().make_server() as one:
        yield one


def _deployment(server: MarketingCloudServer, folder: Path, settings: str) -> kit.Deployment:
    return kit.Deployment.make(folder, settings.replace("{url}", server.url))


def test_a_deadlock_is_no_bad_row_and_an_empty_status_no_end(server: MarketingCloudServer, tmp_path: Path) -> None:
    suite = TestMarketingCloudRows()
    deployment = _deployment(server, tmp_path, suite.settings)
    deployment.write(0, suite.rows(), suite.schema)
    server.empty_polls = 2
    server.fail("bad_row", key="person1@x.example", times=1, message="Transaction was DEADLOCKED on lock resources")
    report = deployment.send(0, "r1")
    assert (report.status, report.sent, report.deferred, report.rejected) == (Status.SUCCEEDED, 4, 1, 0)


def test_rows_that_a_request_did_not_come_to_are_sent_again(server: MarketingCloudServer, tmp_path: Path) -> None:
    suite = TestMarketingCloudRows()
    deployment = _deployment(server, tmp_path, suite.settings)
    deployment.write(0, suite.rows(), suite.schema)
    server.fail("job_fails", done=3)
    report = deployment.send(0, "r1")
    assert (report.status, report.sent) == (Status.SUCCEEDED, 5)
    suite.assert_held(server, suite.rows())


def test_a_later_run_goes_on_with_a_request_and_forgets_one_that_is_not_kept(
    server: MarketingCloudServer, tmp_path: Path
) -> None:
    suite = TestMarketingCloudRows()
    deployment = _deployment(server, tmp_path, suite.settings)
    for number, version in enumerate((0, 1)):
        deployment.write(number, suite.rows(version=version), suite.schema)
        server.fail("server_error", path="status$", times=9)
        assert deployment.send(number, f"r{number}").status is Status.STOPPED
        server.heal()
        if version:
            server.jobs.clear()
        report = deployment.send(number, f"again{number}")
        assert (report.status, report.resumed, report.sent) == (Status.SUCCEEDED, *((0, 5) if version else (5, 0)))
    suite.assert_held(server, suite.rows(version=1))


@pytest.mark.parametrize(("old", "new"), [("data_extension: people", "data_extension: nobody"), ('"100"', '"7"')])
def test_the_extension_is_that_of_the_business_unit(
    server: MarketingCloudServer, tmp_path: Path, old: str, new: str
) -> None:
    suite = TestMarketingCloudRows()
    deployment = _deployment(server, tmp_path, suite.settings.replace(old, new))
    deployment.write(0, suite.rows(), suite.schema)
    report = deployment.send(0, "r1")
    if new == '"7"':
        assert set(server.records) == {"parent/people"}
    else:
        assert (report.status, report.requests) == (Status.STOPPED, 1)
        assert report.reason == "Marketing Cloud has no data extension with the key nobody"


@pytest.mark.parametrize(
    ("suite", "old", "new", "message"),
    [
        (TestMarketingCloudRows, "match: upsert\n", "", "match: there is no default here; it must be upsert"),
        (TestMarketingCloudRows, "match: upsert", "match: update_only", "update_only is not possible here"),
        (TestMarketingCloudRows, "base_url: {url}", "subdomain: evil.example/", "subdomain"),
        (TestMarketingCloudRows, "base_url: {url}", "", "subdomain: which tenant is it"),
        (TestMarketingCloudJourneys, "APIEvent-1", "API.Event", "holds no period"),
    ],
)
def test_what_cannot_be_is_said_when_settings_are_loaded(
    server: MarketingCloudServer, tmp_path: Path, suite: type[ConnectorSuite], old: str, new: str, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        _deployment(server, tmp_path, suite.settings.replace(old, new))


def test_the_subdomain_is_that_of_the_login() -> None:
    model = connectors()["marketing_cloud_rows"].settings_model
    settings = model.model_validate(
        {
            "kind": "marketing_cloud_rows",
            "source": "people",
            "match": "upsert",
            "subdomain": "mc-1",
            "account_id": "1",
            "client_id": "a",
            "client_secret": "b",
            "data_extension": "d",
            "key_column": "k",
            "properties": {"p": "c"},
        }
    )
    assert settings.url == "https://mc-1.auth.marketingcloudapis.com"
    assert settings.vendor == "marketing_cloud"
