"""Calls that the tests of the stand-in for Salesforce share."""

from __future__ import annotations

from typing import Any

import httpx

from heap_assets_tests.connectors.servers.clients import client
from heap_assets_tests.connectors.servers.core import ManualClock
from heap_assets_tests.connectors.servers.salesforce import SalesforceServer

V = "/services/data/v60.0"
LEADS = f"{V}/composite/sobjects/Lead/Heap_Id__c"
SECRET = {"grant_type": "client_credentials", "client_id": "client-1", "client_secret": "secret-1"}
NOW = ManualClock().now


def signed_in(org: SalesforceServer) -> httpx.Client:
    with client(org) as anyone:
        token = anyone.post("/services/oauth2/token", data=SECRET).json()["access_token"]
    return client(org, Authorization=f"Bearer {token}")


def lead(key: str = "u-1", **values: Any) -> dict[str, Any]:
    return {"attributes": {"type": "Lead"}, "Heap_Id__c": key, "LastName": "Ng", "Company": "Acme", **values}


def upsert(api: httpx.Client, *rows: dict[str, Any], **members: Any) -> Any:
    return api.patch(LEADS, json={"allOrNone": False, "records": rows} | members).json()


def query(api: httpx.Client, text: str, all: bool = False) -> list[dict[str, Any]]:
    answer = api.get(f"{V}/query{'All' if all else ''}", params={"q": text}).json()
    rows = answer["records"]
    while not answer["done"]:
        answer = api.get(answer["nextRecordsUrl"]).json()
        rows += answer["records"]
    assert answer["totalSize"] == len(rows)
    return [{name: value for name, value in row.items() if name != "attributes"} for row in rows]
