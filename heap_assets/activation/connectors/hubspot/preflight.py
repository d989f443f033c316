"""What a sync needs in the account: its login, its object, the key's property, and each mapped one with its type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from heap_assets.activation.connectors.hubspot.account import HubSpotApi
from heap_assets.activation.connectors.preflight import Fields, is_boolean, is_time, may_be_number, untried
from heap_assets.activation.engine.api import Api
from heap_assets.activation.engine.exchange import Request
from heap_assets.sources.warehouse import Permission

_FORBIDDEN, _MISSING = 403, 404
_BUILT_IN = frozenset({"hs_object_id", "email"})
"""Of one record each without being marked as such."""
_FIELDS = Fields(
    "property",
    "make it in HubSpot: Settings, Properties",
    {
        "number": may_be_number,
        "bool": lambda column: is_boolean(column) or column == pl.String,
        "date": is_time,
        "datetime": lambda column: is_time(column) or column.is_integer(),
    },
)


def tried_records(
    api: Api, service: HubSpotApi, of: str, key: str, columns: Mapping[str, pl.DataType], names: tuple[str, ...]
) -> Iterator[Permission]:
    """Yield what was tried of a sync to contacts or companies (`of`)."""
    described = _described(api, service, of)
    if described is None:
        yield untried("properties", f"the private app may not read them: crm.schemas.{of}.read")
        return
    yield Permission("login", True, f"properties of {of} can be read")
    yield _key(key, described.get(key))
    writable = {n: str(one["type"]) for n, one in described.items() if not _is_read_only(one)}
    yield from _FIELDS.tried(names, writable, columns)


def tried_list(api: Api, service: HubSpotApi, path: str, key: str) -> Iterator[Permission]:
    """Yield what was tried of a sync to a static list."""
    address = f"{service.url}{path}/memberships?limit=1"
    answer = api.call(Request(address, method="GET", reads=frozenset({_FORBIDDEN, _MISSING})))
    if answer.status == _FORBIDDEN:
        yield untried("list", "the private app may not read lists: crm.lists.read")
    else:
        detail = "it is there" if answer.accepted else "HubSpot has no list of list_id"
        yield Permission("list", answer.accepted, detail, "take the ILS list id of a static list")
    described = _described(api, service, "contacts")
    if described is not None:
        yield _key(key, described.get(key))


def _described(api: Api, service: HubSpotApi, of: str) -> dict[str, Any] | None:
    address = f"{service.url}/crm/v3/properties/{of}"
    answer = api.call(Request(address, method="GET", reads=frozenset({_FORBIDDEN}), longest_answer=16 << 20))
    if not answer.accepted:
        return None
    return {str(one["name"]): one for one in answer.fields.get("results") or ()}


def _key(name: str, described: Mapping[str, Any] | None) -> Permission:
    if name in _BUILT_IN:
        return Permission(f"key {name}", True, "HubSpot's own")
    if described is None:
        return Permission(f"key {name}", False, "there is no such property", "make it, with unique values")
    if not described.get("hasUniqueValue"):
        return Permission(f"key {name}", False, "its values are not unique", "make another one, with unique values")
    return Permission(f"key {name}", True, "its values are unique")


def _is_read_only(described: Mapping[str, Any]) -> bool:
    return bool((described.get("modificationMetadata") or {}).get("readOnlyValue"))
