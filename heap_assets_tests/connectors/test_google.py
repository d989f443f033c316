"""Google's connectors of the Data Manager pass the shared suite; and what is Google's alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from heap_assets import clock
from heap_assets.activation import Mode, Status
from heap_assets.errors import SettingsError
from heap_assets.quality import Cadence, delivery_recency_check, nothing_to_compare
from heap_assets.quality.sync import nothing_unanswered
from heap_assets_tests.connectors import kit
from heap_assets_tests.connectors.servers.core import VendorServer
from heap_assets_tests.connectors.servers.google_accounts import CLIENT
from heap_assets_tests.connectors.servers.google_data_manager import GoogleDataManager
from heap_assets_tests.connectors.suite import ConnectorSuite, Row

_ACCOUNT = """
base_url: {url}
account_id: 123-456-7890
login_account_id: "9876543210"
service_account: ${GOOGLE_SERVICE_ACCOUNT}
poll_seconds: 0.01
consent: ads
"""
_AUDIENCE = "kind: google_audiences\naudience_id: 77\nterms: accepted" + _ACCOUNT


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class Google(ConnectorSuite):
    """What suites of Google share: the key of the service account is the server's."""

    schema: Mapping[str, Any] = {"id": pl.String, "phone": pl.String, "ads": pl.Boolean}

    def make_server(self) -> GoogleDataManager:
        return GoogleDataManager(products={"77"}, accounts={"1234567890"})

    @pytest.fixture
    def deployment(self, server: VendorServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> kit.Deployment:
        return deployment_of(type(self), server, tmp_path, monkeypatch)


def deployment_of(
    suite: type[ConnectorSuite], server: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, more: str = ""
) -> kit.Deployment:
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", json.dumps(server.service_account()))
    for name, value in suite.secrets.items():
        monkeypatch.setenv(name, value)
    return kit.Deployment.make(folder, suite.settings.replace("{url}", server.url) + more)


class TestGoogleAudiences(Google):
    """Members by e-mail address, with a phone number beside it."""

    settings = _AUDIENCE + "properties: {phone: phone}"
    mode = Mode.SET
    absent = {"no_match": "an audience takes any identifier", "duplicate_key": "a key is one member"}

    def row(self, number: int, version: int = 0) -> Row:
        return {"id": f"Person{number}@X.example", "phone": f"+49 30 {1_000_000 + number}", "ads": True}

    def expected(self, row: Row) -> Mapping[str, Any]:
        return {}

    def held(self, server: VendorServer) -> list[tuple[str, Mapping[str, Any]]]:
        """Return what digests stand for; a phone number stays that nobody knew any more when its member left."""
        names = {digest(f"person{number}@x.example"): f"Person{number}@X.example" for number in range(10_001)}
        return [(names[key], {}) for key in server.lists.get("77", ()) if key in names]

    def bad_value(self, row: Row, server: VendorServer) -> object:
        return digest(row["id"].lower())

    def at_limits(self) -> Sequence[Row]:
        return [{**self.row(0), "phone": "030 1234567"}, *self.rows(10_001)[1:]]

    def beyond_limits(self) -> Sequence[Row]:
        row = self.row(20_000)
        return [{**row, "id": "nobody"}, {**row, "id": digest("a@x.io")}, {**row, "phone": digest("+4930")}]


class TestGoogleConversions(Google):
    """Conversions by a click or an e-mail address."""

    settings = (
        "kind: google_conversions\nconversion_action_id: 77\ncurrency: EUR\nkey: person\nevent_key: id\n"
        "timestamp_column: at\nsince: beginning\n"
        "properties: {gclid: click, email: person, conversion_value: total, campaign_name: campaign}" + _ACCOUNT
    )
    schema = {
        "id": pl.String,
        "person": pl.String,
        "click": pl.String,
        "total": pl.Float64,
        "campaign": pl.String,
        "at": pl.Datetime("us", "UTC"),
        "ads": pl.Boolean,
    }
    mode = Mode.INSERT

    def row(self, number: int, version: int = 0) -> Row:
        return {
            "id": f"order-{number}",
            "person": f"person{number % 97}@x.example",
            "click": f"click-{number}",
            "total": number + 0.5,
            "campaign": "autumn-campaign",
            "at": datetime(2026, 11, 1, tzinfo=UTC) + timedelta(minutes=number),
            "ads": True,
        }

    def expected(self, row: Row) -> Mapping[str, Any]:
        return {"click": row["click"], "email": digest(row["person"] or ""), "value": row["total"], "at": row["at"]}

    def held(self, server: VendorServer) -> list[tuple[str, Mapping[str, Any]]]:
        return [(event["transactionId"], _conversion(event)) for event in server.events]

    def bad_value(self, row: Row, server: VendorServer) -> object:
        return row["id"]

    def at_limits(self) -> Sequence[Row]:
        return self.rows(2_001)

    def beyond_limits(self) -> Sequence[Row]:
        row = self.row(5_000)
        return [
            {**row, "id": "no-click", "click": None, "person": "nobody"},
            {**row, "id": "no-time", "at": None},
            {**row, "id": "hashed", "person": digest("a@x.io")},
        ]


def _conversion(event: Mapping[str, Any]) -> Mapping[str, Any]:
    [email] = event["userData"]["userIdentifiers"]
    assert (event["currency"], event["eventSource"]) == ("EUR", "WEB")
    assert event["customVariables"] == [{"variable": "campaign_name", "value": "autumn-campaign"}]
    at = datetime.fromisoformat(event["eventTimestamp"])
    return {
        "click": event["adIdentifiers"]["gclid"],
        "value": event["conversionValue"],
        "at": at,
        "email": email["emailAddress"],
    }


@pytest.mark.parametrize(
    ("late", "counts", "status"),
    [
        ({"order-1": "EVENT_TOO_OLD"}, {"Google: EVENT_TOO_OLD": 1}, "sent"),
        ({f"order-{n}": "INVALID_GCLID" for n in range(5)}, {"Google: INVALID_GCLID": 5}, "rejected"),
        ({f"order-{n}": "DUPLICATE_TRANSACTION_ID" for n in range(5)}, {}, "acknowledged"),
        ({f"order-{n}": "INTERNAL_ERROR" for n in range(5)}, {}, "deferred"),
    ],
)
def test_what_is_refused_after_it_was_queued_is_counted(
    late: Mapping[str, str], counts: dict[str, int], status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = TestGoogleConversions()
    with GoogleDataManager(late_errors=late) as server:
        deployment = deployment_of(type(suite), server, tmp_path, monkeypatch)
        deployment.write(0, suite.rows(), suite.schema)
        report = deployment.send(0, "r1")
        assert (report.rejections, report.rejected) == (counts, sum(counts.values()))
        assert report.status is (Status.PARTIAL if counts else Status.SUCCEEDED)
        assert set(deployment.ledger()["status"]) == {status}


def test_a_request_that_takes_long_is_asked_for_by_a_later_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = TestGoogleAudiences()
    with suite.make_server() as server:
        server.job_polls = 3
        deployment = deployment_of(type(suite), server, tmp_path, monkeypatch, "\npolls: 2")
        deployment.write(0, suite.rows(), suite.schema)
        first = deployment.send(0, "r1")
        assert (first.sent, first.unknown, len(server.calls)) == (0, 5, 4)  # a token, the request, two looks
        until = deployment.connector.populating_until
        assert until is not None
        assert timedelta(hours=47) < until - datetime.now(UTC) <= timedelta(hours=48)
        assert nothing_unanswered(first.unknown, until).passed
        assert not nothing_unanswered(first.unknown).passed
        recent = delivery_recency_check("sync/it", Cadence(), lambda: until)
        lake: Any = SimpleNamespace(store=SimpleNamespace(list=lambda prefix: [prefix]))
        context: Any = SimpleNamespace(lake=lake)
        assert recent.evaluate is not None
        assert recent.evaluate(context) == nothing_to_compare(
            f"the destination takes in its first rows until {until:%Y-%m-%d %H:%M} UTC"
        )
        with monkeypatch.context() as later:
            later.setattr(clock, "now", lambda: until + timedelta(seconds=1))
            assert deployment.connector.populating_until is None
        second = deployment.send(0, "r2")
        assert (second.status, second.resumed, second.planned) == (Status.SUCCEEDED, 5, 0)
        assert [call.path for call in server.calls].count("/v1/audienceMembers:ingest") == 1
        suite.assert_held(server, suite.rows())


@pytest.mark.parametrize("row_paths", ["short", None])
def test_a_row_is_found_however_a_refusal_names_it(
    row_paths: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = TestGoogleConversions()
    with GoogleDataManager(row_paths=row_paths) as server:
        deployment = deployment_of(type(suite), server, tmp_path, monkeypatch)
        deployment.write(0, suite.rows(), suite.schema)
        server.fail("bad_row", key="order-3")
        report = deployment.send(0, "r1")
        assert (report.sent, report.rejected) == (4, 1)
        assert {event["transactionId"] for event in server.events} == {f"order-{n}" for n in (0, 1, 2, 4)}


def test_a_request_that_is_refused_for_itself_ends_the_run_and_a_user_may_log_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = "".join(f"{name}: ${{GOOGLE_{name.upper()}}}\n" for name in CLIENT) + "token_url: {url}/token\n"
    for name, value in CLIENT.items():
        monkeypatch.setenv(f"GOOGLE_{name.upper()}", value)
    settings = _AUDIENCE.replace("service_account: ${GOOGLE_SERVICE_ACCOUNT}\n", user)
    rows = [{"id": "a@x.example", "ads": True}, {"id": "b@x.example", "ads": None}]
    with GoogleDataManager(products={"78"}) as server:
        deployment = kit.Deployment.make(tmp_path, settings.replace("{url}", server.url))
        deployment.write(0, rows, {"id": pl.String, "ads": pl.Boolean})
        report = deployment.send(0, "r1")
        assert (report.status, report.requests) == (Status.STOPPED, 1)
        assert "productDestinationId" in str(report.reason)
        server.products = {"77"}
        report = deployment.send(0, "r2")
        assert (report.status, report.sent, report.no_consent) == (Status.SUCCEEDED, 1, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (_AUDIENCE.replace("terms: accepted", ""), "terms"),
        (_AUDIENCE.replace("consent: ads", ""), "consent"),
        (_AUDIENCE.replace("service_account: ${GOOGLE_SERVICE_ACCOUNT}", ""), "service_account is missing"),
        (_AUDIENCE + "client_id: x", "give it, or client_id, client_secret and refresh_token"),
        (_AUDIENCE + "properties: {Phone: phone}", "'Phone' is none of phone"),
        (_AUDIENCE + "key_identifier: user_id\nproperties: {phone: phone}", "there are none"),
        (TestGoogleConversions.settings.replace("currency: EUR\n", ""), "conversion_value needs one"),
        (TestGoogleConversions.settings.replace("gclid: click, email: person, ", ""), "map one"),
    ],
)
def test_what_cannot_be_is_said_when_settings_are_loaded(
    settings: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", "{}")
    with pytest.raises(SettingsError, match=message):
        kit.Deployment.make(tmp_path, settings.replace("{url}", "http://127.0.0.1:9"))
