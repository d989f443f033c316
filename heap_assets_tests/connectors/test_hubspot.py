"""HubSpot's connectors pass the shared suite; and what is HubSpot's alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

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
