"""Polars values as JSON text: every digit, every fraction of a second; what JSON lacks as text, or null and counted."""

from __future__ import annotations

import base64
import json
import math
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import polars as pl

ISO = "%Y-%m-%dT%H:%M:%S%.f"


def json_text(value: pl.Expr, dtype: Any) -> pl.Expr:
    """Write values as JSON; null stays null.

    Whole numbers and floats are numbers with all their digits, decimals are text with all theirs; times are ISO 8601,
    in UTC if they have a zone; bytes are base64. NaN and infinities are null: :func:`json_lost` counts them.
    """
    whole = pl.struct(json_safe(value, dtype).alias("v")).struct.json_encode()
    return pl.when(value.is_not_null()).then(whole.str.strip_prefix('{"v":').str.strip_suffix("}"))


def json_lost(value: pl.Expr, dtype: Any) -> pl.Expr:
    """Count, row by row, the numbers in values that JSON has no form for."""
    if isinstance(dtype, pl.Struct):
        counts = [json_lost(value.struct.field(child.name), child.dtype) for child in dtype.fields]
        return pl.sum_horizontal(*counts) if counts else pl.lit(0, pl.UInt32)
    if isinstance(dtype, pl.Array):
        return json_lost(value.arr.to_list(), pl.List(dtype.inner))
    if isinstance(dtype, pl.List):
        return value.list.eval(json_lost(pl.element(), dtype.inner)).list.sum().fill_null(0)
    if dtype in (pl.Float32, pl.Float64):
        return (~value.is_finite()).fill_null(value=False).cast(pl.UInt32)
    return pl.when(value.is_null()).then(pl.lit(0, pl.UInt32)).otherwise(pl.lit(0, pl.UInt32))


def exact_json(value: pl.Expr, dtype: Any) -> pl.Expr:
    """Write values as JSON in which nothing is lost: decimals are numbers, NaN and infinities are text; row by row."""
    safe = json_safe(value, dtype, decimals=False)
    return safe.map_batches(json_texts, return_dtype=pl.String, is_elementwise=True)


def json_or_exact(value: pl.Expr, dtype: Any) -> pl.Expr:
    """Write values as :func:`json_text`, but NaN and infinities as text."""
    whole = pl.struct(
        json_text(value, dtype).alias("v"), json_lost(value, dtype).alias("lost"), json_safe(value, dtype).alias("safe")
    )
    return whole.map_batches(_endless_as_text, return_dtype=pl.String, is_elementwise=True)


def _endless_as_text(whole: pl.Series) -> pl.Series:
    parts = whole.struct.unnest()
    endless = (parts["lost"] > 0).arg_true()
    texts = parts["v"]
    return texts.scatter(endless, json_texts(parts["safe"].gather(endless))) if len(endless) else texts


def json_texts(values: pl.Series) -> pl.Series:
    """Write each value of a column by :func:`value_as_json`; null stays null."""
    texts = [None if each is None else value_as_json(each) for each in values.to_list()]
    return pl.Series(values.name, texts, pl.String)


def json_safe(value: pl.Expr, dtype: Any, *, decimals: bool = True) -> pl.Expr:
    """Turn values into those that Polars writes as the JSON of :func:`json_text`.

    Parameters
    ----------
    decimals
        Whether decimals become text.
    """
    if isinstance(dtype, pl.Struct):
        fields = [
            json_safe(value.struct.field(child.name), child.dtype, decimals=decimals).alias(child.name)
            for child in dtype.fields
        ]
        return pl.when(value.is_not_null()).then(pl.struct(fields)) if fields else value
    if isinstance(dtype, pl.Array):
        return json_safe(value.arr.to_list(), pl.List(dtype.inner), decimals=decimals)
    if isinstance(dtype, pl.List):
        return value.list.eval(json_safe(pl.element(), dtype.inner, decimals=decimals))
    if isinstance(dtype, pl.Datetime):
        utc = value.dt.convert_time_zone("UTC") if dtype.time_zone else value
        return utc.dt.strftime(ISO + ("Z" if dtype.time_zone else ""))
    if isinstance(dtype, pl.Time):
        return value.dt.strftime("%H:%M:%S%.f")
    if isinstance(dtype, pl.Binary):
        return value.bin.encode("base64")
    if isinstance(dtype, pl.Duration):
        return value.dt.to_string("iso")
    if isinstance(dtype, pl.Categorical | pl.Enum) or (decimals and isinstance(dtype, pl.Decimal)):
        return value.cast(pl.String)
    return value


def value_as_json(value: Any) -> str:
    """Write a value as JSON with all its digits; what JSON has no form for is text in it.

    >>> value_as_json({"a": [1, None], "n": Decimal("1.50")})
    '{"a":[1,null],"n":1.50}'
    """
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{value_as_json(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | pl.Series):
        return "[" + ",".join(value_as_json(each) for each in value) + "]"
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, float) and not math.isfinite(value):
        return json.dumps(str(value))
    return json.dumps(_scalar(value), ensure_ascii=False)


def _scalar(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime | date | time):
        return value.isoformat().replace("+00:00", "Z")
    return str(value) if isinstance(value, timedelta) else value
