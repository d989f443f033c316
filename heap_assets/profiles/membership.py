"""Who entered an audience, stayed in it or left it, and since when, from one day to the next."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import polars as pl

MEMBERSHIP_SCHEMA = pl.Schema(
    {"audience": pl.String(), "profile_id": pl.String(), "change": pl.String(), "since": pl.Date()}
)
ACCOUNT_MEMBERSHIP_SCHEMA = pl.Schema(
    {"account" if name == "profile_id" else name: dtype for name, dtype in MEMBERSHIP_SCHEMA.items()}
)
ENTERED, STAYED, LEFT = "entered", "stayed", "left"


def membership(
    inside: pl.LazyFrame, day: date, before: pl.LazyFrame | None = None, changes: Sequence[pl.LazyFrame] = ()
) -> pl.LazyFrame:
    """Return who is in which audience on a day, and who left it.

    Parameters
    ----------
    inside
        audience, profile_id: the members of the day.
    before
        The table that this returned for the day before, if there was one.
    changes
        `identity/changes` of each day since, in order: whoever was a member before profiles merged, split or changed
        their ids stays one, since the earliest of those days.

    Returns audience, profile_id, change (entered, stayed or left), since (the day on which it began; of `left` the day
    that it is no longer true); sorted by audience and profile_id.
    """
    schema = MEMBERSHIP_SCHEMA
    if before is None:
        before = pl.LazyFrame(schema={name: schema[name] for name in ("audience", "profile_id", "since")})
    earlier = current_members(before).select("audience", "profile_id", "since")
    for renamed in changes:
        pairs = renamed.filter(pl.col("old_profile_id").is_not_null() & pl.col("new_profile_id").is_not_null()).select(
            "old_profile_id", "new_profile_id"
        )
        earlier = (
            earlier.join(pairs, left_on="profile_id", right_on="old_profile_id", how="left")
            .with_columns(profile_id=pl.coalesce("new_profile_id", "profile_id"))
            .group_by("audience", "profile_id")
            .agg(pl.col("since").min())
        )
    joined = inside.select("audience", "profile_id", is_in=True).join(
        earlier.with_columns(was_in=True), on=["audience", "profile_id"], how="full", coalesce=True
    )
    return (
        joined.with_columns(
            change=pl.when(pl.col("is_in").is_null())
            .then(pl.lit(LEFT))
            .when(pl.col("was_in").is_null())
            .then(pl.lit(ENTERED))
            .otherwise(pl.lit(STAYED)),
        )
        .with_columns(since=pl.when(pl.col("change") == STAYED).then("since").otherwise(pl.lit(day)))
        .select(*schema)
        .cast(schema)
        .sort("audience", "profile_id")
    )


def current_members(table: pl.LazyFrame) -> pl.LazyFrame:
    """Return the rows of an audiences table that are members; those of older releases, without `change`, are all."""
    columns = table.collect_schema()
    if "since" not in columns:
        table = table.with_columns(since=pl.lit(None, pl.Date))
    return table.filter(pl.col("change") != LEFT) if "change" in columns else table
