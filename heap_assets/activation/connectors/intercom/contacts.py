"""Contacts, one a call, by Intercom's ids, which are looked up once, several a search."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any, Literal

import orjson
import polars as pl
from pydantic import Field

from heap_assets.activation.connectors.inputs import PeopleConnector, RecordSettings
from heap_assets.activation.connectors.intercom.workspace import (
    NOT_THERE,
    VALUES,
    IntercomApi,
    IntercomDeletion,
    ToIntercom,
    why,
)
from heap_assets.activation.connectors.preflight import Fields, is_boolean, is_integer, is_numeric, is_text
from heap_assets.activation.engine.destination import Destination, Row
from heap_assets.activation.engine.exchange import Exchange, Request, Step
from heap_assets.activation.engine.spec import Mode
from heap_assets.activation.engine.verdict import Response, RowVerdict, Verdict
from heap_assets.config import PROPERTIES, Match, MatchSettings
from heap_assets.sources.warehouse import Permission

_AT_ONCE, _PAGE = 15, 150
_CONFLICT = 409
_STANDARD: Mapping[str, str] = {
    **dict.fromkeys(("external_id", "email", "name", "phone", "avatar"), "string"),
    **dict.fromkeys(("signed_up_at", "last_seen_at"), "date"),
    "owner_id": "integer",
    "unsubscribed_from_emails": "boolean",
}
"""Intercom's own properties of a contact, with their types."""
_FIELDS = Fields(
    "attribute",
    "make it in Settings, People data",
    {
        "string": lambda column: is_text(column) and not column.is_temporal(),
        "integer": is_integer,
        "float": is_numeric,
        "boolean": is_boolean,
        "date": lambda column: column.is_temporal() or column.is_integer(),
    },
)
"""Times are sent as seconds, and no texts are."""
_HAS_ID = re.compile(r"\bid=([0-9a-f]+)")
_NO_CONTACT = RowVerdict("no_match", "Intercom has no contact with this key")
_Hits = dict[str, list[str]]
"""Ids of the contacts that have a key."""


class _SearchRefusedError(Exception):
    """Nobody knows whether there are contacts: none may be made."""


class IntercomContactsSync(RecordSettings, MatchSettings, ToIntercom):
    """Contacts of Intercom, by external id, e-mail address or Intercom's id.

    **To create there:** an app with the permissions to read and write users; the custom attributes that are mapped
    (`heap-assets sync check` names those that are missing).

    **What is matched:** the key with `identifier`; the id of the contact is remembered. Keys without a contact are left
    alone (`no_match`) unless `match: upsert` is set, which there is for external ids only: addresses are not unique,
    and of one that several contacts have none is written (`invalid`). Intercom's search knows a contact some minutes
    after it was made.

    **What is sent:** Intercom's own properties of a contact (`name`, `phone`, `signed_up_at`, ...) as such, all others
    as custom attributes, with their types; times in Unix seconds. A withdrawn value is sent as null.

    **What can be refused:** an attribute that does not exist, a value of another type, a text above 255 characters; a
    key of an archived contact, or of one that cannot be made because another has its details. **Never run against
    Intercom itself.**
    """

    kind: Literal["intercom_contacts"] = "intercom_contacts"
    properties: dict[str, str] = PROPERTIES
    longest_value: int = Field(default=255, ge=1, description="Characters that Intercom takes of a value")

    def possible_matches(self) -> tuple[Match, ...]:
        """Return the policies that Intercom can keep: only external ids are unique."""
        return ("update_only", "upsert") if self.identifier == "external_id" else ("update_only",)


class IntercomContactsConnector(PeopleConnector[IntercomContactsSync]):
    """People to contacts."""

    settings_model = IntercomContactsSync
    deletes = IntercomDeletion

    def destination(self, table: str = "") -> IntercomContacts:
        return IntercomContacts(self.settings)

    def preflight(self) -> Iterator[Permission]:
        """Try the login, and whether each attribute exists and takes what its column has."""
        with self.api() as api:
            answer = api.call(self.destination().call("/data_attributes?model=contact", method="GET"))
        yield Permission("login", passed=True, detail="attributes can be read")
        writable = [one for one in answer.json["data"] if one.get("api_writable", True)]
        kinds = {**{str(one["name"]): str(one.get("data_type", "")) for one in writable}, **_STANDARD}
        yield from _FIELDS.tried(self.settings.properties, kinds, self.column_types())


class IntercomContacts(IntercomApi, Destination):
    """Updates or upserts contacts."""

    mode = Mode.UPSERT
    values = VALUES

    def __init__(self, settings: IntercomContactsSync) -> None:
        own = frozenset({"id", "role", "custom_attributes", settings.identifier})
        super().__init__(
            settings, batch_rows=_AT_ONCE, key_units=255, value_units=settings.longest_value, forbidden_names=own
        )
        self._creates = settings.match_policy == "upsert"

    def invalid_rows(self, rows: pl.LazyFrame) -> Mapping[str, pl.Expr]:
        if self.identifier != "email":
            return {}
        same = pl.col("key").str.to_lowercase().is_duplicated() & ~pl.col("key").is_duplicated()
        return {"another key is the same e-mail address but for upper case": same}

    def element(self, row: Row) -> dict[str, Any]:
        contact = {name: value for name, value in row.values.items() if name in _STANDARD}
        custom = {name: value for name, value in row.values.items() if name not in _STANDARD}
        return contact | ({"custom_attributes": custom} if custom else {})

    def exchange(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Exchange:
        by_id = self.identifier == "id"
        ids = [row.key if by_id else row.remote_id for row in rows]
        verdicts: dict[int, RowVerdict] = {}
        try:
            hits = yield from self._look_up([row.key for row, id in zip(rows, ids, strict=True) if id is None])
            for i, (row, element, id) in enumerate(zip(rows, elements, ids, strict=True)):
                verdict = None if id is None else (yield from self._updated(id, element))
                if verdict == _NO_CONTACT and not by_id:  # it was merged into another, or deleted
                    hits |= yield from self._look_up([row.key])
                    verdict = None
                verdicts[i] = verdict or (yield from self._placed(row, element, hits.get(self._spelled(row.key), [])))
        except _SearchRefusedError as refused:
            return Verdict(verdicts, "not_applied", str(refused))
        return Verdict(verdicts)

    def _placed(self, row: Row, element: bytes, hits: Sequence[str]) -> Generator[Step, Response, RowVerdict]:
        """Write a row to the one contact that has its key, or to a new one."""
        if len(hits) > 1:
            return RowVerdict("invalid", f"{len(hits)} contacts have this key")
        if hits:
            return (yield from self._updated(hits[0], element))
        if not self._creates:
            return _NO_CONTACT
        contact = {"role": "user", "external_id": row.key, **orjson.loads(element)}
        answer = yield self.call("/contacts", contact)
        if answer.accepted:
            return RowVerdict("acknowledged", remote_id=str(answer.json["id"]))
        if answer.status != _CONFLICT:
            return RowVerdict("rejected", why(answer))
        # the search does not know it yet, or it is one with the same address
        named = _HAS_ID.search(why(answer))
        if named is None:
            return RowVerdict("invalid", why(answer))
        other = yield self.call(f"/contacts/{named[1]}", method="GET", reads=frozenset({NOT_THERE}))
        if other.fields.get("external_id") != row.key:
            return RowVerdict("invalid", "another contact of Intercom has these details")
        return (yield from self._updated(named[1], element))

    def _updated(self, id: str, element: bytes) -> Generator[Step, Response, RowVerdict]:
        answer = yield self.call(f"/contacts/{id}", element, "PUT", reads=frozenset({NOT_THERE}))
        if answer.status == NOT_THERE:
            return _NO_CONTACT
        if not answer.accepted:
            return RowVerdict("rejected", why(answer))
        return RowVerdict("acknowledged", remote_id=None if self.identifier == "id" else id)

    def _look_up(self, keys: Sequence[str]) -> Generator[Request, Response, _Hits]:
        """Return the ids of the contacts by their keys; a body holds them: an address shows them to whoever logs it."""
        hits: _Hits = {}
        values = sorted({*keys, *map(self._spelled, keys)})
        query = {"field": self.identifier, "operator": "IN", "value": values}
        paging: dict[str, Any] | None = {"per_page": _PAGE} if keys else None
        while paging:
            body = {"query": {"operator": "AND", "value": [query]}, "pagination": paging}
            answer = yield self.call("/contacts/search", body, repeatable=True, rows=0, label="search")
            if not answer.accepted:
                raise _SearchRefusedError(why(answer))
            document = answer.json
            for contact in document["data"]:
                hits.setdefault(self._spelled(contact[self.identifier]), []).append(str(contact["id"]))
            more = (document.get("pages") or {}).get("next")
            paging = {"per_page": _PAGE, "starting_after": more["starting_after"]} if more else None
        return hits

    def _spelled(self, key: str) -> str:
        return key.lower() if self.identifier == "email" else key
