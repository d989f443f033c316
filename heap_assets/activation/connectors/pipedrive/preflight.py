"""What a sync needs in the company: its login, the field of the key, and each mapped field with its type."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import polars as pl

from heap_assets.activation.connectors.preflight import Fields, is_date, is_numeric, is_text
from heap_assets.sources.warehouse import Permission

KEY_TYPES = ("varchar", "text")
"""Of custom fields that are searched for their whole text."""
_REMEDY = "make it in Settings, Data fields"
_FIELDS = Fields(
    "field",
    _REMEDY,
    {
        **dict.fromkeys((*KEY_TYPES, "varchar_auto", "phone"), is_text),
        **dict.fromkeys(("double", "int"), is_numeric),
        "date": is_date,
    },
)
"""Of fields with options the labels are sent, whatever the column."""


def tried(
    key: str | None, names: Iterable[str], kinds: Mapping[str, str], columns: Mapping[str, pl.DataType]
) -> Iterator[Permission]:
    """Yield what was tried. `key`: the custom field that holds it, None if it is no custom one."""
    if key is not None:
        kind = kinds.get(key)
        detail = f"is of type {kind}, not text" if kind else "it is missing"
        if kind in KEY_TYPES:
            yield Permission(f"key {key}", True, "is a text; a key that several records have is never written to")
        else:
            yield Permission(f"key {key}", False, detail, _REMEDY)
    yield from _FIELDS.tried(names, kinds, columns)
