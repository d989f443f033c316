"""What became of yesterday's profiles: a redirect table that covers splits as well as merges (rule 7)."""

from __future__ import annotations

from typing import Final

import polars as pl

from heap_assets.identity.shapes import CHANGES, GRAPH

KINDS: Final = ("merged", "split", "moved", "renamed", "created", "removed")

_KEY: Final = ("identifier_type", "identifier")


def changes(before: pl.LazyFrame | None, after: pl.LazyFrame) -> pl.LazyFrame:
    """Compare two graphs: one row per pair of profiles that share identifiers and are not simply unchanged.

    Parameters
    ----------
    before, after
        Shape of identity/graph; no `before` is an empty one.

    Returns
    -------
    LazyFrame
        old_profile_id, new_profile_id, kind: String; identifiers: Int64 (how many the pair has in common, or how
        many the profile created or removed has). `renamed`: one old is one new, under another id. `merged`: all of
        the old is in a new one that has more. `split`: the new one is a part of the old. `moved`: both at once.
        A profile that merged or split under the id it had is listed too (old equals new). `created` has no old id,
        `removed` no new one: none of its identifiers was, or is, in a profile. Rows are sorted by both ids.

    Notes
    -----
    A profile in no row is as it was (it may have gained new identifiers or lost some). So today's ids are
    yesterday's, without the old ones listed, with the new ones listed.
    """
    if before is None:
        before = pl.LazyFrame(schema=GRAPH)
    pairs = (
        before.filter(pl.col("profile_id").is_not_null())
        .select(*_KEY, pl.col("profile_id").alias("old"))
        .join(
            after.filter(pl.col("profile_id").is_not_null()).select(*_KEY, pl.col("profile_id").alias("new")),
            on=list(_KEY),
            how="full",
            coalesce=True,
        )
        .select("old", "new")
        .group_by("old", "new")
        .agg(pl.len().cast(pl.Int64).alias("identifiers"))
    )
    both = pl.col("old").is_not_null() & pl.col("new").is_not_null()
    # in and out: how many profiles of the other day a profile has identifiers in common with
    degrees = pairs.with_columns(
        pl.when(pl.col("old").is_not_null()).then(pl.col("new").count().over("old")).alias("into"),
        pl.when(pl.col("new").is_not_null()).then(pl.col("old").count().over("new")).alias("from"),
    )
    kind = (
        pl.when(both & (pl.col("into") == 1) & (pl.col("from") == 1))
        .then(pl.when(pl.col("old") != pl.col("new")).then(pl.lit("renamed")))
        .when(both & (pl.col("into") == 1))
        .then(pl.lit("merged"))
        .when(both & (pl.col("from") == 1))
        .then(pl.lit("split"))
        .when(both)
        .then(pl.lit("moved"))
        .when(pl.col("old").is_null() & (pl.col("from") == 0))
        .then(pl.lit("created"))
        .when(pl.col("new").is_null() & (pl.col("into") == 0))
        .then(pl.lit("removed"))
    )
    return (
        degrees.with_columns(kind=kind)
        .filter(pl.col("kind").is_not_null())
        .select(pl.col("old").alias("old_profile_id"), pl.col("new").alias("new_profile_id"), "kind", "identifiers")
        .sort("old_profile_id", "new_profile_id", nulls_last=True)
        .select(pl.col(name).cast(dtype) for name, dtype in CHANGES.items())
    )
