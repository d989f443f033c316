"""Reading contacts back: by searches for what changed, each from the last id on.

A search shows 10,000 records at most, however they are paged. So no search is paged: each asks for the records with the
next higher ids, and none is asked for more than one page.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Literal

import orjson
import polars as pl
from pydantic import Field

from heap_assets.activation.connectors.hubspot.account import SEARCH, HubSpotAccount, HubSpotApi
from heap_assets.activation.connectors.reading import ApiSettings, frame_of
from heap_assets.activation.engine.api import Api
from heap_assets.activation.engine.exchange import Request
from heap_assets.activation.engine.verdict import reason_of
from heap_assets.errors import SourceError

_ID, _CHANGED = "hs_object_id", "lastmodifieddate"
_ALWAYS = (_ID, "createdate", _CHANGED)
_PAGE = 200
_LONGEST_PAGE = 32 << 20
_TYPES: Mapping[str, Any] = {
    "number": pl.Float64,
    "bool": pl.Boolean,
    "date": pl.Date,
    "datetime": pl.Datetime("us", "UTC"),
}
_CONTACTS = "contacts"


class HubSpotSource(HubSpotAccount, ApiSettings):
    """Contacts of HubSpot as the table `hubspot.contacts`.

    **To create there:** a private app with the scopes `crm.objects.contacts.read` and `crm.schemas.contacts.read`.

    **What is read:** the properties that `properties` names, with `hs_object_id`, `createdate` and `lastmodifieddate`;
    numbers, times, dates and booleans as such, all others as text. With `key: hs_object_id` and
    `updated_at: lastmodifieddate` what changed is read, 200 contacts a call and a few calls a second. HubSpot tells
    nobody which contacts were deleted or merged: they leave the table when everything is read, each `full_read_days`.
    **Never run against HubSpot itself.**
    """

    kind: Literal["hubspot"]
    properties: list[str] = Field(min_length=1, description="Properties that are read")
    path: str = Field(default="/crm/v3/objects/contacts", description="Path of the contacts; the version is part of it")

    def ids(self) -> Mapping[str, str]:
        return {_CONTACTS: _ID}

    def reader(self) -> HubSpotApi:
        return HubSpotApi(self)

    def columns(self, api: Api) -> Mapping[str, pl.Schema]:
        answer = self._called(api, Request(f"{self.url}/crm/v3/properties/contacts", method="GET"))
        types = {one["name"]: one["type"] for one in answer["results"]}
        columns: dict[str, Any] = {}
        for name in dict.fromkeys([*_ALWAYS, *self.properties]):
            if name not in types:
                close = difflib.get_close_matches(name, types, n=1)
                hint = f" Did you mean {close[0]}?" if close else ""
                raise SourceError(f"properties: contacts have no property {name}.{hint}")
            columns[name] = _TYPES.get(types[name], pl.String)
        return {_CONTACTS: pl.Schema({**columns, _ID: pl.Int64})}

    def pages(self, api: Api, table: str, since: datetime | None) -> Iterator[pl.DataFrame]:
        schema = self.columns(api)[_CONTACTS]
        changed = [] if since is None else [_filter(_CHANGED, "GTE", int(since.timestamp() * 1000))]
        last = 0
        while True:
            search = {
                "filterGroups": [{"filters": [*changed, _filter(_ID, "GT", last)]}],
                "sorts": [{"propertyName": _ID, "direction": "ASCENDING"}],
                "properties": [*schema],
                "limit": _PAGE,
            }
            address, body = f"{self.url}{self.path.rstrip('/')}/search", orjson.dumps(search)
            request = Request(address, body, repeatable=True, rows=0, longest_answer=_LONGEST_PAGE, label=SEARCH)
            results = self._called(api, request)["results"]
            ids = [int(one["id"]) for one in results]
            yield frame_of([{**one["properties"], _ID: one["id"]} for one in results], schema, table)
            if len(results) < _PAGE:
                return
            if max(ids) <= last:
                raise SourceError("hubspot.contacts cannot be read: a search gives no higher ids than the one before")
            last = max(ids)

    @staticmethod
    def _called(api: Api, request: Request) -> Mapping[str, Any]:
        answer = api.call(request)
        if not answer.accepted:
            raise SourceError(f"hubspot.contacts cannot be read: {reason_of(answer)}")
        document: Mapping[str, Any] = answer.json
        return document


def _filter(name: str, operator: str, value: int) -> dict[str, str]:
    return {"propertyName": name, "operator": operator, "value": str(value)}
