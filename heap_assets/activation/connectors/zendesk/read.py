"""Reading tickets and users back: by the incremental exports, page after page of a cursor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import polars as pl
from pydantic import Field, field_validator

from heap_assets import clock
from heap_assets.activation.connectors.reading import DELETED, ApiSettings, frame_of
from heap_assets.activation.connectors.zendesk.account import EXPORT, ZendeskAccount, ZendeskApi
from heap_assets.activation.engine.api import Api
from heap_assets.activation.engine.exchange import Request
from heap_assets.activation.engine.verdict import reason_of
from heap_assets.errors import SourceError

_TIME = pl.Datetime("us", "UTC")
_BOTH = {"id": pl.Int64, "created_at": _TIME, "updated_at": _TIME, "external_id": pl.String, "tags": pl.String}
_TICKETS: Mapping[str, Any] = _BOTH | {
    "generated_at": _TIME,
    "subject": pl.String,
    "type": pl.String,
    "priority": pl.String,
    "status": pl.String,
    "requester_id": pl.Int64,
    "submitter_id": pl.Int64,
    "assignee_id": pl.Int64,
    "organization_id": pl.Int64,
    "group_id": pl.Int64,
}
_USERS: Mapping[str, Any] = _BOTH | {
    "email": pl.String,
    "name": pl.String,
    "phone": pl.String,
    "role": pl.String,
    "organization_id": pl.Int64,
    "suspended": pl.Boolean,
    "verified": pl.Boolean,
    "notes": pl.String,
    "details": pl.String,
    "locale": pl.String,
    "time_zone": pl.String,
}
_FIELD_TYPES: Mapping[str, Any] = {
    "checkbox": pl.Boolean,
    "integer": pl.Int64,
    "decimal": pl.Float64,
    "date": pl.Date,
}
_ROWS = 1_000
_FIELD_ROWS = 100
_LONGEST_PAGE = 64 << 20
_Record = Mapping[str, Any]
_YOUNGEST = timedelta(seconds=90)
"""An export begins a minute ago at the latest; the other half is for clocks that differ."""


class ZendeskSource(ZendeskAccount, ApiSettings):
    """Tickets and users of Zendesk as the tables `zendesk.tickets` and `zendesk.users`.

    **To create there:** an API token of an administrator, or an OAuth token with the scope `read`.

    **What is read:** properties of tickets without their texts (`subject`, `status`, `priority`, ids of people, `tags`
    joined with commas, ...) and of users, with the `ticket_fields` and `user_fields` that are named; those of users in
    their types, those of tickets as text. With `key: id` and `updated_at: updated_at` what changed is read, 1,000 a
    call and 10 calls a minute; changes of the last minute come with the next read. `generated_at` of tickets also
    moves when Zendesk itself changes one. A deleted ticket or user leaves the table when it is read next. That users
    have the same export as tickets, and say `active: false` when they are deleted, is not confirmed. **Never run
    against Zendesk itself.**
    """

    kind: Literal["zendesk"]
    ticket_fields: dict[str, int] = Field(default={}, description="Column to the id of a ticket field")
    user_fields: list[str] = Field(default=[], description="Keys of user fields that are read, too")

    @field_validator("ticket_fields", "user_fields")
    @classmethod
    def _are_no_columns_yet(cls, value: Any) -> Any:
        if taken := [name for name in value if name in _TICKETS or name in _USERS]:
            raise ValueError(f"{taken[0]!r} is a column of tickets or users already")
        return value

    def ids(self) -> Mapping[str, str]:
        return {"tickets": "id", "users": "id"}

    def reader(self) -> ZendeskApi:
        return ZendeskApi(self)

    def columns(self, api: Api) -> Mapping[str, pl.Schema]:
        types = self._field_types(api) if self.user_fields else {}
        if missing := [name for name in self.user_fields if name not in types]:
            raise SourceError(f"user_fields: Zendesk has no user field {missing[0]}")
        users = {name: _FIELD_TYPES.get(types[name], pl.String) for name in self.user_fields}
        tickets = dict.fromkeys(self.ticket_fields, pl.String)
        return {"tickets": pl.Schema({**_TICKETS, **tickets}), "users": pl.Schema({**_USERS, **users})}

    def pages(self, api: Api, table: str, since: datetime | None) -> Iterator[pl.DataFrame]:
        schema, flat = self.columns(api)[table], {"tickets": self._ticket, "users": self._user}[table]
        latest = clock.now() - _YOUNGEST
        start = 0 if since is None else int(min(since.astimezone(UTC), latest).timestamp())
        position = f"start_time={start}"
        while True:
            url = f"{self.url}/api/v2/incremental/{table}/cursor.json?{position}&per_page={_ROWS}"
            page = self._called(api, url, table, label=EXPORT)
            yield self._frame(page[table], schema, table, flat)
            if page.get("end_of_stream", True):
                return
            cursor = f"cursor={page['after_cursor']}"
            if cursor == position:
                raise SourceError(f"zendesk.{table} cannot be read: its cursor stands still")
            position = cursor

    @staticmethod
    def _frame(
        rows: list[Mapping[str, Any]],
        schema: pl.Schema,
        table: str,
        flat: Callable[[_Record], _Record],
    ) -> pl.DataFrame:
        is_deleted = [row.get("status") == "deleted" or row.get("active") is False for row in rows]
        frame = frame_of([flat(row) for row in rows], schema, table)
        return frame.with_columns(pl.Series(DELETED, is_deleted, pl.Boolean))

    def _ticket(self, row: _Record) -> _Record:
        own = {one["id"]: one.get("value") for one in row.get("custom_fields") or []}
        generated = row.get("generated_timestamp")
        return {
            **row,
            "tags": ",".join(row.get("tags") or []) or None,
            "generated_at": None if generated is None else int(generated) * 1000,
            **{name: own.get(id) for name, id in self.ticket_fields.items()},
        }

    def _user(self, row: _Record) -> _Record:
        own = row.get("user_fields") or {}
        return {**row, "tags": ",".join(row.get("tags") or []) or None, **{n: own.get(n) for n in self.user_fields}}

    def _field_types(self, api: Api) -> Mapping[str, str]:
        types: dict[str, str] = {}
        page = 1
        while page:
            url = f"{self.url}/api/v2/user_fields.json?per_page={_FIELD_ROWS}&page={page}"
            document = self._called(api, url, "users")
            types |= {str(field["key"]): str(field["type"]) for field in document["user_fields"]}
            page = page + 1 if document.get("next_page") else 0
        return types

    @staticmethod
    def _called(api: Api, url: str, table: str, label: str = "") -> Mapping[str, Any]:
        answer = api.call(Request(url, method="GET", longest_answer=_LONGEST_PAGE, label=label))
        if not answer.accepted:
            raise SourceError(f"zendesk.{table} cannot be read: {reason_of(answer)}")
        document: Mapping[str, Any] = answer.json
        return document
