"""Values of any type as text that says the same."""

from __future__ import annotations

import polars as pl

from heap_assets.values.json_text import exact_json, json_safe


def as_text(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Write values as text with all their digits; null stays null.

    Whole floats are `30`, others as Polars writes them; decimals lose the zeros at their end. Times are ISO 8601, in
    UTC if they have a zone; bytes are base64; lists and structs JSON.
    """
    if isinstance(dtype, pl.Float32 | pl.Float64):
        whole = pl.when(column == column.floor()).then(column.cast(pl.Int64, strict=False))
        return pl.coalesce(whole.cast(pl.String), column.cast(pl.String))
    if isinstance(dtype, pl.Decimal):
        text = column.cast(pl.String)
        return text.str.strip_chars_end("0").str.strip_suffix(".") if dtype.scale else text
    if isinstance(dtype, pl.Datetime | pl.Time | pl.Binary):
        return json_safe(column, dtype)
    if dtype.is_nested() or isinstance(dtype, pl.Object):
        return exact_json(column, dtype)
    return column.cast(pl.String)


def key_text(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Write values as keys and identifiers: numbers as `17`, whether a source has them as `17.0` or `17.000000000`."""
    return as_text(column, dtype) if dtype.is_float() or dtype.is_decimal() else column.cast(pl.String)
