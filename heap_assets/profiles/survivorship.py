"""Which of several values of a trait survives, and where it came from.

The rules are total: every tie ends in source order, then the newest row, then the smallest value, so that neither the
order of rows nor of files can change a golden record. Values of several sources come into one type, which follows from
the types of the sources alone, so that it is the same on every day: each exactly, or null and counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from enum import StrEnum

import polars as pl

from heap_assets.errors import SettingsError
from heap_assets.values import PRIVATE, fitting, in_zone, nearest_double


class Choose(StrEnum):
    """How one value is chosen among the rows of a profile."""

    FIRST_PRESENT = "first_present"
    NEWEST = "newest"
    EARLIEST = "earliest"
    MAX = "max"
    MIN = "min"
    SUM = "sum"
    ANY = "any"


@dataclass(frozen=True)
class TraitRule:
    """One attribute of a profile and the rule that chooses its value.

    Attributes
    ----------
    name
        Column of `profiles`.
    sources
        `table.column` in order of trust; a nested path is `table.column.field`. May be empty while no table is built.
    choose
        first_present: the first source that has a value. newest, earliest: by the row's time, rows without one last.
        max, min: by value; text that spells a number as that number, before any other text. sum: over all rows of all
        sources. any: true if one row is true.
    """

    name: str
    sources: tuple[str, ...]
    choose: Choose = Choose.FIRST_PRESENT

    def __post_init__(self) -> None:
        if self.choose not in list(Choose):
            raise SettingsError(f"trait {self.name!r}: choose is {self.choose!r}, expected one of {', '.join(Choose)}.")
        object.__setattr__(self, "choose", Choose(self.choose))
        for source in self.sources:
            table, _, column = source.partition(".")
            if not table or not column:
                raise SettingsError(f"trait {self.name!r}: source {source!r} is not table.column.")
        if len(set(self.sources)) < len(self.sources):
            raise SettingsError(f"trait {self.name!r} names a source twice: {', '.join(self.sources)}.")


_SIZE, _LOST = f"{PRIVATE}size", f"{PRIVATE}lost"
"""The order of values that do not fit: about how large each is, and whether it did not fit."""
_NUMBER = r"^[+-]?\d+(\.\d+)?$"
_NUMBER_WITHOUT_ZEROS = r"^[-+]?(0|[1-9][0-9]*)(\.[0-9]+)?$"
_TEXT_DIGITS = 400_000
"""More than any number that a warehouse or a float spells."""
_HALF = 10**19
"""A decimal of 38 digits has two halves of 19."""


def present(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Return `value` with what is no value made null: blank strings, NaN."""
    if dtype == pl.String:
        return pl.when(value.str.strip_chars() != "").then(value)
    return value.fill_nan(None) if dtype.is_float() else value


def survivors(candidates: Sequence[pl.LazyFrame], rule: TraitRule) -> pl.LazyFrame:
    """Choose one value per profile.

    `candidates`: one frame per source of the rule, in its order: profile, rank UInt32, time Datetime (may be null),
    value. Rows whose value is null are no candidates.

    Returns profile, value, source String (the source of the rule that gave it; of a sum all, joined by `+`). Both are
    null where the value that the rule chooses does not fit the type of the trait (:func:`_common_type`).

    Raises SettingsError: the sources have types that cannot be compared, or the rule cannot be applied to them.
    """
    if rule.choose is Choose.SUM:
        candidates = _numbers_as_text(candidates, rule)
    dtype = _checked_type(candidates, rule)
    if rule.choose is Choose.SUM:
        winners = _sums(candidates, dtype, rule.sources)
    else:
        typed = _in_one_type(candidates, dtype)
        alone = pl.col("profile").is_unique()
        # most profiles have one candidate: only the others are worth sorting
        shared = typed.filter(~alone)
        if dtype == pl.String and rule.choose in (Choose.MAX, Choose.MIN):
            shared = shared.with_columns(_size_of_text(pl.col("value")).alias(_SIZE), pl.lit(False).alias(_LOST))
        firsts = _first(shared, _ORDERS[rule.choose])
        parts = [rows.select("profile", "value", "rank") for rows in (typed.filter(alone), firsts)]
        winners = pl.concat(parts).with_columns(source=_source_name(pl.col("rank"), rule.sources))
    return winners.select("profile", "value", source=pl.when(pl.col("value").is_not_null()).then("source"))


def _first(candidates: pl.LazyFrame, order: Mapping[str, bool]) -> pl.LazyFrame:
    """Keep the first row of a profile by `order`: column to descending; nulls are last either way."""
    if _SIZE in candidates.collect_schema():
        # of values that are about as large, one that did not fit comes first: no other may pass for it
        by_size = {_SIZE: order["value"], _LOST: True, "value": order["value"]}
        order = {
            name: down for key in order for name, down in (by_size if key == "value" else {key: order[key]}).items()
        }
    ordered = candidates.sort(list(order), descending=list(order.values()), nulls_last=True)
    return ordered.unique("profile", keep="first", maintain_order=True)


def _sums(candidates: Sequence[pl.LazyFrame], dtype: pl.DataType, sources: Sequence[str]) -> pl.LazyFrame:
    """Add the values of each profile: those of exact types exactly, then what floats there are as doubles."""
    floats = [frame for frame in candidates if frame.collect_schema()["value"].is_float()]
    exact = [frame for frame in candidates if not frame.collect_schema()["value"].is_float()]
    wide = _widest(_common_type([frame.collect_schema()["value"] for frame in exact]))
    parts = [
        _added(frames, own).with_columns(fitting(pl.col("value"), own, dtype).alias("value"))
        for frames, own in ((exact, wide), (floats, dtype))
        if frames
    ]
    sums = parts[0]
    if len(parts) > 1:
        both = pl.concat(parts).group_by("profile").agg(pl.col("value").sort(), pl.col("ranks").explode())
        sums = both.with_columns(_total(pl.col("value"), dtype).alias("value"))
    names = pl.col("ranks").list.unique().list.sort().list.eval(_source_name(pl.element(), sources)).list.join("+")
    return sums.select("profile", "value", source=names)


def _added(frames: Sequence[pl.LazyFrame], dtype: pl.DataType) -> pl.LazyFrame:
    typed = _in_one_type(frames, dtype)
    alone = pl.col("profile").is_unique()
    single = typed.filter(alone).select("profile", "value", ranks=pl.concat_list("rank"))
    # sums of floats depend on their order, which a parallel aggregation does not keep: collect, sort, then add
    several = typed.filter(~alone).group_by("profile").agg(pl.col("value").sort(), ranks=pl.col("rank").unique())
    return pl.concat([single, several.with_columns(_total(pl.col("value"), dtype).alias("value"))])


_ORDERS: Mapping[Choose, Mapping[str, bool]] = {
    Choose.FIRST_PRESENT: {"rank": False, "time": True, "value": False},
    Choose.NEWEST: {"time": True, "rank": False, "value": False},
    Choose.EARLIEST: {"time": False, "rank": False, "value": False},
    Choose.MAX: {"value": True, "rank": False},
    Choose.MIN: {"value": False, "rank": False},
    Choose.ANY: {"value": True, "rank": False},
}
"""The columns that decide, and whether the largest of them is first."""


def _source_name(rank: pl.Expr, sources: Sequence[str]) -> pl.Expr:
    return rank.replace_strict(list(range(len(sources))), list(sources), return_dtype=pl.String)


def _checked_type(candidates: Sequence[pl.LazyFrame], rule: TraitRule) -> pl.DataType:
    """Return the type of a trait's values; SettingsError if its sources do not go together."""
    types = [frame.collect_schema()["value"] for frame in candidates]
    typed = [dtype for dtype in types if dtype != pl.Null]
    listed = ", ".join(f"{source} is {dtype}" for source, dtype in zip(rule.sources, types, strict=True))
    for dtype in typed:
        if dtype.is_nested():
            wrong = "needs plain values, name a field of the nested column"
        elif rule.choose is Choose.SUM and not (dtype.is_numeric() or dtype == pl.String):
            wrong = "is a sum, its sources must be numbers"
        elif rule.choose is Choose.ANY and dtype != pl.Boolean:
            wrong = "chooses any, its sources must be Boolean"
        else:
            continue
        raise SettingsError(f"trait {rule.name!r} {wrong}: {listed}.")
    if len({_family(dtype) for dtype in typed}) > 1:
        raise SettingsError(f"trait {rule.name!r} mixes types that cannot be compared: {listed}.")
    return _common_type(types)


def _numbers_as_text(candidates: Sequence[pl.LazyFrame], rule: TraitRule) -> list[pl.LazyFrame]:
    """Return candidates of a sum as text, all of them, if a source spells its numbers so; unchanged if none does.

    A warehouse's decimals are text where no type of the lake holds every digit of them (docs/values.md).
    """
    is_text = [frame.collect_schema()["value"] == pl.String for frame in candidates]
    for frame, has_text, source in zip(candidates, is_text, rule.sources, strict=True):
        wrong = frame.select((~pl.col("value").str.contains(_NUMBER)).sum()).collect().item() if has_text else 0
        if wrong:
            raise SettingsError(
                f"trait {rule.name!r} is a sum, its sources must be numbers: {source} is text, of which {wrong:,} "
                "values are no numbers."
            )
    if not any(is_text):
        return list(candidates)
    return [frame.with_columns(pl.col("value").cast(pl.String)) for frame in candidates]


def _family(dtype: pl.DataType) -> str:
    if dtype.is_numeric():
        return "number"
    return "time" if dtype in (pl.Date, pl.Datetime) else str(dtype.base_type())


def _in_one_type(frames: Sequence[pl.LazyFrame], dtype: pl.DataType) -> pl.LazyFrame:
    """Put candidates together with `value` in one type.

    Returns the rows; `value` is null where no value of the type is the same, and then :data:`_SIZE` and :data:`_LOST`
    say where it belongs among the others. Without these columns if every value of these types fits.
    """
    types = [frame.collect_schema()["value"] for frame in frames]
    if all(source_type in (dtype, pl.Null) or _always_fits(source_type, dtype) for source_type in types):
        return pl.concat([frame.with_columns(pl.col("value").cast(dtype)) for frame in frames])
    size = pl.Datetime("us") if dtype.is_temporal() else pl.Float64()
    return pl.concat(
        [
            frame.with_columns(
                fitting(pl.col("value"), source_type, dtype).alias("value"),
                _size(pl.col("value"), source_type).cast(size).alias(_SIZE),
            ).with_columns(pl.col("value").is_null().alias(_LOST))
            for frame, source_type in zip(frames, types, strict=True)
        ]
    )


def _common_type(types: Sequence[pl.DataType]) -> pl.DataType:
    """Return the type for values of one family: whole numbers Int64, with floats Float64, the finest unit of time.

    Times are UTC if one of them has a zone: one without is taken as UTC.
    """
    types_without_null = list(dict.fromkeys(dtype for dtype in types if dtype != pl.Null))
    if types_without_null and all(dtype.is_integer() for dtype in types_without_null):
        return pl.Int64()
    moments = [dtype for dtype in types_without_null if isinstance(dtype, pl.Datetime)]
    if moments and len(types_without_null) > 1:
        unit = "ns" if any(moment.time_unit == "ns" for moment in moments) else "us"
        return pl.Datetime(unit, "UTC" if any(moment.time_zone for moment in moments) else None)  # type: ignore[arg-type]
    # a source of small whole numbers counts as one of Int64, whatever Polars would make of it beside a Float32
    wide = [pl.Int64() if dtype.is_integer() else dtype for dtype in types_without_null]
    empty = [pl.LazyFrame(schema={"value": dtype}) for dtype in wide or [pl.Null()]]
    return pl.concat(empty, how="vertical_relaxed").collect_schema()["value"]


def _widest(dtype: pl.DataType) -> pl.DataType:
    """Return the type in which whole numbers and decimals of a type are added, before the sum has to fit."""
    if isinstance(dtype, pl.Decimal):
        return pl.Decimal(38, dtype.scale)
    return pl.Int128() if dtype.is_integer() else dtype


def _size_of_text(text: pl.Expr) -> pl.Expr:
    """Return the place of each text by the number that it spells; all others, such as those with leading zeros, last.

    A warehouse's decimals are text where no type of the lake holds every digit of them; Heap's properties often are.
    """
    return text.map_batches(_ranks, return_dtype=pl.UInt32)


def _ranks(texts: pl.Series) -> pl.Series:
    numbers = texts.filter(texts.str.contains(_NUMBER_WITHOUT_ZEROS)).unique().to_list()
    ranks: dict[Decimal, int] = {
        number: rank for rank, number in enumerate(sorted({Decimal(text) for text in numbers}))
    }
    return texts.replace_strict(
        numbers, [ranks[Decimal(text)] for text in numbers], default=len(ranks), return_dtype=pl.UInt32
    )


def _total(numbers: pl.Expr, inner: pl.DataType) -> pl.Expr:
    """Add lists of numbers of type `inner`: null if the sum does not fit it or a number is null.

    Whole numbers are of 128 bits. Numbers that are text add up exactly, floats as doubles; infinities of both signs
    are no number.
    """
    is_complete = ~numbers.list.eval(pl.element().is_null()).list.any()
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
    return pl.when(is_complete).then(added)


def _decimal_total(numbers: pl.Expr, inner: pl.Decimal) -> pl.Expr:
    """Add decimals by halves of their digits, since a sum that overflows would end the whole query."""
    digits = numbers.list.eval(pl.element().to_physical())
    high = digits.list.eval(pl.element() // _HALF).list.sum()
    low = digits.list.eval(pl.element() % _HALF).list.sum()
    carried = high + low // _HALF
    fits = carried.is_between(-_HALF, _HALF - 1)
    return _scaled(pl.when(fits).then(carried) * _HALF + low % _HALF, inner)


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
