"""Google's connectors of the older Ads endpoints pass the shared suite; and what is theirs alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from heap_assets import clock
from heap_assets.activation import Mode, Status
from heap_assets.activation.engine import due
from heap_assets_tests.connectors import test_google as google
from heap_assets_tests.connectors.servers.core import VendorServer
from heap_assets_tests.connectors.servers.google_ads import GoogleAds
from heap_assets_tests.connectors.suite import Row

_ACCOUNT = """
base_url: {url}
customer_id: 123-456-7890
login_customer_id: "9876543210"
developer_token: ${DEVELOPER_TOKEN}
service_account: ${GOOGLE_SERVICE_ACCOUNT}
consent: ads
"""
_LIST = "customers/1234567890/userLists/77"


class Ads(google.Google):
    """What both suites share."""

    secrets = {"DEVELOPER_TOKEN": "developer-token-4711"}

    def make_server(self) -> Any:
        return GoogleAds(developer_token=self.secrets["DEVELOPER_TOKEN"])


class TestGoogleAdsAudiences(Ads):
    """Members by e-mail address, with a phone number beside it; each batch is a job."""

    settings = (
        "kind: google_ads_audiences\naudience_id: 77\npoll_seconds: 0.01\nproperties: {phone: phone}\npolls: 10"
        + _ACCOUNT
    )
    mode = Mode.SET
    absent = {"no_match": "an audience takes any identifier", "duplicate_key": "a key is one member"}

    def row(self, number: int, version: int = 0) -> Row:
        return {"id": f"Person{number}@X.example", "phone": f"+49 30 {1_000_000 + number}", "ads": True}

    def expected(self, row: Row) -> Mapping[str, Any]:
        return {}

    def held(self, server: VendorServer) -> list[tuple[str, Mapping[str, Any]]]:
        """Return what digests stand for; a phone number stays that nobody knew any more when its member left."""
        names = {google.digest(f"person{number}@x.example"): f"Person{number}@X.example" for number in range(10_001)}
        return [(names[key], {}) for key in server.lists.get(_LIST, ()) if key in names]

    def bad_value(self, row: Row, server: VendorServer) -> object:
        return google.digest(row["id"].lower())

    def at_limits(self) -> Sequence[Row]:
        return self.rows(10_001)

    def beyond_limits(self) -> Sequence[Row]:
        return [{**self.row(20_000), "id": "nobody"}]


class TestGoogleAdsConversions(Ads, google.TestGoogleConversions):
    """Conversions by a click."""

    settings = (
        "kind: google_ads_conversions\nconversion_action_id: 77\ncurrency: EUR\nkey: person\nevent_key: id\n"
        "timestamp_column: at\nsince: beginning\nproperties: {gclid: click, email: person, conversion_value: total}"
        + _ACCOUNT
    )

    def held(self, server: VendorServer) -> list[tuple[str, Mapping[str, Any]]]:
        return [(event["orderId"], _conversion(event)) for event in server.events]


def _conversion(event: Mapping[str, Any]) -> Mapping[str, Any]:
    [email] = event["userIdentifiers"]
    assert event["currencyCode"] == "EUR"
    at = datetime.fromisoformat(event["conversionDateTime"])
    return {"click": event["gclid"], "value": event["conversionValue"], "at": at, "email": email["hashedEmail"]}


def test_a_row_that_is_named_has_its_own_outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = TestGoogleAdsConversions()
    codes = {
        "order-0": "conversionUploadError.CLICK_CONVERSION_ALREADY_EXISTS",
        "order-1": "conversionUploadError.TOO_RECENT_EVENT",
        "order-2": "conversionUploadError.UNPARSEABLE_GCLID",
    }
    with GoogleAds(developer_token=suite.secrets["DEVELOPER_TOKEN"], row_errors=codes) as server:
        deployment = google.deployment_of(type(suite), server, tmp_path, monkeypatch)
        deployment.write(0, suite.rows(), suite.schema)
        server.fail("refuse_batch", code="databaseError.CONCURRENT_MODIFICATION")
        report = deployment.send(0, "r1")
        assert (report.sent, report.deferred, report.rejected, report.retried) == (3, 1, 1, 1)
        assert report.rejections == {"UNPARSEABLE_GCLID": 1}
        assert deployment.send(0, "r2").planned == 1, "the refused one is tried again, the early one is not due"


@pytest.mark.parametrize(
    ("made", "reason"),
    [({"allowlisted": False}, "take the kinds google_audiences"), ({"versions": ("v26",)}, "has ended this")],
)
def test_what_google_has_closed_ends_the_run(
    made: dict[str, Any], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = TestGoogleAdsAudiences()
    with GoogleAds(developer_token=suite.secrets["DEVELOPER_TOKEN"], **made) as server:
        deployment = google.deployment_of(type(suite), server, tmp_path, monkeypatch)
        deployment.write(0, suite.rows(), suite.schema)
        report = deployment.send(0, "r1")
        assert (report.status, report.requests) == (Status.STOPPED, 1)
        assert reason in str(report.reason)


def test_a_job_that_fails_refuses_its_rows_and_one_that_takes_hours_is_asked_for_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = TestGoogleAdsAudiences()
    with suite.make_server() as server:
        deployment = google.deployment_of(type(suite), server, tmp_path, monkeypatch)
        deployment.write(0, suite.rows(), suite.schema)
        server.fail("job_fails", reason="INSUFFICIENT_TIMELINE_FOR_UPLOAD")
        report = deployment.send(0, "r1")
        assert report.rejections == {"the job failed: INSUFFICIENT_TIMELINE_FOR_UPLOAD": 5}
        server.job_polls = 11
        server.fail("bad_row", key=google.digest("person3@x.example"))
        first = deployment.send(0, "r2")
        assert (first.sent, first.unknown) == (0, 5)
        second = deployment.send(0, "r3")
        assert (second.resumed, second.planned, second.rejected) == (4, 1, 1)
        assert dict(deployment.ledger().select("key", "status").rows())["Person3@X.example"] == "rejected"
        suite.assert_held(server, [row for row in suite.rows() if row["id"] != "Person3@X.example"])


@pytest.mark.parametrize("suite", [TestGoogleAdsAudiences(), google.TestGoogleAudiences()])
def test_what_google_has_not_ended_within_48_hours_is_given_once_more(
    suite: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with suite.make_server() as server:
        deployment = google.deployment_of(type(suite), server, tmp_path, monkeypatch)
        deployment.write(0, suite.rows(), suite.schema)
        server.job_polls = 1_000
        monkeypatch.setenv(clock.VARIABLE, (datetime.now(UTC) - timedelta(hours=47, minutes=50)).isoformat())
        assert deployment.send(0, "r1").unknown == 5
        monkeypatch.delenv(clock.VARIABLE)
        assert deployment.send(0, "r2").held == 5, "it is asked for until then"
        monkeypatch.setenv(clock.VARIABLE, (datetime.now(UTC) + timedelta(minutes=20)).isoformat())
        assert deployment.send(0, "r3").sent == 0
        assert set(deployment.ledger()["status"]) == {"deferred"}
        assert deployment.send(0, "r4").requests == 0, "not at once"
        server.job_polls = 1
        monkeypatch.setattr(due, "datetime", _Later)
        last = deployment.send(0, "r5")
        assert (last.planned, last.sent, last.unknown) == (5, 5, 0)
        suite.assert_held(server, suite.rows())


class _Later(datetime):
    """Two hours from now."""

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return datetime.now(tz) + timedelta(hours=2)
