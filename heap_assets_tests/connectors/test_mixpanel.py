"""Mixpanel's connectors pass the shared suite; and what is Mixpanel's alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from heap_assets.activation import Mode
from heap_assets.errors import SettingsError
from heap_assets_tests.connectors import kit
from heap_assets_tests.connectors.servers.core import VendorServer
from heap_assets_tests.connectors.servers.mixpanel import Mixpanel
from heap_assets_tests.connectors.suite import ConnectorSuite, Row

TOKEN, SECRET = "project-token-4711", "service-secret-4711"
_ACCOUNT = "base_url: {url}\nproject_id: 1\ntoken: ${MIXPANEL_TOKEN}\n"
_MADE = "missing profiles are made: Mixpanel has no call that only updates"
_ONE = "a key is one profile"
_FIXED = "the token does not end"


class _Mixpanel(ConnectorSuite):
    secrets = {"MIXPANEL_TOKEN": TOKEN, "MIXPANEL_SECRET": SECRET}
    choices: Mapping[str, Any] = {}

    def make_server(self) -> Mixpanel:
        return Mixpanel(token=TOKEN, account=("service", SECRET), **self.choices)


class _Profiles(_Mixpanel):
    schema = {"id": pl.String, "plan_name": pl.String, "pql_score": pl.Float64, "pql": pl.Boolean}
    many = 2_100
    table = "users"
    prefix = ""

    def row(self, number: int, version: int = 0) -> Row:
        return {
            "id": f"person{number}@x.example",
            "plan_name": f"plan-{number % 3}-{version}",
            "pql_score": number + 0.5,
            "pql": number % 2 == 0,
        }

    def cleared(self, row: Row) -> Row:
        return {**row, "plan_name": None}

    def expected(self, row: Row) -> Mapping[str, Any]:
        return {"plan": row["plan_name"], "score": row["pql_score"], "is_pql": row["pql"]}

    def held(self, server: VendorServer) -> list[tuple[str, Mapping[str, Any]]]:
        return [(key.removeprefix(self.prefix), values) for key, values in server.records.get(self.table, {}).items()]

    def at_limits(self) -> Sequence[Row]:
        return [{**self.row(number), "plan_name": "ü" * 255} for number in range(1_000)]

    def beyond_limits(self) -> Sequence[Row]:
        rows = [self.row(number) for number in range(2_000, 2_003)]
        return [{**rows[0], "plan_name": "x" * 256}, {**rows[1], "id": "Anonymous"}, {**rows[2], "id": "x" * 256}]


_PROFILES = _ACCOUNT + "properties: {plan: plan_name, score: pql_score, is_pql: pql}"
_ABSENT = {"no_match": _MADE, "duplicate_key": _ONE, "token_expiry": _FIXED}


class TestMixpanelUsers(_Profiles):
    """Profiles of users; a refused call takes none."""

    settings = "kind: mixpanel_users\n" + _PROFILES
    absent = _ABSENT

    def test_nobody_gets_the_place_of_this_server(self, deployment: kit.Deployment, server: Mixpanel) -> None:
        self.first(deployment, server)
        assert not server.located

    def test_the_rest_of_a_refused_call_may_be_taken(self, deployment: kit.Deployment, server: Mixpanel) -> None:
        server.refused_profiles = "rest"
        self.test_bad_row(deployment, server)


class TestMixpanelGroups(_Profiles):
    """Profiles of groups."""

    settings = "kind: mixpanel_groups\ngroup_key: company\n" + _PROFILES
    absent = _ABSENT
    many, table, prefix = 250, "groups", "company/"

    def at_limits(self) -> Sequence[Row]:
        return super().at_limits()[:100]


class TestMixpanelEvents(_Mixpanel):
    """Events, by a service account."""

    settings = (
        "kind: mixpanel_events\nservice_account: service\nservice_secret: ${MIXPANEL_SECRET}\n"
        + _ACCOUNT
        + "event_name: Signed Up\nevent_key: id\nkey: person\ntimestamp_column: at\nsince: beginning\n"
        "properties: {plan: plan_name, order: id}"
    )
    schema = {"id": pl.String, "person": pl.String, "plan_name": pl.String, "at": pl.Datetime("us", "UTC")}
    mode = Mode.INSERT
    many = 4_100
    renews = False

    def row(self, number: int, version: int = 0) -> Row:
        at = datetime(2026, 11, 1, tzinfo=UTC) + timedelta(minutes=number % 10_000)
        return {"id": f"order-{number}", "person": f"person{number % 7}@x.example", "plan_name": "pro plan", "at": at}

    def expected(self, row: Row) -> Mapping[str, Any]:
        at = int(row["at"].timestamp())
        time = at * (1 if at < 10**9 else 1000)
        return {"plan": row["plan_name"], "distinct_id": row["person"], "time": time, "name": "Signed Up"}

    def held(self, server: VendorServer) -> list[tuple[str, Mapping[str, Any]]]:
        names = ("plan", "distinct_id", "time")
        found = [(event["event"], event["properties"]) for event in server.events]
        return [(told["order"], {"name": name, **{n: told.get(n) for n in names}}) for name, told in found]

    def bad_value(self, row: Row, server: VendorServer) -> object:
        return row["person"]

    def at_limits(self) -> Sequence[Row]:
        first = {**self.row(0), "at": datetime(1971, 1, 1, tzinfo=UTC)}
        return [first, *({**self.row(number), "plan_name": "x" * 255} for number in range(1, 2_000))]

    def beyond_limits(self) -> Sequence[Row]:
        rows = [self.row(number) for number in range(5_000, 5_003)]
        future = datetime.now(UTC) + timedelta(hours=2)
        return [{**rows[0], "at": future}, {**rows[1], "at": None}, {**rows[2], "plan_name": "x" * 256}]

    def test_failed_records_are_told_under_another_name(self, deployment: kit.Deployment, server: Mixpanel) -> None:
        server.insert_id_name = "insert_id"
        self.test_bad_row(deployment, server)
        assert not server.located

    def test_events_need_a_time(self, deployment: kit.Deployment) -> None:
        without = deployment.file.read_text().replace("timestamp_column: at\n", "\n")
        deployment.file.write_text(without)
        with pytest.raises(SettingsError, match=r"sync\.it\.timestamp_column"):
            kit.Deployment(deployment.file).connector.check()
