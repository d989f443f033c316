"""Members of a static list, by record id: what is known by another property is looked up before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

import orjson
from pydantic import Field

from heap_assets.activation.connectors.hubspot.account import HubSpotDestination, ToHubSpot
from heap_assets.activation.connectors.hubspot.preflight import tried_list
from heap_assets.activation.connectors.inputs import MemberConnector, MemberSettings
from heap_assets.activation.engine.destination import Row
from heap_assets.activation.engine.exchange import Exchange, Request
from heap_assets.activation.engine.spec import Mode
from heap_assets.activation.engine.verdict import RowVerdict, Verdict, reason_of
from heap_assets.sources.warehouse import Permission

_ID = "hs_object_id"


class HubSpotListsSync(MemberSettings, ToHubSpot):
    """Members of a static list of HubSpot.

    **To create there:** a private app with the scopes `crm.lists.write` and `crm.objects.contacts.read`; a static list
    of contacts.

    **What is matched:** the key with `key_property`, secondary addresses too if that is `email`. Keys without a contact
    are left alone (`no_match`): no contact is made. Who is no member any more is removed; members that were added in
    HubSpot stay.

    **What can be refused:** a list that does not exist ends the run. **Never run against HubSpot itself.**
    """

    takes_properties: ClassVar[bool] = False

    kind: Literal["hubspot_lists"] = "hubspot_lists"
    list_id: int = Field(ge=1, description="ILS list ID of a static list")
    key_property: str = Field(
        default="email", description="Unique property that holds the key; hs_object_id: it is the record id itself"
    )
    objects_path: str = Field(
        default="/crm/v3/objects/contacts", description="Path of the contacts, for another version of the API"
    )
    lists_path: str = Field(default="/crm/v3/lists", description="Path of the lists, for another version of the API")


class HubSpotListsConnector(MemberConnector[HubSpotListsSync]):
    """Members of an audience to a static list."""

    settings_model = HubSpotListsSync
    untried = "whether the private app may write: HubSpot tells no scopes of a token. It needs crm.lists.read"

    def destination(self, table: str = "") -> HubSpotLists:
        return HubSpotLists(self.settings)

    def preflight(self) -> Iterator[Permission]:
        destination = self.destination()
        with self.api() as api:
            yield from tried_list(api, destination, destination.list_path, self.settings.key_property)


class HubSpotLists(HubSpotDestination):
    """Adds and removes members, up to 100 a call because that many are looked up at once."""

    kind = "hubspot_lists"
    mode = Mode.SET

    def __init__(self, settings: HubSpotListsSync) -> None:
        super().__init__(settings)
        self._key, self._contacts = settings.key_property, settings.objects_path.rstrip("/")
        self.list_path = f"{settings.lists_path.rstrip('/')}/{settings.list_id}"

    @property
    def target(self) -> str:
        return f"{super().target}:{self.list_path}:{self._key}"

    def element(self, row: Row) -> str | None:
        return row.key if self._key == _ID else row.remote_id

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        ids = b",".join(elements)
        add, remove = (b"", ids) if rows[0].removed else (ids, b"")
        body = b'{"recordIdsToAdd":[' + add + b'],"recordIdsToRemove":[' + remove + b"]}"
        return Request(f"{self.url}{self.list_path}/memberships/add-and-remove", body, "PUT")

    def exchange(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Exchange:
        ids = [self.element(row) for row in rows]
        unknown = [row for row, id in zip(rows, ids, strict=True) if id is None]
        if unknown:
            answer = yield self._look_up(unknown)
            if not answer.accepted:
                return Verdict(rest="not_applied", reason=reason_of(answer))
            ids_by_value = self._ids_of(answer.json)
            ids = [id or ids_by_value.get(self._spelled(row.key)) for row, id in zip(rows, ids, strict=True)]
        verdicts = {i: _no_record(row) for i, (row, id) in enumerate(zip(rows, ids, strict=True)) if id is None}
        # two addresses of one contact are one member
        chosen = sorted({id for id in ids if id})
        if chosen:
            answer = yield self.request([orjson.dumps(id) for id in chosen], rows)
            if not answer.accepted:
                return Verdict(verdicts, "not_applied", reason_of(answer))
            missing = {str(id) for id in (answer.json or {}).get("recordIdsMissing") or []}
            for i, id in enumerate(ids):
                if id is not None:
                    member = RowVerdict("acknowledged", remote_id=None if self._key == _ID else id)
                    verdicts[i] = _no_record(rows[i]) if id in missing else member
        return Verdict(verdicts)

    def _look_up(self, rows: Sequence[Row]) -> Request:
        inputs = [{"id": self._spelled(row.key)} for row in rows]
        body = {"idProperty": self._key, "properties": [self._key, "hs_additional_emails"], "inputs": inputs}
        return Request(f"{self.url}{self._contacts}/batch/read", orjson.dumps(body), repeatable=True, rows=0)

    def _ids_of(self, document: Any) -> dict[str, str]:
        """Return the record id by each value that a contact is known by."""
        ids_by_value: dict[str, str] = {}
        for record in document["results"]:
            held = record["properties"]
            more = (held.get("hs_additional_emails") or "").split(";") if self._key == "email" else []
            ids_by_value |= {self._spelled(value): str(record["id"]) for value in (held.get(self._key), *more) if value}
        return ids_by_value

    def _spelled(self, key: str) -> str:
        return key.lower() if self._key == "email" else key


def _no_record(row: Row) -> RowVerdict:
    """Return the verdict of a key without a contact: it is no member, and needs not be one to leave."""
    return RowVerdict("acknowledged") if row.removed else RowVerdict("no_match", "HubSpot has no contact with this key")
