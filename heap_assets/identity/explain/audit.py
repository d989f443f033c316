"""Coverage of the company's data by Heap's users per table, and a comparison with a join on one identifier."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import polars as pl

from heap_assets.identity.changes import assign
from heap_assets.identity.rules import EMAIL, HEAP_IDENTITY, HEAP_USER_ID, Rules, SourceTable
from heap_assets.values import PRIVATE

NAIVE_TYPES = (EMAIL, HEAP_IDENTITY)
"""The types whose column a naive join would use, the most likely first."""


def naive_join(
    rows: pl.DataFrame, graph: pl.DataFrame, users: pl.LazyFrame, compared: Mapping[str, bool]
) -> Iterator[tuple[str, float, float | None]]:
    """Compare a raw equality join with the resolved identity of the same rows.

    Parameters
    ----------
    rows
        profile_id (null: none), naive_key: the raw value that the join uses; one row per row of the table.
    graph, users
        `identity/graph` and `heap/users` of the day.
    compared
        Columns of `heap/users` that the join compares with; true for one that is mapped to the same identifier type as
        the table's column. Equality with another column is neither right nor wrong.

    Yields
    ------
    tuple
        Metric, value, and the whole that it is a part of (rows; people of the cohort; Heap users of these people):
        rows_right (all Heap users hit are the row's person), rows_wrong (none is), rows_ambiguous (some are),
        rows_missed (the person is in Heap, nothing was hit), rows_unproved (hit, but it cannot be checked: the row has
        no trustworthy identifier, or its value equals a column of another type), rows_uncompared (those of the latter
        kind), cohort_size (people in Heap hit by a row of their own), users_missed (Heap users of people with a row in
        the table that the join does not reach).
    """
    assigned = rows.with_row_index("_row")
    user_profiles = graph.filter(
        (pl.col("identifier_type") == HEAP_USER_ID) & ~pl.col("shared") & pl.col("profile_id").is_not_null()
    ).select("identifier", user_profile="profile_id")
    hits = _hits(assigned, users, user_profiles, compared)
    classified = _classified(assigned, hits, user_profiles)
    for outcome in ("right", "wrong", "ambiguous", "missed", "unproved"):
        yield f"rows_{outcome}", int((classified["outcome"] == outcome).sum()), assigned.height
    yield "rows_uncompared", int(classified["uncompared"].sum()), assigned.height
    people = classified.filter("in_heap")["profile_id"].unique()
    right = classified.filter(pl.col("outcome").is_in(["right", "ambiguous"]))["profile_id"].n_unique()
    yield "cohort_size", right, len(people)
    users_of = user_profiles.filter(pl.col("user_profile").is_in(people.implode())).height
    own_hits = hits.join(assigned, on="_row").filter(pl.col("user_profile") == pl.col("profile_id"))
    yield "users_missed", users_of - own_hits["user_id"].n_unique(), users_of


def naive_column(rows: pl.LazyFrame, table: SourceTable) -> tuple[str, str] | None:
    """Return the first plain text column mapped to the most likely type, and that type."""
    schema = rows.collect_schema()
    for kind in NAIVE_TYPES:
        for mapping in table.mappings:
            if mapping.type == kind and len(mapping.columns) == 1 and schema.get(mapping.columns[0]) == pl.String:
                return mapping.columns[0], kind
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
    columns = [current.select("user_id", _key=name, compared=pl.lit(same)) for name, same in compared.items()]
    keys = pl.concat(columns).drop_nulls().group_by("user_id", "_key").agg(pl.col("compared").any())
    return (
        rows.lazy()
        .join(keys, left_on="naive_key", right_on="_key")
        .select("_row", pl.col("user_id").cast(pl.String), "compared")
        .join(user_profiles.lazy(), left_on="user_id", right_on="identifier", how="left")
        .collect()
    )


def _classified(assigned: pl.DataFrame, hits: pl.DataFrame, user_profiles: pl.DataFrame) -> pl.DataFrame:
    """Return _row, profile_id, in_heap, outcome, uncompared."""
    is_own = (pl.col("user_profile") == pl.col("profile_id")).fill_null(False)
    is_comparable = is_own | (pl.col("compared") & pl.col("user_profile").is_not_null())
    by_row = (
        hits.join(assigned, on="_row")
        .group_by("_row")
        .agg(
            hits=pl.len(),
            judged=is_comparable.sum(),
            own=is_own.sum(),
            uncompared=(~pl.col("compared") & ~is_own).any(),
        )
    )
    return (
        assigned.join(by_row, on="_row", how="left")
        .with_columns(in_heap=pl.col("profile_id").is_in(user_profiles["user_profile"].implode()).fill_null(False))
        .with_columns(
            outcome=pl.when(pl.col("hits").is_null())
            .then(pl.when("in_heap").then(pl.lit("missed")))
            .when(pl.col("profile_id").is_null() | (pl.col("judged") == 0))
            .then(pl.lit("unproved"))
            .when(pl.col("own") == 0)
            .then(pl.lit("wrong"))
            .when(pl.col("own") < pl.col("judged"))
            .then(pl.lit("ambiguous"))
            .otherwise(pl.lit("right"))
        )
        .with_columns(uncompared=((pl.col("outcome") == "unproved") & pl.col("uncompared")).fill_null(False))
    )


AUDIT_SCHEMA: Mapping[str, pl.DataType] = {
    "metric": pl.String(),
    "subject": pl.String(),
    "value": pl.Float64(),
    "share": pl.Float64(),
}
ALL = "all"
REMEDY = "if both are email addresses, set heap.identifiers.users.identity: [heap_identity, email]"


@dataclass(frozen=True)
class AuditedTable:
    """The rows of a warehouse table on the day, and how its columns map to identifiers."""

    rows: pl.LazyFrame
    table: SourceTable


def audit(
    graph: pl.LazyFrame,
    conflicts: pl.LazyFrame,
    users: pl.LazyFrame,
    tables: Mapping[str, AuditedTable],
    rules: Rules,
    heap_users: SourceTable,
) -> pl.LazyFrame:
    """Report the coverage of a day's identity (features.md M13).

    Metrics, with the subject in brackets and the whole of `share`:

    - profiles [all]; profiles_in_heap, profiles_addressable (with a Heap identity), profiles_anonymous (in Heap,
      without an identity), profiles_heap_only and profiles_warehouse_only (the two kinds of partial profile), all of
      profiles; profiles_several_identities, of addressable ones.
    - profile_size [identifiers: 1, 2, 3-4, 5-8, …], of profiles. profiles_at_limit [type whose limit is above one], of
      profiles with the type.
    - identifiers, identifiers_shared [type], the latter of the former. conflicts [type whose limit refused them].
    - heap_users [all]: users that have not migrated away. anonymous_twins: those without an identity whose profile has
      one, the same person twice in Heap, of heap_users. identities_on_several_profiles: Heap identities that differ in
      case or outer blanks only and are on different profiles, of identities.
    - rows [table]; rows_identified (on a profile), rows_in_heap, rows_addressable, of rows; cohort_size [table]: people
      in Heap with a row, of profiles in Heap.
    - naive_* [table]: a join of one raw column with Heap's email or identity, see :func:`naive_join`.

    Parameters
    ----------
    graph, conflicts
        `identity/graph` and `identity/conflicts` of the day.
    users
        `heap/users` of the day.
    tables
        Warehouse tables by name.
    rules
        The identity rules the graph was built with.
    heap_users
        How the columns of `heap/users` map to identifiers.

    Returns `AUDIT_SCHEMA`, one row per metric and subject, in a fixed order. A share of nothing is null.
    """
    members = graph.collect()
    facts = _profile_facts(members)
    assigned = {name: _row_profiles(audited, members.lazy(), rules) for name, audited in tables.items()}
    report = [
        *_profile_metrics(facts, assigned),
        *_size_metrics(facts),
        *_limit_metrics(members, rules),
        *_identifier_metrics(members, rules),
        *_conflict_metrics(conflicts),
        *_heap_metrics(members, facts, users),
    ]
    for name, rows in assigned.items():
        report += _table_metrics(name, rows, facts)
        if (naive := naive_column(tables[name].rows, tables[name].table)) is not None:
            compared = compared_columns(users, heap_users, naive[1])
            report += [
                (f"naive_{metric}", name, value, total)
                for metric, value, total in naive_join(rows, members, users, compared)
            ]
    return pl.LazyFrame(
        [(metric, subject, value, value / total if total else None) for metric, subject, value, total in report],
        schema=AUDIT_SCHEMA,
        orient="row",
    )


Row = tuple[str, str, float, float | None]
"""Metric, subject, value, and the whole that it is a part of."""


def _profile_facts(members: pl.DataFrame) -> pl.DataFrame:
    """Return profile_id, size, identities, users (counts of unshared identifiers)."""
    unshared = ~pl.col("shared")
    return (
        members.filter(pl.col("profile_id").is_not_null())
        .group_by("profile_id")
        .agg(
            size=pl.len(),
            identities=(unshared & (pl.col("identifier_type") == HEAP_IDENTITY)).sum(),
            users=(unshared & (pl.col("identifier_type") == HEAP_USER_ID)).sum(),
        )
        .with_columns(in_heap=(pl.col("identities") + pl.col("users")) > 0)
    )


def _row_profiles(audited: AuditedTable, graph: pl.LazyFrame, rules: Rules) -> pl.DataFrame:
    """Return one row per row of the table: profile_id (null if it has none), naive_key."""
    column = naive_column(audited.rows, audited.table)
    key = pl.lit(None, pl.String) if column is None else pl.col(column[0])
    profile = f"{PRIVATE}profile_id"
    assigned = assign(audited.rows, audited.table, graph, rules, under=profile)
    return assigned.select(profile_id=profile, naive_key=key).collect()


def _profile_metrics(facts: pl.DataFrame, assigned: Mapping[str, pl.DataFrame]) -> Iterator[Row]:
    parts = [rows.select("profile_id").drop_nulls() for rows in assigned.values()]
    stored = pl.concat([pl.DataFrame(schema={"profile_id": pl.String}), *parts]).unique()
    in_heap = facts.filter("in_heap")
    addressable = int((facts["identities"] > 0).sum())
    yield "profiles", ALL, facts.height, None
    yield "profiles_in_heap", ALL, in_heap.height, facts.height
    yield "profiles_addressable", ALL, addressable, facts.height
    yield "profiles_anonymous", ALL, int((in_heap["identities"] == 0).sum()), facts.height
    yield "profiles_heap_only", ALL, in_heap.join(stored, on="profile_id", how="anti").height, facts.height
    yield "profiles_warehouse_only", ALL, stored.join(in_heap, on="profile_id", how="anti").height, facts.height
    yield "profiles_several_identities", ALL, int((facts["identities"] > 1).sum()), addressable


def _size_metrics(facts: pl.DataFrame) -> Iterator[Row]:
    """Histogram of identifiers per profile, in powers of two: 1, 2, 3-4, 5-8, …"""
    bins: Counter[int] = Counter()
    for size, profiles in facts.group_by("size").len().iter_rows():
        bins[(size - 1).bit_length()] += profiles
    for power, profiles in sorted(bins.items()):
        low, high = 2**power // 2 + 1, 2**power
        yield "profile_size", str(high) if low >= high else f"{low}-{high}", profiles, facts.height


def _limit_metrics(members: pl.DataFrame, rules: Rules) -> Iterator[Row]:
    counts = members.filter(pl.col("profile_id").is_not_null()).group_by("identifier_type", "profile_id").len()
    for rule in rules.identifiers:
        if rule.max_per_profile is not None and rule.max_per_profile > 1:  # everybody is at a limit of one
            of_type = counts.filter(pl.col("identifier_type") == rule.type)["len"]
            yield "profiles_at_limit", rule.type, int((of_type >= rule.max_per_profile).sum()), len(of_type)


def _identifier_metrics(members: pl.DataFrame, rules: Rules) -> Iterator[Row]:
    counts = members.group_by("identifier_type").agg(pl.len(), pl.col("shared").sum())
    by_type = {name: (total, shared) for name, total, shared in counts.iter_rows()}
    for rule in rules.identifiers:
        yield "identifiers", rule.type, by_type.get(rule.type, (0, 0))[0], None
    for rule in rules.identifiers:
        total, shared = by_type.get(rule.type, (0, 0))
        yield "identifiers_shared", rule.type, shared, total


def _conflict_metrics(conflicts: pl.LazyFrame) -> Iterator[Row]:
    counts = conflicts.group_by("limited_type").len().sort("limited_type").collect()
    total = int(counts["len"].sum())
    yield "conflicts", ALL, total, None
    for limited_type, refused in counts.iter_rows():  # none: a decision refused them
        yield "conflicts", limited_type or "decision", refused, total


def _heap_metrics(members: pl.DataFrame, facts: pl.DataFrame, users: pl.LazyFrame) -> Iterator[Row]:
    current = users.filter(pl.col("migrated_to").is_null()).select("user_id", "identity").unique("user_id").collect()
    on_profiles = members.filter(~pl.col("shared") & pl.col("profile_id").is_not_null())
    anonymous = current.filter(pl.col("identity").is_null()).select(identifier=pl.col("user_id").cast(pl.String))
    twins = (
        anonymous.join(on_profiles.filter(pl.col("identifier_type") == HEAP_USER_ID), on="identifier")
        .join(facts.filter(pl.col("identities") > 0), on="profile_id", how="semi")
        .height
    )
    identities = on_profiles.filter(pl.col("identifier_type") == HEAP_IDENTITY)
    spelt = identities.group_by(pl.col("identifier").str.strip_chars().str.to_lowercase()).agg(
        pl.len(), profiles=pl.col("profile_id").n_unique()
    )
    variants = int(spelt.filter(pl.col("profiles") > 1)["len"].sum())
    yield "heap_users", ALL, current.height, None
    yield "heap_users_anonymous", ALL, anonymous.height, current.height
    yield "anonymous_twins", ALL, twins, current.height
    yield "identities_on_several_profiles", ALL, variants, identities.height


def _table_metrics(name: str, rows: pl.DataFrame, facts: pl.DataFrame) -> Iterator[Row]:
    identified = rows.join(facts, on="profile_id")
    in_heap = identified.filter("in_heap")
    yield "rows", name, rows.height, None
    yield "rows_identified", name, identified.height, rows.height
    yield "rows_in_heap", name, in_heap.height, rows.height
    yield "rows_addressable", name, int((identified["identities"] > 0).sum()), rows.height
    yield "cohort_size", name, in_heap["profile_id"].n_unique(), int(facts["in_heap"].sum())


_SHARES_BY_TABLE = {
    "identified": "rows_identified",
    "matched": "rows_in_heap",
    "naive_missed": "naive_rows_missed",
    "naive_wrong": "naive_rows_wrong",
}


def audit_figures(report: pl.DataFrame) -> dict[str, float]:
    """Return the figures of an audit that are plotted over time, by name.

    Shares of all profiles (`profiles_in_heap_share` …), counts (`anonymous_twins`, `conflicts`,
    `profiles_several_identities`, `at_limit_<type>`), and of each table's rows the shares `matched_<table>` (with a
    person in Heap), `identified_<table>`, `naive_missed_<table>` and `naive_wrong_<table>`. A share of nothing is left
    out.
    """
    rows = {(metric, subject): (value, share) for metric, subject, value, share in report.iter_rows()}
    figures: dict[str, float] = {}
    for name in ("profiles_in_heap", "profiles_addressable", "profiles_heap_only", "profiles_warehouse_only"):
        if (share := rows[name, ALL][1]) is not None:
            figures[f"{name}_share"] = share
    for name in ("profiles_several_identities", "anonymous_twins", "conflicts"):
        figures[name] = int(rows[name, ALL][0])
    for (metric, subject), (value, _) in rows.items():
        if metric == "profiles_at_limit":
            figures[f"at_limit_{subject}"] = int(value)
    for name, metric in _SHARES_BY_TABLE.items():
        shares = {subject: share for (row_metric, subject), (_, share) in rows.items() if row_metric == metric}
        figures |= {f"{name}_{table}": share for table, share in shares.items() if share is not None}
    return {name: round(value, 5) for name, value in figures.items()}


def audit_text(report: pl.DataFrame) -> str:
    """Return the most important figures of an audit as a Markdown list, an item for people and one for each table."""
    figures = {(metric, subject): (value, share) for metric, subject, value, share in report.iter_rows()}

    def shown(metric: str, subject: str = ALL) -> str:
        value, share = figures.get((metric, subject), (0.0, None))
        return f"{value:,.0f}" if share is None else f"{value:,.0f} ({share:.1%})"

    lines = [
        f"- **People**: {shown('profiles')}; known to Heap {shown('profiles_in_heap')}, with a Heap identity "
        f"{shown('profiles_addressable')}, only in Heap {shown('profiles_heap_only')}, only in the warehouse "
        f"{shown('profiles_warehouse_only')}",
        f"- **Duplicates**: on several identities {shown('profiles_several_identities')}, anonymous twins "
        f"{shown('anonymous_twins')}, refused links {shown('conflicts')}",
    ]
    for table in (subject for metric, subject in figures if metric == "rows"):
        line = f"- **{table}**: in Heap {shown('rows_in_heap', table)} of {shown('rows', table)} rows"
        if ("naive_rows_right", table) in figures:
            line += (
                f"; a join on one raw column: missed {shown('naive_rows_missed', table)}, "
                f"wrong person {shown('naive_rows_wrong', table)}, "
                f"several people {shown('naive_rows_ambiguous', table)}"
            )
        if figures.get(("naive_rows_uncompared", table), (0.0, None))[0]:
            line += (
                f"; {shown('naive_rows_uncompared', table)} equal a value of Heap's users that is mapped to another "
                f"type, so nothing joins them: {REMEDY}"
            )
        lines.append(line)
    return "\n".join(lines)
