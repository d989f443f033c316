"""DuckDB's types: as columns are described, and as Parquet and Polars can hold them."""

from __future__ import annotations

from typing import Any

from heap_assets.sources.warehouse.base import Column
from heap_assets.values import sql_identifier

_AS_TEXT = frozenset({"interval", "bit", "time with time zone", "uhugeint", "bignum", "union", "variant", "geometry"})
"""Types that Parquet and Polars do not share with DuckDB; they are read as DuckDB writes them."""


def column_of(name: str, kind: Any, nullable: bool = True, description: str = "") -> Column:
    """Describe a column of a DuckDB type, structs and lists with what is in them."""
    repeated = kind.id in ("list", "array")
    inner = kind.children[0][1] if repeated else kind
    fields = tuple(column_of(child, child_kind) for child, child_kind in inner.children) if inner.id == "struct" else ()
    return Column(name, str(kind), nullable, repeated, fields, description)


def readable(kind: Any, hugeint: str = "DECIMAL(38,0)") -> str:
    """Write a type with the leaves that do not survive Parquet replaced; everything else as it is."""
    if kind.id in _AS_TEXT:
        return "VARCHAR"
    if kind.id == "hugeint":
        return hugeint
    if kind.id == "list":
        return f"{readable(kind.children[0][1], hugeint)}[]"
    if kind.id == "array":
        return f"{readable(kind.children[0][1], hugeint)}[{kind.children[1][1]}]"
    if kind.id == "map":
        key, value = (readable(child, hugeint) for _, child in kind.children)
        return f"MAP({key}, {value})"
    if kind.id == "struct":
        fields = (f"{sql_identifier(name)} {readable(child, hugeint)}" for name, child in kind.children)
        return f"STRUCT({', '.join(fields)})"
    return str(kind)
