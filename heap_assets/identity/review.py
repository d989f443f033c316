"""What people should look at: links that limits refused, values of several people, profiles that may be several people.

Each entry names the identifiers that a decision about it would name, so that deciding it takes one row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Final

import polars as pl

from heap_assets.identity.explain.blockers import IdentityTables
from heap_assets.identity.rules import Rules

_REVIEW: dict[str, pl.DataType | type[pl.DataType]] = {
    "rank": pl.Int64, "kind": pl.String, "identifiers": pl.List(pl.String), "profiles": pl.List(pl.String),
    "rows": pl.Int64, "money": pl.Float64, "syncs": pl.Int64, "evidence": pl.String, "decision": pl.String,
}  # fmt: skip
REVIEW: Final = pl.Schema(_REVIEW)
_MOST: Final = 1000
MOVES: Final = pl.Schema({"identifier_type": pl.String, "identifier": pl.String, "moves": pl.Int64})
_OFTEN: Final = 3
_MOVED: Final = ("merged", "split", "moved")


def moved_often(graphs: Mapping[date, pl.LazyFrame], changes: Mapping[date, pl.LazyFrame]) -> pl.LazyFrame:
    """Return the identifiers that came into another profile three times or more over some days.

    Parameters
    ----------
    graphs, changes
        identity/graph and identity/changes of the days. Only profiles that changed on three days or more are read.

    Returns :data:`MOVES`. An identifier whose profile is renamed as a whole is counted as moving with it.
    """
    ids = [
        day_changes.filter(pl.col("kind").is_in(_MOVED))
        .select(pl.concat_list("old_profile_id", "new_profile_id").alias("profile_id"))
        .explode("profile_id")
        .unique()
        for day_changes in changes.values()
    ]
    if len(ids) < _OFTEN:
        return pl.LazyFrame(schema=MOVES)
    restless = pl.concat(ids).drop_nulls().group_by("profile_id").len().filter(pl.col("len") >= _OFTEN).collect()
    if restless.is_empty():
        return pl.LazyFrame(schema=MOVES)
    rows = [
        graph.join(restless.lazy(), on="profile_id", how="semi").select(
            "identifier_type", "identifier", "profile_id", pl.lit(day).alias("day")
        )
        for day, graph in graphs.items()
    ]
    return (
        pl.concat(rows)
        .group_by("identifier_type", "identifier")
        .agg(pl.col("profile_id").sort_by("day").rle_id().max().cast(pl.Int64).alias("moves"))
        .filter(pl.col("moves") >= _OFTEN)
        .select(MOVES.names())
    )


def review(
    tables: IdentityTables,
    rules: Rules,
    key_types: Sequence[str],
    worth: pl.LazyFrame | None = None,
    moves: pl.LazyFrame | None = None,
    most: int = _MOST,
) -> pl.DataFrame:
    """Rank what people should look at, the most important first.

    Parameters
    ----------
    tables
        The tables of the day, with all links as of it; a link may be on several rows.
    key_types
        Types of which a person should have one value: `heap_identity`, CRM keys.
    worth
        profile_id: String; money: Float64 (a trait), syncs: Int64 (how many send the profile). None: neither is known.
    moves
        :func:`moved_often` of the last days.
    most
        How many entries.

    Returns :data:`REVIEW`. kind: `claimed` (a value that three or more profiles claim), `refused` (a merge limit is
    between two profiles), `several` (several key values on one profile), `at_limit` (a profile as large as a limit lets
    it be), `moving` (an identifier that changes its profile often), `shared`. identifiers: `type:value`, those that a
    decision would name. rows: of all tables, naming one of them. decision: the one that would settle it; `confirmed`
    settles each as it is. What a decision covers already is left out.

    Ranked by the sum of rows, money and syncs, each as a share of the largest of its kind; shared values, which a rule
    has kept from joining anybody, come after all others.
    """
    moving = [] if moves is None else [_moving(tables, moves)]
    entries = pl.concat(
        [_claimed(tables), _refused(tables), *_of_profiles(tables, rules, key_types), *moving, _shared(tables)]
    ).collect()
    entries = _open(entries, rules)
    entries = entries.with_row_index("entry")
    counted = (
        entries.lazy().join(_rows(entries, tables), on="entry", how="left").with_columns(pl.col("rows").fill_null(0))
    )
    if worth is None:
        valued = counted.with_columns(money=pl.lit(None, pl.Float64), syncs=pl.lit(None, pl.Int64))
    else:
        sums = (
            entries.lazy()
            .select("entry", "profiles")
            .explode("profiles")
            .join(worth, left_on="profiles", right_on="profile_id")
            .group_by("entry")
            .agg(pl.col("money").sum().cast(pl.Float64), pl.col("syncs").sum().cast(pl.Int64))
        )
        valued = counted.join(sums, on="entry", how="left")
    share = [
        pl.col(name).cast(pl.Float64) / pl.col(name).max().over("kind").cast(pl.Float64)
        for name in ("rows", "money", "syncs")
    ]
    return (
        valued.with_columns(score=pl.sum_horizontal(part.fill_nan(0.0).fill_null(0.0) for part in share))
        .with_columns(names=pl.col("identifiers").list.join(" "))
        .sort(pl.col("kind") == "shared", "score", "kind", "names", descending=[False, True, False, False])
        .head(most)
        .with_row_index("rank", 1)
        .select(pl.col(name).cast(dtype) for name, dtype in REVIEW.items())
        .collect()
    )


def _open(entries: pl.DataFrame, rules: Rules) -> pl.DataFrame:
    """Return the entries whose identifiers are not all of one decision, or of `confirmed` ones together."""
    by_name: dict[str, set[int]] = {}
    confirmed = -1
    for number, decision in enumerate(rules.decisions):
        for kind, value in decision.identifiers:
            covering = by_name.setdefault(f"{kind}:{value}", set())
            covering.add(number)
            if decision.kind == "confirmed":
                covering.add(confirmed)
    if not by_name:
        return entries
    nothing: set[int] = set()
    is_open = [
        not set.intersection(*(by_name.get(name, nothing) for name in names)) if names else False
        for names in entries["identifiers"].to_list()
    ]
    return entries.filter(pl.Series(is_open, dtype=pl.Boolean))


def _name(kind: str, value: str) -> pl.Expr:
    return pl.concat_str(pl.col(kind), pl.lit(":"), pl.col(value))


def _rows(entries: pl.DataFrame, tables: IdentityTables) -> pl.LazyFrame:
    """Return entry, rows: how many rows of all tables name an identifier of the entry."""
    named = entries.lazy().select("entry", "identifiers").explode("identifiers").rename({"identifiers": "name"})
    named_once = named.select("name").unique()
    ends = [
        tables.links.select(_name(f"type_{end}", f"value_{end}").alias("name"), "count")
        .join(named_once, on="name", how="semi")
        .group_by("name")
        .agg(pl.col("count").sum())
        for end in ("a", "b")
    ]
    return named.join(pl.concat(ends), on="name").group_by("entry").agg(pl.col("count").sum().alias("rows"))


def _judged(tables: IdentityTables) -> pl.LazyFrame:
    """Return links that a limit refused, with how many profiles each end would come into besides its own."""
    has_decisions = "decision" in tables.conflicts.collect_schema()  # partitions of earlier versions have none
    refused = tables.conflicts.filter(pl.col("decision").is_null()) if has_decisions else tables.conflicts
    return refused.with_columns(
        pl.col(f"profile_{other}").n_unique().over(f"type_{end}", f"value_{end}").alias(f"others_{end}")
        for end, other in ("ab", "ba")
    ).with_columns(is_claim=pl.max_horizontal("others_a", "others_b") > 1)


def _claimed(tables: IdentityTables) -> pl.LazyFrame:
    by_a = pl.col("others_a") > pl.col("others_b")
    claims = _judged(tables).filter("is_claim")
    return (
        claims.with_columns(
            value=pl.when(by_a).then(_name("type_a", "value_a")).otherwise(_name("type_b", "value_b")),
            own=pl.when(by_a).then("profile_a").otherwise("profile_b"),
            claiming=pl.when(by_a).then("profile_b").otherwise("profile_a"),
        )
        .group_by("value")
        .agg(
            pl.concat([pl.col("own"), pl.col("claiming")]).unique().sort().alias("profiles"),
            pl.len().alias("links"),
            pl.col("sources").explode().unique().sort().str.join(", ").alias("sources"),
        )
        .select(
            pl.lit("claimed").alias("kind"),
            pl.concat_list("value").alias("identifiers"),
            "profiles",
            pl.format(
                "{} profiles claim it: {} refused from {}", pl.col("profiles").list.len(), _number_of_links(), "sources"
            ).alias("evidence"),
            pl.lit("nobody").alias("decision"),
        )
    )


def _number_of_links() -> pl.Expr:
    return pl.format("{} {}", "links", pl.when(pl.col("links") == 1).then(pl.lit("link")).otherwise(pl.lit("links")))


def _refused(tables: IdentityTables) -> pl.LazyFrame:
    ends = [pl.min_horizontal("profile_a", "profile_b"), pl.max_horizontal("profile_a", "profile_b")]
    between = (
        _judged(tables)
        .filter(~pl.col("is_claim"))
        .group_by(ends[0].alias("one"), ends[1].alias("other"))
        .agg(
            pl.len().alias("links"),
            pl.col("sources").explode().unique().sort().str.join(", ").alias("sources"),
            pl.col("limited_type", "limit").sort_by("limited_type").first(),
        )
        .with_columns(profiles=pl.concat_list("one", "other"))
        .with_row_index("pair")
    )
    # a `same` that a limit may not undo names all that the limit counts
    held = (
        between.select("pair", "limited_type", "profiles")
        .explode("profiles")
        .join(
            tables.graph.select("identifier_type", "identifier", "profile_id"),
            left_on=["profiles", "limited_type"],
            right_on=["profile_id", "identifier_type"],
        )
        .group_by("pair")
        .agg(_name("limited_type", "identifier").sort().alias("identifiers"))
    )
    return between.join(held, on="pair").select(
        pl.lit("refused").alias("kind"),
        "identifiers",
        "profiles",
        pl.format(
            "one person by {} from {}; a profile may hold {} {}, these are {}",
            _number_of_links(), "sources", "limit", "limited_type", pl.col("identifiers").list.len(),
        ).alias("evidence"),
        pl.lit("same").alias("decision"),
    )  # fmt: skip


def _of_profiles(tables: IdentityTables, rules: Rules, key_types: Sequence[str]) -> list[pl.LazyFrame]:
    limits = {rule.type: rule.max_per_profile for rule in rules.identifiers if (rule.max_per_profile or 0) > 1}
    limit = pl.col("identifier_type").replace_strict(limits, default=None, return_dtype=pl.Int64)
    held = (
        tables.graph.filter(pl.col("profile_id").is_not_null() & ~pl.col("shared"))
        .group_by("profile_id", "identifier_type")
        .agg(_name("identifier_type", "identifier").sort().alias("identifiers"))
        .with_columns(size=pl.col("identifiers").list.len().cast(pl.Int64), profiles=pl.concat_list("profile_id"))
    )
    is_key = pl.col("identifier_type").is_in(list(key_types))
    about = [
        ("several", is_key & (pl.col("size") > 1), pl.format("one profile has {} {}", "size", "identifier_type")),
        (
            "at_limit",
            ~is_key & (pl.col("size") >= limit),
            pl.format("a profile may hold {} {}, and this one does", limit, "identifier_type"),
        ),
    ]
    return [
        held.filter(chosen).select(
            pl.lit(kind).alias("kind"),
            "identifiers",
            "profiles",
            evidence.alias("evidence"),
            pl.lit("apart").alias("decision"),
        )
        for kind, chosen, evidence in about
    ]


def _moving(tables: IdentityTables, moves: pl.LazyFrame) -> pl.LazyFrame:
    key = ["identifier_type", "identifier"]
    return moves.join(tables.graph.select(*key, "profile_id"), on=key, how="left").select(
        pl.lit("moving").alias("kind"),
        pl.concat_list(_name(*key)).alias("identifiers"),
        pl.concat_list("profile_id").list.drop_nulls().alias("profiles"),
        pl.format("it came into another profile {} times in the last days", "moves").alias("evidence"),
        pl.lit("nobody").alias("decision"),
    )


def _shared(tables: IdentityTables) -> pl.LazyFrame:
    touching = [
        tables.links.select(
            _name(f"type_{end}", f"value_{end}").alias("value"),
            pl.col(f"type_{other}").alias("identifier_type"),
            pl.col(f"value_{other}").alias("identifier"),
        )
        for end, other in ("ab", "ba")
    ]
    values = (
        tables.shared.with_columns(value=_name("identifier_type", "identifier"))
        .group_by("value")
        .agg(pl.col("groups").max(), pl.col("stronger_type").first())
    )
    owners = (
        pl.concat(touching)
        .join(values, on="value", how="semi")
        .join(tables.graph.select("identifier_type", "identifier", "profile_id"), on=["identifier_type", "identifier"])
        .group_by("value")
        .agg(pl.col("profile_id").drop_nulls().unique().sort().alias("profiles"))
    )
    return values.join(owners, on="value", how="left").select(
        pl.lit("shared").alias("kind"),
        pl.concat_list("value").alias("identifiers"),
        pl.col("profiles").fill_null(pl.lit([], pl.List(pl.String))),
        pl.format("{} people share it, told apart by {}", "groups", "stronger_type").alias("evidence"),
        pl.lit("nobody").alias("decision"),
    )
