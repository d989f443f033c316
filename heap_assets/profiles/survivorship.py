"""Which of several values of a trait survives, and where it came from.

The rules are total: every tie ends in source order, then the newest row, then the smallest value, so that neither the
order of rows nor of files can change a golden record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import polars as pl

from heap_assets.errors import SettingsError
from heap_assets.profiles.common_type import LOST, SIZE, common_type, size_of_text, together, total, widest
from heap_assets.values import fitting


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


_NUMBER = r"^[+-]?\d+(\.\d+)?$"

CANDIDATE_KEYS = ("profile", "rank", "time")
"""Columns of a candidate beside its `value`: the profile (any key), the position of its source, the time of its row."""


def present(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Return `value` with what is no value made null: blank strings, NaN."""
    if dtype == pl.String:
        return pl.when(value.str.strip_chars() != "").then(value)
    return value.fill_nan(None) if dtype.is_float() else value


def survivors(candidates: Sequence[pl.LazyFrame], rule: TraitRule) -> pl.LazyFrame:
    """Choose one value per profile.

    Parameters
    ----------
    candidates
        One frame per source of the rule, in its order: profile, rank UInt32, time Datetime (may be null), value.
        Rows whose value is null are no candidates.

    Returns
    -------
    LazyFrame
        profile, value, source String (the source of the rule that gave it; of a sum all, joined by `+`). Both are null
        where the value that the rule chooses does not fit the type of the trait (:func:`common_type`).

    Raises
    ------
    SettingsError
        The sources have types that cannot be compared, or the rule cannot be applied to them.
    """
    if rule.choose is Choose.SUM:
        candidates = _numbers_as_text(candidates, rule)
    dtype = _checked_type(candidates, rule)
    if rule.choose is Choose.SUM:
        chosen = _sums(candidates, dtype, rule.sources)
    else:
        typed = together(candidates, dtype)
        alone = pl.col("profile").is_unique()
        # most profiles have one candidate: only the others are worth sorting
        shared = typed.filter(~alone)
        if dtype == pl.String and rule.choose in (Choose.MAX, Choose.MIN):
            shared = shared.with_columns(size_of_text(pl.col("value")).alias(SIZE), pl.lit(False).alias(LOST))
        several = _CHOICES[rule.choose](shared)
        kept = [rows.select("profile", "value", "rank") for rows in (typed.filter(alone), several)]
        chosen = pl.concat(kept).with_columns(source=_source_name(pl.col("rank"), rule.sources))
    known = pl.when(pl.col("value").is_not_null()).then("source")
    return chosen.select("profile", "value", source=known)


def _first(candidates: pl.LazyFrame, order: Mapping[str, bool]) -> pl.LazyFrame:
    """Keep the first row of a profile by `order`: column to descending; nulls are last either way."""
    if SIZE in candidates.collect_schema():
        # of values that are about as large, one that did not fit comes first: no other may pass for it
        by_size = {SIZE: order["value"], LOST: True, "value": order["value"]}
        order = {
            name: down for key in order for name, down in (by_size if key == "value" else {key: order[key]}).items()
        }
    ordered = candidates.sort(list(order), descending=list(order.values()), nulls_last=True)
    return ordered.unique("profile", keep="first", maintain_order=True)


def _sums(candidates: Sequence[pl.LazyFrame], dtype: pl.DataType, sources: Sequence[str]) -> pl.LazyFrame:
    """Add the values of each profile: those of exact types exactly, then what floats there are as doubles."""
    floats = [frame for frame in candidates if frame.collect_schema()["value"].is_float()]
    others = [frame for frame in candidates if not frame.collect_schema()["value"].is_float()]
    wide = widest(common_type([frame.collect_schema()["value"] for frame in others]))
    parts = [
        _added(frames, own).with_columns(fitting(pl.col("value"), own, dtype).alias("value"))
        for frames, own in ((others, wide), (floats, dtype))
        if frames
    ]
    sums = parts[0]
    if len(parts) > 1:
        both = pl.concat(parts).group_by("profile").agg(pl.col("value").sort(), pl.col("ranks").explode())
        sums = both.with_columns(total(pl.col("value"), dtype).alias("value"))
    names = pl.col("ranks").list.unique().list.sort().list.eval(_source_name(pl.element(), sources)).list.join("+")
    return sums.select("profile", "value", source=names)


def _added(frames: Sequence[pl.LazyFrame], dtype: pl.DataType) -> pl.LazyFrame:
    typed = together(frames, dtype)
    alone = pl.col("profile").is_unique()
    only = typed.filter(alone).select("profile", "value", ranks=pl.concat_list("rank"))
    # sums of floats depend on their order, which a parallel aggregation does not keep: collect, sort, then add
    several = typed.filter(~alone).group_by("profile").agg(pl.col("value").sort(), ranks=pl.col("rank").unique())
    return pl.concat([only, several.with_columns(total(pl.col("value"), dtype).alias("value"))])


def _by(order: Mapping[str, bool]) -> Callable[[pl.LazyFrame], pl.LazyFrame]:
    return lambda candidates: _first(candidates, order)


_CHOICES: dict[Choose, Callable[[pl.LazyFrame], pl.LazyFrame]] = {
    Choose.FIRST_PRESENT: _by({"rank": False, "time": True, "value": False}),
    Choose.NEWEST: _by({"time": True, "rank": False, "value": False}),
    Choose.EARLIEST: _by({"time": False, "rank": False, "value": False}),
    Choose.MAX: _by({"value": True, "rank": False}),
    Choose.MIN: _by({"value": False, "rank": False}),
    Choose.ANY: _by({"value": True, "rank": False}),
}


def _source_name(rank: pl.Expr, sources: Sequence[str]) -> pl.Expr:
    return rank.replace_strict(list(range(len(sources))), list(sources), return_dtype=pl.String)


def _checked_type(candidates: Sequence[pl.LazyFrame], rule: TraitRule) -> pl.DataType:
    """Return the type of a trait's values; SettingsError if its sources do not go together."""
    types = [frame.collect_schema()["value"] for frame in candidates]
    known = [dtype for dtype in types if dtype != pl.Null]
    named = ", ".join(f"{source} is {dtype}" for source, dtype in zip(rule.sources, types, strict=True))
    for dtype in known:
        _require(rule, dtype, named)
    if len({_family(dtype) for dtype in known}) > 1:
        raise SettingsError(f"trait {rule.name!r} mixes types that cannot be compared: {named}.")
    return common_type(types)


def _numbers_as_text(candidates: Sequence[pl.LazyFrame], rule: TraitRule) -> list[pl.LazyFrame]:
    """Return candidates of a sum as text, all of them, if a source spells its numbers so; unchanged if none does.

    A warehouse's decimals are text where no type of the lake holds every digit of them (docs/values.md).
    """
    is_text = [frame.collect_schema()["value"] == pl.String for frame in candidates]
    for frame, spelled, source in zip(candidates, is_text, rule.sources, strict=True):
        wrong = frame.select((~pl.col("value").str.contains(_NUMBER)).sum()).collect().item() if spelled else 0
        if wrong:
            raise SettingsError(
                f"trait {rule.name!r} is a sum, its sources must be numbers: {source} is text, of which {wrong:,} "
                "values are no numbers."
            )
    if not any(is_text):
        return list(candidates)
    return [frame.with_columns(pl.col("value").cast(pl.String)) for frame in candidates]


def _require(rule: TraitRule, dtype: pl.DataType, named: str) -> None:
    if dtype.is_nested():
        raise SettingsError(f"trait {rule.name!r} needs plain values, name a field of the nested column: {named}.")
    if rule.choose is Choose.SUM and not (dtype.is_numeric() or dtype == pl.String):
        raise SettingsError(f"trait {rule.name!r} is a sum, its sources must be numbers: {named}.")
    if rule.choose is Choose.ANY and dtype != pl.Boolean:
        raise SettingsError(f"trait {rule.name!r} chooses any, its sources must be Boolean: {named}.")


def _family(dtype: pl.DataType) -> str:
    if dtype.is_numeric():
        return "number"
    return "time" if dtype in (pl.Date, pl.Datetime) else str(dtype.base_type())
