"""Consent: statements of several sources, the newest of a person and purpose, and what its absence means."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import polars as pl

from heap_assets.values import ALWAYS, TIME, read_times

STATEMENTS: Final = pl.Schema(
    {"profile_id": pl.String(), "purpose": pl.String(), "granted": pl.Boolean(), "at": TIME, "source": pl.String()}
)
"""One row per statement of a person about a purpose."""


def consent_column(purpose: str) -> str:
    """Return the column of profiles that says whether a person consents to a purpose."""
    return f"consent_{purpose}"


def consent_since_column(purpose: str) -> str:
    """Return the column of profiles that says from which time on a person's consent to a purpose covers events."""
    return f"consent_{purpose}__since"


def long_statements(
    rows: pl.LazyFrame, source: str, purpose: str, state: str, at: str | None, granted: Collection[str]
) -> pl.LazyFrame:
    """Return the statements of a table that has a row for each person and purpose.

    `rows`: with `profile_id`. `granted`: values of `state` that mean yes, compared without case; any other means no.
    """
    yes = pl.col(state).cast(pl.String).str.strip_chars().str.to_lowercase().is_in([one.lower() for one in granted])
    return rows.select(
        "profile_id",
        purpose=pl.col(purpose).cast(pl.String),
        granted=pl.when(pl.col(state).is_not_null()).then(yes),
        at=_time(rows, at),
        source=pl.lit(source),
    )


def wide_statements(
    rows: pl.LazyFrame, source: str, columns: Mapping[str, str], at: str | None, granted: Collection[str]
) -> pl.LazyFrame:
    """Return the statements of a table that has a column for each purpose (`columns`: purpose to column)."""
    parts = [
        long_statements(rows.with_columns(_purpose=pl.lit(purpose)), source, "_purpose", column, at, granted)
        for purpose, column in sorted(columns.items())
    ]
    return pl.concat(parts)


def _time(rows: pl.LazyFrame, at: str | None) -> pl.Expr:
    if at is None:
        return pl.lit(None, TIME)
    dtype = rows.collect_schema()[at]
    if dtype == pl.String:
        return read_times(pl.col(at)).cast(TIME)
    column = pl.col(at).cast(pl.Datetime("us")) if dtype == pl.Date else pl.col(at)
    if isinstance(dtype, pl.Datetime) and dtype.time_zone:
        return column.dt.convert_time_zone("UTC").cast(TIME)
    return column.dt.replace_time_zone("UTC").cast(TIME)


def newest_statements(statements: Sequence[pl.LazyFrame]) -> pl.LazyFrame:
    """Return the statement that holds for each person and purpose: the newest; of equally old ones, the no.

    A statement without a time is older than any with one. `since` is added: the time of the earliest yes after which no
    no was stated; null where the no holds, or where no yes has a time.
    """
    every = pl.concat([pl.LazyFrame(schema=STATEMENTS), *statements], how="vertical")
    stated = every.filter(pl.col("profile_id").is_not_null() & pl.col("granted").is_not_null())
    at_no = pl.col("at").filter(~pl.col("granted")).max().over("profile_id", "purpose")
    unbroken = pl.col("granted") & (pl.col("at") > at_no).fill_null(at_no.is_null())
    since = pl.col("at").filter(unbroken).min().over("profile_id", "purpose")
    ordered = stated.with_columns(since=since).sort(
        "profile_id",
        "purpose",
        "at",
        "granted",
        "source",
        descending=[False, False, True, False, False],
        nulls_last=True,
    )
    return ordered.unique(["profile_id", "purpose"], keep="first", maintain_order=True)


def with_consent(
    profiles: pl.LazyFrame,
    statements: pl.LazyFrame,
    purposes: Sequence[str],
    *,
    absent: bool,
    region: str | None = None,
    by_region: Mapping[str, bool] | None = None,
) -> pl.LazyFrame:
    """Add `consent_<purpose>` for each purpose: what the person has stated, else what absence means.

    `consent_<purpose>__since` (UTC) beside it says from when on: null without consent and where no time was stated,
    :data:`heap_assets.values.ALWAYS` where absence means yes.

    `absent`: what it means where the column `region` says nothing of another rule; `by_region`: value of that column,
    compared without case, to what it means there.
    """
    default = pl.lit(absent)
    if region is not None and by_region:
        where = pl.col(region).cast(pl.String).str.strip_chars().str.to_lowercase()
        rules = {name.lower(): meaning for name, meaning in by_region.items()}
        default = where.replace_strict(list(rules), list(rules.values()), default=absent, return_dtype=pl.Boolean)
    for purpose in purposes:
        stated = statements.filter(pl.col("purpose") == purpose).select("profile_id", _stated="granted", _since="since")
        profiles = (
            profiles.join(stated, on="profile_id", how="left", maintain_order="left")
            .with_columns(
                pl.coalesce("_stated", default).alias(consent_column(purpose)),
                pl.when(pl.col("_stated").is_null() & default)
                .then(pl.lit(ALWAYS, TIME))
                .otherwise("_since")
                .alias(consent_since_column(purpose)),
            )
            .drop("_stated", "_since")
        )
    return profiles
