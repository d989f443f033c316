"""Meta's connector passes the shared suite; and what is Meta's alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from heap_assets.activation import Mode, Status
from heap_assets.errors import SettingsError
from heap_assets_tests.connectors import kit
from heap_assets_tests.connectors.servers.core import VendorServer
from heap_assets_tests.connectors.servers.meta import Meta
from heap_assets_tests.connectors.suite import ConnectorSuite, Row

TOKEN, SECRET = "meta-token-4711", "meta-secret-4711"
_ACCOUNT = """
kind: meta_audience
base_url: {url}
audience_id: 1001
access_token: ${META_TOKEN}
app_secret: ${META_SECRET}
consent: ads
"""


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class TestMetaAudience(ConnectorSuite):
    """Members by an id of one's own."""

    settings = _ACCOUNT + "batch_rows: 400\nproperties: {EMAIL: email, PHONE: phone, COUNTRY: land}"
    secrets = {"META_TOKEN": TOKEN, "META_SECRET": SECRET}
    schema = {"id": pl.String, "email": pl.String, "phone": pl.String, "land": pl.String, "ads": pl.Boolean}
    mode = Mode.SET
    renews = False
    many = 1_000
    faults = {"throttle": {"wait": 0.0}}
    absent = {"no_match": "an audience takes any identifier", "duplicate_key": "a key is one member"}

    def make_server(self) -> Meta:
        return Meta(token=TOKEN, secret=SECRET)

    def row(self, number: int, version: int = 0) -> Row:
        email, phone = f"Person{number}@X.example", f"+49 (30) {100_000 + number}"
        return {"id": f"person-{number}", "email": email, "phone": phone, "land": "DE", "ads": True}

    def expected(self, row: Row) -> Mapping[str, Any]:
        return {}

    def held(self, server: VendorServer) -> list[tuple[str, Mapping[str, Any]]]:
        return [(key, {}) for key in server.lists["1001"]]

    def bad_value(self, row: Row, server: VendorServer) -> object:
        return row["id"]

    def at_limits(self) -> Sequence[Row]:
        rows = self.rows(401)
        return [{**rows[0], "id": "i" * 255}, {**rows[1], "email": None}, *rows[2:]]

    def beyond_limits(self) -> Sequence[Row]:
        row = self.row(500)
        without = {"email": "nobody", "phone": "030 100001", "land": "Germany"}
        return [
            {**row, "id": "i" * 256},
            {**row, "id": "ann@x.example"},
            {**row, "id": "hashed", "email": digest("a@x.io")},
            {**row, "id": "no-identifier", **without},
        ]


class TestMetaAudienceReplaced(TestMetaAudience):
    """An audience that is given whole."""

    settings = TestMetaAudience.settings + "\nreplace: true"
    whole = True
    absent = {
        **TestMetaAudience.absent,
        "bad_row": "invalid rows are counted, and an audience that goes whole is not sent in parts to find them",
        "whole_batch_refused": "an audience that goes whole is not sent in parts: the run ends",
        "token_expiry": "of an audience that goes whole nothing counts before its last call",
    }


def deployment_of(
    suite: TestMetaAudience, server: Meta, folder: Path, monkeypatch: pytest.MonkeyPatch, more: str = ""
) -> kit.Deployment:
    for name, value in suite.secrets.items():
        monkeypatch.setenv(name, value)
    return kit.Deployment.make(folder, suite.settings.replace("{url}", server.url) + more)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"code": 100, "subcode": 1713230}, "Meta has blocked uploads"),
        ({"code": 190, "subcode": 463}, "does not accept the access token"),
        ({"code": 2655}, "the terms of custom audiences"),
    ],
)
def test_codes_that_no_retry_will_change_end_the_run(
    fault: dict[str, Any], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = TestMetaAudience()
    with suite.make_server() as server:
        deployment = deployment_of(suite, server, tmp_path, monkeypatch)
        deployment.write(0, suite.rows(), suite.schema)
        server.fail("refuse_batch", **fault)
        report = deployment.send(0, "r1")
        assert (report.status, report.requests) == (Status.STOPPED, 1)
        assert reason in str(report.reason)
        suite.finish(deployment, server, suite.rows())


def test_a_replacement_that_was_cut_off_goes_on_in_its_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = TestMetaAudienceReplaced()
    with suite.make_server() as server:
        deployment = deployment_of(suite, server, tmp_path, monkeypatch, "\nproof_has_time: true")
        server.proof = "time"
        deployment.write(0, suite.rows(900), suite.schema)
        server.fail("refuse_batch", code=190, skip=1)
        assert deployment.send(0, "r1").status is Status.STOPPED
        assert server.lists["1001"] == set()
        left = suite.rows(900)[1:850]  # the first is in the part that the session has already
        deployment.write(0, left, suite.schema)
        suite.finish(deployment, server, left)
        told = [call.body["session"] for call in server.calls if "session" in call.body]
        assert len({one["session_id"] for one in told}) == 1
        assert [one["batch_seq"] for one in told] == [1, 2, 2, 3, 4]
        assert server.calls[-1].method == "DELETE"
        deployment.write(0, [], suite.schema)
        assert deployment.send(0, "r4").status is Status.SUCCEEDED
        assert server.lists["1001"] == set()


def test_a_key_that_is_an_identifier_goes_as_its_hash_and_invalid_rows_that_are_too_many_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("META_TOKEN", TOKEN)
    settings = _ACCOUNT.replace("app_secret: ${META_SECRET}", "") + "key_identifier: EMAIL"
    with Meta(token=TOKEN) as server:
        deployment = kit.Deployment.make(tmp_path, settings.replace("{url}", server.url))
        rows = [{"id": f"Person{number}@X.example", "ads": True} for number in range(10_001)]
        people = [digest(f"person{number}@x.example") for number in range(10_001)]
        for person in people[:30]:
            server.fail("bad_row", key=person)
        schema = {"id": pl.String, "ads": pl.Boolean}
        deployment.write(0, [*rows, {"id": "nobody", "ads": True}], schema)
        report = deployment.send(0, "r1")
        assert (report.status, report.sent, report.rejected, report.invalid) == (Status.PARTIAL, 9_971, 30, 1)
        assert (report.requests, report.rejections) == (2, {"Meta counts it as invalid": 30})
        assert server.lists["1001"] == set(people[30:])
        deployment.write(1, [{**row, "ads": number > 9_000} for number, row in enumerate(rows)], schema)
        assert deployment.send(1, "r2").removed == 9_001
        assert server.lists["1001"] == set(people[9_001:])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (_ACCOUNT, "Meta finds nobody by EXTERN_ID alone"),
        (_ACCOUNT + "properties: {Mail: email}", "'Mail' is none of COUNTRY, CT"),
        (_ACCOUNT.replace("consent: ads", "properties: {EMAIL: email}"), "consent"),
    ],
)
def test_what_cannot_be_is_said_when_settings_are_loaded(
    settings: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in TestMetaAudience.secrets.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=message):
        kit.Deployment.make(tmp_path, settings.replace("{url}", "http://127.0.0.1:9"))
