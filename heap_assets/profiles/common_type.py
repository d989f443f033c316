"""Values of several sources in one type: each exactly, or null, so that it is counted; never another value.

The type follows from the types of the sources alone, so that it is the same on every day.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Context, Decimal, localcontext

import polars as pl

from heap_assets.values import PRIVATE, fitting, in_zone, nearest_double

SIZE, LOST = f"{PRIVATE}size", f"{PRIVATE}lost"
"""Where the order of values that do not fit is needed: about how large each is, and whether it did not fit."""

_SPELLED = r"^[-+]?(0|[1-9][0-9]*)(\.[0-9]+)?$"
_TEXT_DIGITS = 400_000
"""More than any number that a warehouse or a float spells."""
_HALF = 10**19
"""A decimal of 38 digits has two halves of 19."""


def together(frames: Sequence[pl.LazyFrame], dtype: pl.DataType) -> pl.LazyFrame:
    """Put candidates together with `value` in one type.

    Returns
    -------
    LazyFrame
        The rows; `value` is null where no value of the type is the same, and then :data:`SIZE` and :data:`LOST` say
        where it belongs among the others. Without these columns if every value of these types fits.
    """
    types = [frame.collect_schema()["value"] for frame in frames]
    if all(own in (dtype, pl.Null) or _always_fits(own, dtype) for own in types):
        return pl.concat([frame.with_columns(pl.col("value").cast(dtype)) for frame in frames])
    size = pl.Datetime("us") if dtype.is_temporal() else pl.Float64()
    return pl.concat(
        [
            frame.with_columns(
                fitting(pl.col("value"), own, dtype).alias("value"), _size(pl.col("value"), own).cast(size).alias(SIZE)
            ).with_columns(pl.col("value").is_null().alias(LOST))
            for frame, own in zip(frames, types, strict=True)
        ]
    )


def common_type(types: Sequence[pl.DataType]) -> pl.DataType:
    """Return the type for values of one family: whole numbers Int64, with floats Float64, the finest unit of time.

    Times are UTC if one of them has a zone: one without is taken as UTC.
    """
    known = list(dict.fromkeys(dtype for dtype in types if dtype != pl.Null))
    if known and all(dtype.is_integer() for dtype in known):
        return pl.Int64()
    moments = [dtype for dtype in known if isinstance(dtype, pl.Datetime)]
    if moments and len(known) > 1:
        unit = "ns" if any(moment.time_unit == "ns" for moment in moments) else "us"
        return pl.Datetime(unit, "UTC" if any(moment.time_zone for moment in moments) else None)  # type: ignore[arg-type]
    # a source of small whole numbers counts as one of Int64, whatever Polars would make of it beside a Float32
    wide = [pl.Int64() if dtype.is_integer() else dtype for dtype in known]
    empty = [pl.LazyFrame(schema={"value": dtype}) for dtype in wide or [pl.Null()]]
    return pl.concat(empty, how="vertical_relaxed").collect_schema()["value"]


def widest(dtype: pl.DataType) -> pl.DataType:
    """Return the type in which whole numbers and decimals of a type are added, before the sum has to fit."""
    if isinstance(dtype, pl.Decimal):
        return pl.Decimal(38, dtype.scale)
    return pl.Int128() if dtype.is_integer() else dtype


def size_of_text(text: pl.Expr) -> pl.Expr:
    """Return the place of each text by the number that it spells; all others, such as those with leading zeros, last.

    A warehouse's decimals are text where no type of the lake holds every digit of them; Heap's properties often are.
    """
    return text.map_batches(_places, return_dtype=pl.UInt32)


def _places(texts: pl.Series) -> pl.Series:
    numbers = texts.filter(texts.str.contains(_SPELLED)).unique().to_list()
    places: dict[Decimal, int] = {
        number: place for place, number in enumerate(sorted({Decimal(text) for text in numbers}))
    }
    return texts.replace_strict(
        numbers, [places[Decimal(text)] for text in numbers], default=len(places), return_dtype=pl.UInt32
    )


def total(numbers: pl.Expr, inner: pl.DataType) -> pl.Expr:
    """Add lists of numbers of type `inner`: null if the sum does not fit it or a number is null.

    Whole numbers are of 128 bits. Numbers that are text add up exactly, floats as doubles; infinities of both signs
    are no number.
    """
    whole = ~numbers.list.eval(pl.element().is_null()).list.any()
    if inner == pl.String:
        added = numbers.map_elements(_text_total, return_dtype=pl.String)
    elif inner.is_integer():
        added = numbers.list.sum()
    elif isinstance(inner, pl.Decimal):
        added = _decimal_total(numbers, inner)
    else:
        doubles = numbers.cast(pl.List(pl.Float64))
        rounded = doubles.list.sum().cast(inner)
        endless = doubles.list.eval(pl.element().is_infinite()).list.any()
        added = pl.when(rounded.is_finite() | (endless & rounded.is_infinite())).then(rounded)
    return pl.when(whole).then(added)


def _decimal_total(numbers: pl.Expr, inner: pl.Decimal) -> pl.Expr:
    """Add decimals by halves of their digits, since a sum that overflows would end the whole query."""
    digits = numbers.list.eval(pl.element().to_physical())
    high = digits.list.eval(pl.element() // _HALF).list.sum()
    low = digits.list.eval(pl.element() % _HALF).list.sum()
    carried, rest = high + low // _HALF, low % _HALF
    fits = carried.is_between(-_HALF, _HALF - 1)
    return _scaled(pl.when(fits).then(carried) * _HALF + rest, inner)


def _scaled(unscaled: pl.Expr, dtype: pl.Decimal) -> pl.Expr:
    sign = pl.when(unscaled < 0).then(pl.lit("-")).otherwise(pl.lit(""))
    digits = unscaled.abs().cast(pl.String).str.zfill(dtype.scale + 1)
    point = digits.str.len_chars() - dtype.scale
    text = pl.concat_str(sign, digits.str.head(point), pl.lit("."), digits.str.slice(point))
    return text.cast(dtype, strict=False)


def _text_total(numbers: pl.Series) -> str | None:
    with localcontext(Context(prec=_TEXT_DIGITS, traps=[])):
        added = sum(map(Decimal, numbers), Decimal(0))
    if added.is_finite():
        return format(added, "f")
    return None if added.is_nan() else str(float(added))


def _always_fits(own: pl.DataType, dtype: pl.DataType) -> bool:
    if own.is_integer():
        return dtype == pl.Int128 or (dtype == pl.Int64 and own not in (pl.UInt64, pl.Int128, pl.UInt128))
    if isinstance(own, pl.Decimal):
        return isinstance(dtype, pl.Decimal) and own.scale == dtype.scale and own.precision <= dtype.precision
    return own == pl.Float32 and dtype == pl.Float64


def _size(value: pl.Expr, own: pl.DataType) -> pl.Expr:
    """Return about how large a value is: never in another order than the values, equal only for near ones."""
    if own.is_temporal():
        moment = in_zone(value, own, "UTC").dt.replace_time_zone(None)
        return moment.dt.cast_time_unit("us")
    return nearest_double(value, own)
