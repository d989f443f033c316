"""Rows by person: the profile of a row, rows of suppressed people; and how profiles change from day to day."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import polars as pl

from heap_assets.identity.decisions import Decision
from heap_assets.identity.extract import MappedColumn
from heap_assets.identity.normalise import suppressed_values
from heap_assets.identity.rules import Rules, RulesError, SourceTable
from heap_assets.identity.schemas import CHANGES, GRAPH
from heap_assets.values import PRIVATE

_ROW, _VALUE, _PROFILE = (f"{PRIVATE}assigned_{suffix}" for suffix in ("row", "value", "profile"))


def assign(
    rows: pl.LazyFrame, table: SourceTable, graph: pl.LazyFrame, rules: Rules, under: str = "profile_id"
) -> pl.LazyFrame:
    """Add the profile to the rows of a table.

    A row belongs to the profile of its strongest identifier that is not null, blocked, shared or unknown to the graph;
    of several of one type, the smallest such value. Values are read exactly as `extract` reads them.

    Parameters
    ----------
    rows, table
        A table and how its columns map to identifiers.
    graph
        `identity/graph`; `profile_id` may be of any type, so that joins can go by number.
    rules
        The rules the graph was built with.
    under
        The name of the column that is added; a table may have any of its own.

    Returns all columns and rows of `rows`, in no particular order, and the profile, null for rows of nobody.

    Raises RulesError: a mapped column does not exist or cannot be an identifier, or the rows have a column `under`
    already.
    """
    schema = rows.collect_schema()
    columns = [MappedColumn.of(mapping, number, table, rules, schema) for number, mapping in enumerate(table.mappings)]
    if under in schema:
        raise RulesError(f"table {table.name} has a column {under!r} already")
    owned = graph.filter(pl.col("profile_id").is_not_null() & ~pl.col("shared"))
    checked = rows.with_columns(column.raw for column in columns).with_columns(
        expression for column in columns for expression in column.checked(rules)
    )
    profiles: list[str] = []
    for rank in sorted({column.rank for column in columns}):
        of_type = [column for column in columns if column.rank == rank]
        owners = owned.filter(pl.col("identifier_type") == rules.types[rank])
        for value in _values(of_type):
            profiles.append(f"{_PROFILE}_{len(profiles)}")
            checked = _joined(checked, value, owners, profiles[-1], many=any(column.many for column in of_type))
    no_profile = pl.lit(None, graph.collect_schema()["profile_id"])
    return checked.select(*schema, pl.coalesce(*profiles, no_profile).alias(under))


def _values(columns: list[MappedColumn]) -> list[pl.Expr]:
    """Expressions of a type's values on one row, the smallest first; one of lists if there are arrays."""
    names = [column.name for column in columns]
    if len(names) == 1:
        return [pl.col(names[0])]
    every = pl.concat_list(names).list.drop_nulls().list.sort()
    if any(column.many for column in columns):
        return [every]
    return [every.list.get(position, null_on_oob=True) for position in range(len(names))]


def _joined(rows: pl.LazyFrame, value: pl.Expr, owners: pl.LazyFrame, name: str, *, many: bool) -> pl.LazyFrame:
    """Add the profile that owns the value (of several, the smallest that is owned) as column `name`."""
    owned = owners.select(pl.col("identifier").alias(_VALUE), pl.col("profile_id").alias(name))
    with_value = rows.with_columns(value.alias(_VALUE))
    if not many:
        return with_value.join(owned, on=_VALUE, how="left").drop(_VALUE)
    return (
        with_value.with_row_index(_ROW)
        .explode(_VALUE)
        .join(owned, on=_VALUE, how="left")
        .sort(_ROW, pl.col(name).is_null(), _VALUE)
        .unique(_ROW, keep="first", maintain_order=True)
        .drop(_ROW, _VALUE)
    )


def without_suppressed(rows: pl.LazyFrame, table: SourceTable, rules: Rules) -> pl.LazyFrame:
    """Return the rows that name no suppressed person; values are read exactly as `extract` reads them."""
    return _rows(rows, table, rules, keep=False)


def only_suppressed(rows: pl.LazyFrame, table: SourceTable, rules: Rules) -> pl.LazyFrame:
    """Return the rows that name a suppressed person."""
    return _rows(rows, table, rules, keep=True)


def _rows(rows: pl.LazyFrame, table: SourceTable, rules: Rules, *, keep: bool) -> pl.LazyFrame:
    types = {name for name, _ in rules.suppressed}
    mappings = [mapping for mapping in table.mappings if mapping.type in types]
    if not mappings:
        return rows.clear() if keep else rows
    schema = rows.collect_schema()
    columns = [MappedColumn.of(mapping, number, table, rules, schema) for number, mapping in enumerate(mappings)]

    def is_suppressed(column: MappedColumn) -> pl.Expr:
        listed = column.value.is_in(sorted(suppressed_values(rules, column.type)))
        return (pl.col(column.name).list.eval(listed).list.any() if column.many else listed).fill_null(value=False)

    suppressed = pl.any_horizontal(map(is_suppressed, columns))
    return (
        rows.with_columns(column.raw for column in columns).filter(suppressed if keep else ~suppressed).select(*schema)
    )


KINDS: Final = ("merged", "split", "moved", "renamed", "created", "removed")

_KEY: Final = ("identifier_type", "identifier")


def changes(
    before: pl.LazyFrame | None,
    after: pl.LazyFrame,
    decisions: Sequence[Decision] = (),
    former: Sequence[Decision] = (),
) -> pl.LazyFrame:
    """Compare two graphs: one row per pair of profiles that share identifiers and are not simply unchanged.

    `before`, `after`: shape of identity/graph; no `before` is an empty one. `decisions`: those of the later day.
    `former`: those that the earlier graph followed, and the later one does not: removed, ended or changed.

    Returns old_profile_id, new_profile_id, kind: String; identifiers: Int64 (how many the pair has in common, or how
    many the profile created or removed has). `renamed`: one old is one new, under another id. `merged`: all of the old
    is in a new one that has more. `split`: the new one is a part of the old. `moved`: both at once. A profile that
    merged or split under the id it had is listed too (old equals new). `created` has no old id, `removed` no new one:
    none of its identifiers was, or is, in a profile. `decision`: String, the id of the decision behind it (the smallest
    of several): a `same` whose identifiers were on several profiles and are on one, an `apart` of which it is the other
    way round, a `nobody` whose value was on the profile; of the former ones each the other way round. Rows are sorted
    by both ids.

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
        .join(_behind(before, after, decisions, former), on=["old", "new"], how="left", nulls_equal=True)
        .select(
            pl.col("old").alias("old_profile_id"),
            pl.col("new").alias("new_profile_id"),
            "kind",
            "identifiers",
            "decision",
        )
        .sort("old_profile_id", "new_profile_id", nulls_last=True)
        .select(pl.col(name).cast(dtype) for name, dtype in CHANGES.items())
    )


def _behind(
    before: pl.LazyFrame, after: pl.LazyFrame, decisions: Sequence[Decision], former: Sequence[Decision]
) -> pl.LazyFrame:
    """Return old, new, decision: pairs of profiles that a decision, or the end of one, joined or parted."""
    undone = _decided(after, before, former).select(pl.col("new").alias("old"), pl.col("old").alias("new"), "decision")
    both = pl.concat([_decided(before, after, decisions), undone])
    return both.group_by("old", "new").agg(pl.col("decision").min())


def _decided(before: pl.LazyFrame, after: pl.LazyFrame, decisions: Sequence[Decision]) -> pl.LazyFrame:
    """Return old, new, decision: pairs of profiles that a decision joined or parted."""
    rows = [(one.id, one.kind, *pair) for one in decisions for pair in one.identifiers if one.kind != "confirmed"]
    schema = {"decision": pl.String, "by": pl.String, **dict.fromkeys(_KEY, pl.String)}
    if not rows:
        return pl.LazyFrame(schema={"old": pl.String, "new": pl.String, "decision": pl.String})
    named = pl.LazyFrame(rows, schema=schema, orient="row")
    owned = named
    for graph, name in ((before, "old"), (after, "new")):
        owned = owned.join(graph.select(*_KEY, pl.col("profile_id").alias(name)), on=list(_KEY), how="left")
    old, new = (pl.col(name).drop_nulls().n_unique().over("decision") for name in ("old", "new"))
    is_joined = (pl.col("by") == "same") & (old > 1) & (new == 1)
    is_parted = (pl.col("by") == "apart") & (old == 1) & (new > 1)
    settled = owned.filter(is_joined | is_parted).filter(pl.col("old").is_not_null()).select("old", "new", "decision")
    # a value of nobody is on no profile any more: what became of its old one is in all pairs that have it
    left = owned.filter((pl.col("by") == "nobody") & pl.col("old").is_not_null() & pl.col("new").is_null())
    successors = (
        before.join(after, on=list(_KEY), suffix="_new")
        .select(pl.col("profile_id").alias("old"), pl.col("profile_id_new").alias("new"))
        .unique()
        .join(left.select("old", "decision").unique(), on="old")
    )
    return (
        pl.concat([settled, successors.select("old", "new", "decision")])
        .group_by("old", "new")
        .agg(pl.col("decision").min())
    )
