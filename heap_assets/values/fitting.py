"""Numbers and times in another type of their family: the same value, or none."""

from __future__ import annotations

import polars as pl

_FLOAT_DIGITS = 15
"""Every decimal of so many digits is the one that a double is written with."""
_SPELLED = r"^[-+]?\d+(\.\d+)?$"


def fitting(value: pl.Expr, own: pl.DataType, dtype: pl.DataType) -> pl.Expr:
    """Return a number or time in another type of its family; null where no value of it is the same."""
    if dtype.is_float():
        near, whole = nearest_double(value, own).cast(dtype), value.cast(pl.Int128, strict=False)
        is_same = near.cast(pl.Int128, strict=False) == whole
        if isinstance(own, pl.Decimal):
            is_same = (is_same & (whole.cast(own, strict=False) == value)) | _is_short(value)
        return near if own.is_float() else pl.when(is_same).then(near)
    if isinstance(dtype, pl.Datetime):
        return in_zone(value, own, dtype.time_zone).cast(dtype, strict=False)
    return value.cast(dtype, strict=False)


def double_spelled(text: pl.Expr) -> pl.Expr:
    """Return the double that a text spells; null where it would be rounded, or the text is no number."""
    near = text.cast(pl.Float64, strict=False)
    whole = near.cast(pl.Int64, strict=False).cast(pl.String)
    is_same = ~text.str.contains(_SPELLED) | _is_short(text) | (whole == text.str.strip_prefix("+"))
    return pl.when(is_same).then(near)


def nearest_double(value: pl.Expr, own: pl.DataType) -> pl.Expr:
    """Return the double that is nearest to a number; the cast of a decimal would round twice."""
    return (value.cast(pl.String) if isinstance(own, pl.Decimal) else value).cast(pl.Float64)


def in_zone(value: pl.Expr, own: pl.DataType, zone: str | None) -> pl.Expr:
    """Return dates or times in a zone (None: none); one without a zone is of it, a date is its midnight."""
    if not isinstance(own, pl.Datetime):
        value = value.cast(pl.Datetime("us"))
    if zone is None:
        return value
    if getattr(own, "time_zone", None) is None:
        return value.dt.replace_time_zone(zone)
    return value.dt.convert_time_zone(zone)


def _is_short(decimal: pl.Expr) -> pl.Expr:
    digits = decimal.cast(pl.String).str.replace_all(r"[-.]", "").str.strip_chars_start("0").str.strip_chars_end("0")
    return digits.str.len_chars() <= _FLOAT_DIGITS
