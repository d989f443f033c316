"""Schema evolution of a BigQuery table: columns added and types widened for the rows to be loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from google.cloud import bigquery

from heap_assets.sources.warehouse.bigquery.tables import type_text
from heap_assets.sources.warehouse.publish import PublishError

_LEGACY = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL", "RECORD": "STRUCT"}
_WIDER: Mapping[str, frozenset[str]] = {
    "INT64": frozenset({"NUMERIC", "BIGNUMERIC", "FLOAT64"}),
    "NUMERIC": frozenset({"BIGNUMERIC"}),
}
"""Changes of type that BigQuery makes in place (ALTER COLUMN SET DATA TYPE) and that lose nothing.

To FLOAT64 only of integers that a double holds: the publisher asks for others before. A decimal is no double.
"""
_LIMITS = ("precision", "scale", "maxLength")
"""Of NUMERIC(12, 2) and STRING(40): no day promises to keep to them, and BigQuery rounds what does not."""


@dataclass(frozen=True)
class Evolution:
    """A table's schema as it has to be for rows to be loaded.

    Attributes
    ----------
    fields
        Of the table afterwards, in its order.
    added
        Those of them that are new.
    grown
        The standing columns, with the fields that structs among them gain; empty if none does.
    widened
        Columns that get another type, or whose type loses its limits.
    """

    fields: list[bigquery.SchemaField]
    added: list[bigquery.SchemaField]
    grown: list[bigquery.SchemaField]
    widened: list[bigquery.SchemaField]


def kind_of(entry: bigquery.SchemaField) -> str:
    return str(_LEGACY.get(entry.field_type, entry.field_type))


def evolved(
    table: str,
    existing: Sequence[bigquery.SchemaField],
    loaded: Sequence[bigquery.SchemaField],
    is_empty: Callable[[str], bool] = lambda _: False,
) -> Evolution:
    """Compare a table with what is to be loaded.

    A column of the table may be wider than what is loaded, as after one that was widened by a newer day, or REQUIRED;
    a STRING column takes values of any type as text.

    Parameters
    ----------
    is_empty
        Whether no row has a value in a column: then its type does not matter.

    Raises
    ------
    PublishError
        If a type would narrow or become another one; names column and both types.
    """
    loaded_by_name = {entry.name.casefold(): entry for entry in loaded}
    fields, grown = [], []
    for old in existing:
        new = loaded_by_name.pop(old.name.casefold(), None)
        joined = old if new is None else _joined(old, new, nested=False)
        if new is not None and joined != old and is_empty(new.name):
            joined = old
        if joined is None:
            raise PublishError(
                f"{table}: column {old.name!r} is {_shown(old)} in BigQuery and would become {_shown(new)}: "
                "a type can only be widened. Rename the column, or drop the table to have it made anew"
            )
        fields.append(joined)
        grown.append(_grown(old, joined))
    added = list(loaded_by_name.values())
    widened = [field for field, before in zip(fields, grown, strict=True) if field != before]
    return Evolution([*fields, *added], added, grown if grown != list(existing) else [], widened)


def becomes_float(old: bigquery.SchemaField, new: bigquery.SchemaField) -> bool:
    """Whether integers become doubles, which do not hold all of them."""
    return kind_of(old) == "INT64" and kind_of(new) == "FLOAT64"


def _joined(old: bigquery.SchemaField, new: bigquery.SchemaField, *, nested: bool) -> bigquery.SchemaField | None:
    """Return the field that holds the values of both, in the order of the old one; None if there is none."""
    old_kind, new_kind = kind_of(old), kind_of(new)
    if (old.mode == "REPEATED") != (new.mode == "REPEATED"):
        return None
    if old_kind == new_kind == "STRUCT":
        return _joined_struct(old, new)
    if old_kind == new_kind or old_kind in _WIDER.get(new_kind, ()):
        return _with(old, old_kind) if _is_limited(old) else old
    if new_kind in _WIDER.get(old_kind, ()) and not (nested and new_kind == "FLOAT64"):
        return _with(old, new_kind)
    takes_text = old_kind == "STRING" and new_kind != "JSON" and not nested
    return (_with(old, old_kind) if _is_limited(old) else old) if takes_text else None


def _joined_struct(old: bigquery.SchemaField, new: bigquery.SchemaField) -> bigquery.SchemaField | None:
    new_children = {child.name.casefold(): child for child in new.fields}
    children = []
    for child in old.fields:
        other = new_children.pop(child.name.casefold(), None)
        joined = child if other is None else _joined(child, other, nested=True)
        if joined is None:
            return None
        children.append(joined)
    children += new_children.values()
    return old if children == list(old.fields) else _with(old, old.field_type, children)


def _grown(old: bigquery.SchemaField, joined: bigquery.SchemaField) -> bigquery.SchemaField:
    """Return the old field with the fields that it gains, and no other type: BigQuery adds and widens one by one."""
    if not old.fields or old == joined:
        return old
    existing = [_grown(child, wider) for child, wider in zip(old.fields, joined.fields, strict=False)]
    children = [*existing, *joined.fields[len(existing) :]]
    return old if children == list(old.fields) else _with(old, old.field_type, children)


def _is_limited(entry: bigquery.SchemaField) -> bool:
    return any(entry.to_api_repr().get(limit) is not None for limit in _LIMITS)


def _with(entry: bigquery.SchemaField, kind: str, fields: Sequence[bigquery.SchemaField] = ()) -> bigquery.SchemaField:
    """Return a field with another type, and all else that BigQuery says of it."""
    described = {name: value for name, value in entry.to_api_repr().items() if name not in _LIMITS}
    nested = {"fields": [child.to_api_repr() for child in fields]} if fields else {}
    return bigquery.SchemaField.from_api_repr({**described, "type": kind, **nested})


def _shown(entry: bigquery.SchemaField | None) -> str:
    return "" if entry is None else f"{'REPEATED ' if entry.mode == 'REPEATED' else ''}{_inner(entry)}"


def _inner(entry: bigquery.SchemaField) -> str:
    text = type_text(entry)
    return text.removeprefix("ARRAY<").removesuffix(">") if entry.mode == "REPEATED" else text
