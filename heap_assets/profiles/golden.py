"""Golden records: one row per profile, its identifiers, and traits chosen from every table that knows the person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from heap_assets.errors import SettingsError
from heap_assets.identity import HEAP_IDENTITY, HEAP_USER_ID, Rules, RulesError, SourceTable, assign, resolve_path
from heap_assets.profiles.survivorship import TraitRule, present, survivors

TIME = pl.Datetime("us", "UTC")

PROFILE_SCHEMA: Mapping[str, pl.DataType] = {
    "profile_id": pl.String(),
    "first_seen": TIME,
    "last_seen": TIME,
    "identifiers": pl.List(pl.Struct({"type": pl.String, "value": pl.String})),
    "heap_identity": pl.String(),
    "heap_identities": pl.List(pl.String),
    "heap_user_ids": pl.List(pl.Int64),
    "conflicts": pl.Int64(),
}
"""Columns every profiles table has, without its traits (which stand before `conflicts`)."""


@dataclass(frozen=True)
class TraitSource:
    """A table that traits are taken from.

    Attributes
    ----------
    rows
        The rows that stand on the day (a snapshot), or all that count (events).
    table
        How its columns map to identifiers.
    updated_at
        The column that says how new a row is; without one, the time column of the table.
    """

    rows: pl.LazyFrame
    table: SourceTable
    updated_at: str | None = None


def golden_records(
    graph: pl.LazyFrame,
    sources: Mapping[str, TraitSource],
    traits: Sequence[TraitRule],
    rules: Rules,
    conflicts: pl.LazyFrame | None = None,
) -> pl.LazyFrame:
    """Build the profiles of a day.

    A row of a source belongs to the profile of its strongest identifier that is not null, blocked or shared; a row
    without one gives no traits. `heap_identity` is the identity a sync uses when it may use only one: the one seen
    first, of several seen at once the smallest; `heap_identities` holds all of them, sorted. Shared identifiers are
    listed in `identifiers` only, where Heap itself has tied them to the profile.

    Parameters
    ----------
    graph
        `identity/graph` of the day.
    sources
        Tables by the name that the traits use for them.
    traits
        One rule per column wanted.
    rules
        The identity rules the graph was built with.
    conflicts
        `identity/conflicts` of the day; without it the count is 0.

    Returns
    -------
    LazyFrame
        `PROFILE_SCHEMA` with `<trait>` and `<trait>__source` per trait before `conflicts`; sorted by profile_id.

    Raises
    ------
    SettingsError
        A trait names a table, a column or a type that does not exist or does not fit, or a reserved column.
    """
    _check_names(sources, traits)
    members = graph.filter(pl.col("profile_id").is_not_null()).collect()
    numbers = members.select(pl.col("profile_id").unique().sort()).with_row_index("profile").lazy()
    numbered = members.lazy().join(numbers, on="profile_id").cache()
    # traits join on a number: a profile id is 32 characters
    to_profile = numbered.drop("profile_id").rename({"profile": "profile_id"})
    assigned = {name: _assigned(source, to_profile, rules) for name, source in _used(sources, traits).items()}
    result = numbers.join(_bodies(numbered, rules), on="profile", how="left")
    for rule in traits:
        chosen = survivors([_candidates(assigned, rule, rank) for rank in range(len(rule.sources))], rule)
        named = chosen.select(
            "profile", pl.col("value").alias(rule.name), pl.col("source").alias(f"{rule.name}__source")
        )
        result = result.join(named, on="profile", how="left")
    counted = _conflict_counts(conflicts).rename({"profile": "profile_id"})
    return (
        result.join(counted, on="profile_id", how="left")
        .with_columns(pl.col("conflicts").fill_null(0))
        .sort("profile")
        .drop("profile")
    )


def _used(sources: Mapping[str, TraitSource], traits: Sequence[TraitRule]) -> dict[str, TraitSource]:
    wanted = {source.partition(".")[0] for rule in traits for source in rule.sources}
    return {name: source for name, source in sources.items() if name in wanted}


def _check_names(sources: Mapping[str, TraitSource], traits: Sequence[TraitRule]) -> None:
    columns = set(PROFILE_SCHEMA)
    for rule in traits:
        for name in (rule.name, f"{rule.name}__source"):
            if name in columns:
                raise SettingsError(
                    f"trait {rule.name!r}: a profile already has a column {name!r}; choose another name."
                )
            columns.add(name)
        for source in rule.sources:
            if source.partition(".")[0] not in sources:
                known = ", ".join(sorted(sources)) or "none"
                raise SettingsError(f"trait {rule.name!r}: source {source!r} is of no known table. Tables: {known}.")


def _bodies(numbered: pl.LazyFrame, rules: Rules) -> pl.LazyFrame:
    """Return profile, first_seen, last_seen, identifiers, heap_identity, heap_identities, heap_user_ids."""
    strength = {rule.type: position for position, rule in enumerate(rules.identifiers)}
    own = ~pl.col("shared")
    identity, user = own & (pl.col("type") == HEAP_IDENTITY), own & (pl.col("type") == HEAP_USER_ID)
    # a kiosk's last visitor is not this person: shared identifiers give no dates, unless there is nothing else
    dates = {name: pl.when(own).then(pl.col(name)) for name in ("first_seen", "last_seen")}
    return (
        numbered.rename({"identifier_type": "type", "identifier": "value"})
        .with_columns(_strength=pl.col("type").replace_strict(strength, default=len(strength), return_dtype=pl.Int32))
        .sort("_strength", "value")
        .group_by("profile", maintain_order=True)
        .agg(
            first_seen=pl.coalesce(dates["first_seen"].min(), pl.col("first_seen").min()),
            last_seen=pl.coalesce(dates["last_seen"].max(), pl.col("last_seen").max()),
            identifiers=pl.struct("type", "value"),
            heap_identity=pl.col("value")
            .filter(identity)
            .sort_by(pl.col("first_seen").filter(identity), nulls_last=True, maintain_order=True)
            .first(),
            heap_identities=pl.col("value").filter(identity),
            heap_user_ids=pl.col("value").filter(user).cast(pl.Int64).sort(),
        )
    )


def _assigned(source: TraitSource, to_profile: pl.LazyFrame, rules: Rules) -> pl.LazyFrame:
    """Return the rows of a source that belong to a profile, with `_profile` and `_time`."""
    schema = source.rows.collect_schema()
    column = source.updated_at or source.table.time_column
    if column is not None and column not in schema:
        raise SettingsError(f"table {source.table.name!r} has no column {column!r} to tell how new a row is.")
    time = (
        pl.lit(None, TIME) if column is None else _utc(pl.col(column), schema[column], f"{source.table.name}.{column}")
    )
    return (
        assign(source.rows, source.table, to_profile, rules)
        .filter(pl.col("profile_id").is_not_null())
        .with_columns(_profile="profile_id", _time=time)
    )


def _utc(value: pl.Expr, dtype: pl.DataType, name: str) -> pl.Expr:
    """Return a warehouse's time as UTC; one without a zone is taken as UTC."""
    if isinstance(dtype, pl.Datetime):
        zoned = value.dt.replace_time_zone("UTC") if dtype.time_zone is None else value.dt.convert_time_zone("UTC")
        return zoned.cast(TIME)
    if dtype == pl.Date:
        return value.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    raise SettingsError(f"{name} is {dtype}, expected a date or a timestamp to tell how new a row is.")


def _candidates(assigned: Mapping[str, pl.LazyFrame], rule: TraitRule, rank: int) -> pl.LazyFrame:
    table, _, path = rule.sources[rank].partition(".")
    rows = assigned[table]
    try:
        found = resolve_path(path, rows.collect_schema(), table)
    except RulesError as error:
        raise SettingsError(f"trait {rule.name!r}: {error}") from error
    if found.many:
        raise SettingsError(f"trait {rule.name!r}: {rule.sources[rank]!r} is an array, a trait is one value.")
    return rows.select(
        profile="_profile", rank=pl.lit(rank, pl.UInt32), time="_time", value=present(found.expression, found.dtype)
    ).filter(pl.col("value").is_not_null())


def _conflict_counts(conflicts: pl.LazyFrame | None) -> pl.LazyFrame:
    """Count the refused links that touch a profile: profile String, conflicts Int64."""
    if conflicts is None:
        return pl.LazyFrame(schema={"profile": pl.String, "conflicts": pl.Int64})
    sides = [conflicts.select(profile=side) for side in ("profile_a", "profile_b")]
    return pl.concat(sides).drop_nulls().group_by("profile").agg(conflicts=pl.len().cast(pl.Int64))
