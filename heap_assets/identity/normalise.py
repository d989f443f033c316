"""From raw column values to identifiers: text, normalised by type, or a reason why the value is none."""

from __future__ import annotations

from functools import reduce
from typing import Final

import polars as pl

from heap_assets.identity.errors import RulesError
from heap_assets.identity.junk import is_junk
from heap_assets.identity.rules import IdentifierRule, Rules

MAX_BYTES: Final = 1024
"""Longer values are payloads in the wrong column; Heap's own identities have at most 255 characters (heap.md 1.9)."""

REASONS: Final = ("null", "empty", "too_long", "junk", "blocked", "suppressed", "pattern")
"""Why a value is no identifier, in the order in which they are tried."""


def as_text(column: pl.Expr, dtype: pl.DataType, where: str) -> pl.Expr:
    """Cast a column of strings, integers, dates or categories to text.

    Raises
    ------
    RulesError
        For floats (an id that has been through one may be another id) and for types that are no identifiers.
    """
    if dtype == pl.String:
        return column
    if dtype == pl.Null or dtype.is_integer() or isinstance(dtype, pl.Enum | pl.Categorical | pl.Date | pl.Datetime):
        return column.cast(pl.String)
    if isinstance(dtype, pl.Decimal) and dtype.scale == 0:
        return column.cast(pl.String)
    raise RulesError(
        f"{where} is {dtype}: an identifier must be text, an integer or a date; "
        "cast it to text in the source (never through a float)"
    )


def normalised(value: pl.Expr, normaliser: str) -> pl.Expr:
    """Apply a type's normaliser to text (rule 1)."""
    match normaliser:
        case "none":
            return value
        case "strip":
            return value.str.strip_chars()
        case "lower":
            return value.str.to_lowercase()
        case "email":
            return value.str.strip_chars().str.to_lowercase()
        case "digits":
            return value.str.replace_all(r"[^0-9]", "")
    raise RulesError(f"unknown normaliser {normaliser!r}")


def composite(parts: list[pl.Expr]) -> pl.Expr:
    r"""Join normalised parts with `|`, null if one is null or blank.

    `|` and `\\` inside a part are escaped, so that different parts never make the same value.
    """
    escaped = [
        pl.when(part.str.strip_chars() != "").then(
            part.str.replace_all("\\", "\\\\", literal=True).str.replace_all("|", "\\|", literal=True)
        )
        for part in parts
    ]
    return pl.concat_str(escaped, separator="|", ignore_nulls=False)


def reason(value: pl.Expr, rule: IdentifierRule, rules: Rules) -> pl.Expr:
    """Tell why a normalised value is no identifier, as text; null if it is one."""
    suppressed = [name for suppressed_type, name in rules.suppressed if suppressed_type == rule.type]
    tests: list[tuple[str, pl.Expr]] = [
        ("null", value.is_null()),
        ("empty", value.str.strip_chars() == ""),
        ("too_long", value.str.len_bytes() > MAX_BYTES),
        ("junk", is_junk(value)),
    ]
    if rule.blocked:
        blocked = (
            pl.Series(rule.blocked, dtype=pl.String).to_frame("v").select(normalised(pl.col("v"), rule.normaliser))
        )
        tests.append(("blocked", value.is_in(blocked["v"].to_list())))
    if rule.blocked_patterns:
        tests.append(("blocked", value.str.contains("|".join(f"(?:{p})" for p in rule.blocked_patterns))))
    if suppressed:
        tests.append(("suppressed", value.is_in(suppressed)))
    if rule.value_pattern:
        tests.append(("pattern", ~value.str.contains(rule.value_pattern)))
    nothing = pl.lit(None, dtype=pl.String)
    return reduce(lambda rest, test: pl.when(test[1]).then(pl.lit(test[0])).otherwise(rest), reversed(tests), nothing)
