"""One type for the values of several sources: it holds each of them exactly, or it is text."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import polars as pl

from heap_assets.values import PRIVATE

ORDER = f"{PRIVATE}order"
"""Tells numbers that are text apart by size: the place of a value among all."""
_EXACT = 2**53
_DIGITS = 15
"""Every decimal of so many digits is the one that a double is written with."""
_TEXT_TIME = "%Y-%m-%dT%H:%M:%S%.9fZ"


def together(frames: Sequence[pl.LazyFrame]) -> pl.LazyFrame:
    """Put candidates of one family of types together, `value` in one type.

    Whole numbers become Int64, beyond it Decimal; with decimals Decimal, with floats Float64. Times with and without
    zone are UTC. Where a value would be rounded, all are text: numbers with their digits and :data:`ORDER`, times ISO.
    """
    types = [frame.collect_schema()["value"] for frame in frames]
    known = list(dict.fromkeys(dtype for dtype in types if dtype != pl.Null))
    if known and all(dtype.is_numeric() for dtype in known):
        return _numbers(frames, known)
    if len(known) > 1 and all(dtype in (pl.Date, pl.Datetime) for dtype in known):
        return _times(frames, known)
    return pl.concat(frames, how="vertical_relaxed")


def _numbers(frames: Sequence[pl.LazyFrame], known: Sequence[pl.DataType]) -> pl.LazyFrame:
    for target in _targets(known):
        if all(_keeps(frame, target) for frame in frames):
            return _cast(frames, target)
    text = _cast(frames, pl.String())
    return text.with_columns(pl.col("value").map_batches(_places, return_dtype=pl.UInt32).alias(ORDER))


def _targets(known: Sequence[pl.DataType]) -> list[pl.DataType]:
    if all(dtype.is_integer() for dtype in known):
        return [pl.Int64(), pl.Decimal(38, 0)]
    if len(known) == 1:
        return [known[0]]
    if any(dtype.is_float() for dtype in known):
        return [pl.Float64()]
    return [pl.Decimal(38, max(dtype.scale for dtype in known if isinstance(dtype, pl.Decimal)))]


def _keeps(frame: pl.LazyFrame, target: pl.DataType) -> bool:
    """Whether every value of a frame is the same in another type."""
    value, dtype = pl.col("value"), frame.collect_schema()["value"]
    if dtype in (pl.Null, target) or (dtype.is_float() and target.is_float()):
        return True
    if not target.is_float():
        kept = value.cast(target, strict=False).is_not_null() | value.is_null()
    elif dtype.is_integer():
        kept = value.is_between(-_EXACT, _EXACT)
    else:
        digits = value.cast(pl.String).str.replace_all(r"[-.]", "").str.strip_chars("0")
        kept = digits.str.len_chars() <= _DIGITS
    return bool(frame.select(kept.all()).collect().item())


def _times(frames: Sequence[pl.LazyFrame], known: Sequence[pl.DataType]) -> pl.LazyFrame:
    zoned = [frame.with_columns(_in_utc(frame.collect_schema()["value"])) for frame in frames]
    finest = "ns" if any(isinstance(dtype, pl.Datetime) and dtype.time_unit == "ns" for dtype in known) else "us"
    target = pl.Datetime(finest, "UTC")  # type: ignore[arg-type]
    if all(_keeps(frame, target) for frame in zoned):
        return _cast(zoned, target)
    return pl.concat([frame.with_columns(pl.col("value").dt.strftime(_TEXT_TIME)) for frame in zoned])


def _in_utc(dtype: pl.DataType) -> pl.Expr:
    value = pl.col("value")
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        return value.dt.convert_time_zone("UTC")
    moment = value if isinstance(dtype, pl.Datetime) else value.cast(pl.Datetime("us"))
    return moment.dt.replace_time_zone("UTC")


def _cast(frames: Sequence[pl.LazyFrame], target: pl.DataType) -> pl.LazyFrame:
    return pl.concat([frame.with_columns(pl.col("value").cast(target)) for frame in frames])


def _places(numbers: pl.Series) -> pl.Series:
    ordered = sorted(numbers.drop_nulls().unique().to_list(), key=Decimal)
    return numbers.replace_strict(ordered, range(len(ordered)), return_dtype=pl.UInt32)
