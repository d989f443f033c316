"""Reading records back: by queries on the time of the last change, deleted records among them."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import quote

import polars as pl
from pydantic import Field, field_validator

from heap_assets.activation.connectors.reading import DELETED, ApiSettings, frame_of
from heap_assets.activation.connectors.salesforce.account import Org, SalesforceApi, error_of, usage_error
from heap_assets.activation.connectors.salesforce.objects import NAME
from heap_assets.activation.engine.api import Api
from heap_assets.activation.engine.exchange import Request
from heap_assets.errors import SourceError

_ID, _CHANGED, _IS_DELETED = "Id", "SystemModstamp", "IsDeleted"
_ALWAYS = (_ID, _CHANGED, "LastModifiedById")
_TIME = pl.Datetime("us", "UTC")
_TYPES: Mapping[str, Any] = {
    "boolean": pl.Boolean,
    "double": pl.Float64,
    "currency": pl.Float64,
    "percent": pl.Float64,
    "int": pl.Int64,
    "long": pl.Int64,
    "date": pl.Date,
    "datetime": _TIME,
}
_COMPOUND = frozenset({"address", "location", "base64", "complexvalue"})
_LONGEST_PAGE, _LONGEST_DESCRIPTION = 32 << 20, 16 << 20


class SalesforceSource(Org, ApiSettings):
    """Records of Salesforce as tables, one per object: `salesforce.Contact`.

    **To create there:** what a sync needs; a user who reads only needs "View All" of the objects, or sees those that
    are shared with them.

    **What is read:** the fields that `objects` names, with `Id`, `SystemModstamp` and `LastModifiedById`; numbers,
    times, dates and booleans as such, all others as text. With `key: Id` and `updated_at: SystemModstamp` what changed
    is read, 2,000 records a call; a deleted record leaves the table when it is read next (the recycle bin keeps its
    name for 15 days). A read ends when the org has used `most_api_usage` of its calls. **Never run against Salesforce
    itself.**
    """

    kind: Literal["salesforce"]
    objects: dict[str, list[str]] = Field(min_length=1, description="Object to the fields that are read")

    @field_validator("objects")
    @classmethod
    def _are_names(cls, value: dict[str, list[str]]) -> dict[str, list[str]]:
        for name in (*value, *(field for fields in value.values() for field in fields)):
            if not NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no API name of an object or a field")
        return value

    def ids(self) -> Mapping[str, str]:
        return dict.fromkeys(self.objects, _ID)

    def reader(self) -> SalesforceApi:
        return SalesforceApi(self)

    def columns(self, api: Api) -> Mapping[str, pl.Schema]:
        return {object: self._columns(object, self._described(api, object)) for object in self.objects}

    def pages(self, api: Api, table: str, since: datetime | None) -> Iterator[pl.DataFrame]:
        described = self._described(api, table)
        schema = self._columns(table, described)
        # objects without a recycle bin have no such field
        can_be_deleted = _IS_DELETED in described
        query = f"SELECT {', '.join([*schema, *([_IS_DELETED] if can_be_deleted else [])])} FROM {table}"
        if since is not None:
            query += f" WHERE {_CHANGED} >= {since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
        address = f"{self._base}/{'queryAll' if can_be_deleted else 'query'}?q={quote(query, safe='')}"
        while address:
            page = self._page(api, address, table)
            frame = frame_of(page["records"], schema, table)
            if can_be_deleted:
                deleted = [bool(record[_IS_DELETED]) for record in page["records"]]
                frame = frame.with_columns(pl.Series(DELETED, deleted, pl.Boolean))
            yield frame
            address = "" if page.get("done", True) else page["nextRecordsUrl"]

    @property
    def _base(self) -> str:
        return f"/services/data/v{self.api_version}"

    def _page(self, api: Api, address: str, table: str) -> Mapping[str, Any]:
        answer = api.call(Request(address, method="GET", longest_answer=_LONGEST_PAGE))
        if (used_up := usage_error(answer, self.most_api_usage)) is not None:
            raise SourceError(f"salesforce.{table} is not read to its end: {used_up}")
        if not answer.accepted:
            code, message = error_of(answer)
            raise SourceError(f"salesforce.{table} cannot be read: HTTP {answer.status} {code}: {message[:200]}")
        page: Mapping[str, Any] = answer.json
        return page

    def _described(self, api: Api, object: str) -> dict[str, Any]:
        address = f"{self._base}/sobjects/{object}/describe"
        answer = api.call(Request(address, method="GET", longest_answer=_LONGEST_DESCRIPTION))
        return {field["name"]: field for field in answer.fields.get("fields", [])}

    def _columns(self, object: str, described: Mapping[str, Any]) -> pl.Schema:
        columns: dict[str, Any] = {}
        for name in dict.fromkeys([*_ALWAYS, *self.objects[object]]):
            if name not in described:
                close = difflib.get_close_matches(name, described, n=1)
                hint = f" Did you mean {close[0]}?" if close else ""
                raise SourceError(f"objects.{object}: the user may see no field {name} there.{hint}")
            kind = str(described[name]["type"])
            if kind in _COMPOUND:
                raise SourceError(f"objects.{object}: {name} is of type {kind}: name its parts, such as MailingCity")
            columns[name] = _TYPES.get(kind, pl.String)
        return pl.Schema(columns)
