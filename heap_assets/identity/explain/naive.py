"""The join that most pipelines do: one raw column equal to Heap's email or identity; and what it gets wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import polars as pl

from heap_assets.identity.rules import EMAIL, HEAP_IDENTITY, HEAP_USER_ID, SourceTable

NAIVE_TYPES = (EMAIL, HEAP_IDENTITY)
"""The types whose column a naive join would use, the likeliest first."""


def naive_join(
    rows: pl.DataFrame, graph: pl.DataFrame, users: pl.LazyFrame, compared: Mapping[str, bool]
) -> Iterator[tuple[str, float, float | None]]:
    """Compare a raw equality join with the resolved identity of the same rows.

    Parameters
    ----------
    rows
        profile_id (null: of nobody), naive_key: the raw value that the join uses; one row per row of the table.
    graph, users
        `identity/graph` and `heap/users` of the day.
    compared
        Column of `heap/users` that the join looks at to whether its values were compared with the table's column: both
        are mapped to one identifier type. Equality with another column is neither right nor wrong.

    Yields
    ------
    tuple
        Metric, value, and what it is a part of (rows; people of the cohort; Heap users of these people):
        rows_right (all Heap users hit are the row's person), rows_wrong (none is), rows_ambiguous (some are),
        rows_missed (the person is in Heap, nothing was hit), rows_unproved (hit, but nothing tells whether rightly: no
        identifier that may be trusted says who the row is, or its value was not compared with what it equals),
        rows_uncompared (those of the latter kind), cohort_size (people in Heap hit by a row of their own), users_missed
        (Heap users of people with a row in the table that the join does not reach).
    """
    assigned = rows.with_row_index("_row")
    user_profiles = graph.filter(
        (pl.col("identifier_type") == HEAP_USER_ID) & ~pl.col("shared") & pl.col("profile_id").is_not_null()
    ).select("identifier", user_profile="profile_id")
    hits = _hits(assigned, users, user_profiles, compared)
    judged = _judged(assigned, hits, user_profiles)
    for verdict in ("right", "wrong", "ambiguous", "missed", "unproved"):
        yield f"rows_{verdict}", int((judged["verdict"] == verdict).sum()), assigned.height
    yield "rows_uncompared", int(judged["uncompared"].sum()), assigned.height
    people = judged.filter("in_heap")["profile_id"].unique()
    right = judged.filter(pl.col("verdict").is_in(["right", "ambiguous"]))["profile_id"].n_unique()
    yield "cohort_size", right, len(people)
    theirs = user_profiles.filter(pl.col("user_profile").is_in(people.implode()))
    own_hits = hits.join(assigned, on="_row").filter(pl.col("user_profile") == pl.col("profile_id"))
    reached = own_hits["user_id"].n_unique()
    yield "users_missed", theirs.height - reached, theirs.height


def naive_column(rows: pl.LazyFrame, table: SourceTable) -> tuple[str, str] | None:
    """Return the first plain text column mapped to the likeliest type, and that type."""
    schema = rows.collect_schema()
    for wanted in NAIVE_TYPES:
        for mapping in table.mappings:
            if mapping.type == wanted and len(mapping.columns) == 1 and schema.get(mapping.columns[0]) == pl.String:
                return mapping.columns[0], wanted
    return None


def compared_columns(users: pl.LazyFrame, table: SourceTable, identifier_type: str) -> dict[str, bool]:
    """Return the columns of `heap/users` that a naive join looks at, and whether each is mapped to a type."""
    mapped = {mapping.columns[0] for mapping in table.mappings if mapping.type == identifier_type}
    return {name: name in mapped for name in ("email", "identity") if name in users.collect_schema()}


def _hits(
    rows: pl.DataFrame, users: pl.LazyFrame, user_profiles: pl.DataFrame, compared: Mapping[str, bool]
) -> pl.DataFrame:
    """Return _row, user_id String, compared, user_profile: one row per Heap user that the naive join finds."""
    current = users.filter(pl.col("migrated_to").is_null())
    columns = [current.select("user_id", _key=name, compared=pl.lit(told)) for name, told in compared.items()]
    keys = pl.concat(columns).drop_nulls().group_by("user_id", "_key").agg(pl.col("compared").any())
    return (
        rows.lazy()
        .join(keys, left_on="naive_key", right_on="_key")
        .select("_row", pl.col("user_id").cast(pl.String), "compared")
        .join(user_profiles.lazy(), left_on="user_id", right_on="identifier", how="left")
        .collect()
    )


def _judged(assigned: pl.DataFrame, hits: pl.DataFrame, user_profiles: pl.DataFrame) -> pl.DataFrame:
    """Return _row, profile_id, in_heap, verdict, uncompared."""
    own = (pl.col("user_profile") == pl.col("profile_id")).fill_null(False)
    known = own | (pl.col("compared") & pl.col("user_profile").is_not_null())
    found = (
        hits.join(assigned, on="_row")
        .group_by("_row")
        .agg(hits=pl.len(), judged=known.sum(), own=own.sum(), uncompared=(~pl.col("compared") & ~own).any())
    )
    return (
        assigned.join(found, on="_row", how="left")
        .with_columns(in_heap=pl.col("profile_id").is_in(user_profiles["user_profile"].implode()).fill_null(False))
        .with_columns(
            verdict=pl.when(pl.col("hits").is_null())
            .then(pl.when("in_heap").then(pl.lit("missed")))
            .when(pl.col("profile_id").is_null() | (pl.col("judged") == 0))
            .then(pl.lit("unproved"))
            .when(pl.col("own") == 0)
            .then(pl.lit("wrong"))
            .when(pl.col("own") < pl.col("judged"))
            .then(pl.lit("ambiguous"))
            .otherwise(pl.lit("right"))
        )
        .with_columns(uncompared=((pl.col("verdict") == "unproved") & pl.col("uncompared")).fill_null(False))
    )
