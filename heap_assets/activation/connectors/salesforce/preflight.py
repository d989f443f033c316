"""What a sync needs in the org: its login, its objects, the field of the key, and each mapped field with its type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from heap_assets.activation.connectors.salesforce.settings import SalesforceSettings
from heap_assets.activation.engine.api import Api
from heap_assets.activation.engine.exchange import Request
from heap_assets.sources.warehouse import Permission

_NUMBERS = frozenset({"double", "currency", "percent", "int"})
_REMEDY = "in Salesforce: Setup, Object Manager; then the user's permission set"
_LONGEST = 16 << 20
"""Bytes of a description: one of an object with hundreds of fields is long."""


def tried(api: Api, base: str, settings: SalesforceSettings, schema: Mapping[str, Any]) -> Iterator[Permission]:
    """Yield what was tried. `schema`: types of the columns that are sent, as far as they are known."""
    for object in settings.choice:
        described = _described(api, base, object)
        yield Permission("login", True, f"the org describes {object}")
        yield _key(object, settings.key_field, described, unique=settings.external_id is not None)
        for field, column in settings.records.fields(object).items():
            creates = settings.match_policy != "update_only"
            yield _field(object, field, described, schema.get(column), creates=creates)
    contact = _described(api, base, "Contact") if settings.converted_fields else {}
    for field in settings.converted_fields:
        yield _field("Contact", field, contact, None, creates=False)


def _described(api: Api, base: str, object: str) -> dict[str, Any]:
    answer = api.call(Request(f"{base}/sobjects/{object}/describe", method="GET", longest_answer=_LONGEST))
    return {field["name"]: field for field in answer.fields.get("fields", [])}


def _key(object: str, name: str, described: Mapping[str, Any], *, unique: bool) -> Permission:
    field_name, field = f"{object}.{name}", described.get(name)
    if field is None:
        return Permission(field_name, False, "is no field that the user may see", _REMEDY)
    if unique and not (field["externalId"] and field["unique"]):
        return Permission(
            field_name, False, "is no unique external id", "tick External ID and Unique in its definition"
        )
    return Permission(field_name, True, "holds the key")


def _field(object: str, name: str, described: Mapping[str, Any], column: Any, *, creates: bool) -> Permission:
    field_name, field = f"{object}.{name}", described.get(name)
    if field is None:
        return Permission(field_name, False, "is no field that the user may see", _REMEDY)
    if not field["updateable"] or (creates and not field["createable"]):
        return Permission(field_name, False, "may not be written by the user", _REMEDY)
    kind = str(field["type"])
    if column is not None and not _takes(kind, column):
        return Permission(
            field_name, False, f"is of type {kind}, and its column of {column}", "map a column of that type"
        )
    return Permission(field_name, True, f"takes values of type {kind}")


def _takes(kind: str, column: pl.DataType) -> bool:
    if kind == "boolean":
        return column == pl.Boolean
    if kind in _NUMBERS:
        return column.is_numeric()
    if kind == "date":
        return column in (pl.Date, pl.String)
    if kind == "datetime":
        return isinstance(column, pl.Datetime) or column == pl.String
    return not (column.is_numeric() or column == pl.Boolean)
