"""Golden records: one row per profile, its identifiers, and traits chosen from every table that knows the person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from heap_assets.column_names import PRIVATE
from heap_assets.errors import SettingsError
from heap_assets.identity import HEAP_IDENTITY, HEAP_USER_ID, Rules, RulesError, SourceTable, assign, resolve_path
from heap_assets.profiles.survivorship import TraitRule, present, survivors

TIME = pl.Datetime("us", "UTC")

_PROFILE, _TIME = f"{PRIVATE}profile", f"{PRIVATE}time"

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
    merged_away: pl.Series | None = None,
) -> pl.LazyFrame:
    """Build the profiles of a day.

    A row of a source belongs to the profile of its strongest identifier that is not null, blocked or shared; a row
    without one gives no traits. `heap_identity` is the identity a sync uses when it may use only one: the one seen
    first, of several seen at once the smallest; `heap_identities` holds all of them, sorted. Shared identifiers are
    listed in `identifiers` only, where Heap itself has tied them to the profile. The work is done when this is called.

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
    merged_away
        Heap identities whose users Heap has merged into others: nothing is on them any more. They stay among
        `identifiers` and are left out of `heap_identity` and `heap_identities`.

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
    numbers = members.select(pl.col("profile_id").unique().sort()).with_row_index("profile")
    # traits join on a number: a profile id is 32 characters, and rows are wide
    numbered = members.join(numbers, on="profile_id").drop("profile_id")
    to_profile = numbered.lazy().rename({"profile": "profile_id"})
    assigned = {
        name: _assigned(sources[name], paths, to_profile, rules) for name, paths in _paths_by_table(traits).items()
    }
    columns = [_body(numbered, numbers, rules, merged_away), *(_trait(rule, assigned, numbers) for rule in traits)]
    return pl.concat([*columns, _conflict_counts(conflicts, numbers)], how="horizontal").lazy()


def _trait(rule: TraitRule, assigned: Mapping[str, pl.LazyFrame], numbers: pl.DataFrame) -> pl.DataFrame:
    """Return the trait and its source, one row per profile in order."""
    chosen = survivors([_candidates(assigned, rule, rank) for rank in range(len(rule.sources))], rule)
    named = chosen.select("profile", pl.col("value").alias(rule.name), pl.col("source").alias(f"{rule.name}__source"))
    return _in_order(named, numbers)


def _in_order(rows: pl.LazyFrame, numbers: pl.DataFrame) -> pl.DataFrame:
    """Return rows with `profile` as one row per profile, in order and without it; nulls where there is none."""
    every = numbers.lazy().select("profile")
    return every.join(rows, on="profile", how="left").sort("profile").drop("profile").collect()


def _paths_by_table(traits: Sequence[TraitRule]) -> dict[str, dict[str, str]]:
    """Return table to column path to the (first) trait that wants it."""
    found: dict[str, dict[str, str]] = {}
    for rule in traits:
        for source in rule.sources:
            table, _, path = source.partition(".")
            found.setdefault(table, {}).setdefault(path, rule.name)
    return found


def _check_names(sources: Mapping[str, TraitSource], traits: Sequence[TraitRule]) -> None:
    columns = set(PROFILE_SCHEMA)
    for rule in traits:
        for name in (rule.name, f"{rule.name}__source"):
            if name in columns:
                raise SettingsError(
                    f"trait {rule.name!r}: a profile already has a column {name!r}; choose another name."
                )
            columns.add(name)
        if not rule.sources:
            raise SettingsError(f"trait {rule.name!r} has no source: name at least one table.column.")
        for source in rule.sources:
            if source.partition(".")[0] not in sources:
                known = ", ".join(sorted(sources)) or "none"
                raise SettingsError(f"trait {rule.name!r}: source {source!r} is of no known table. Tables: {known}.")


def _body(numbered: pl.DataFrame, numbers: pl.DataFrame, rules: Rules, merged_away: pl.Series | None) -> pl.DataFrame:
    """Return profile_id, first_seen, last_seen, identifiers, heap_identity, heap_identities, heap_user_ids."""
    strength = pl.DataFrame({"type": rules.types}).with_row_index("_strength").lazy()
    rows = numbered.lazy().rename({"identifier_type": "type", "identifier": "value"})
    own = ~pl.col("shared")
    everything = (
        rows.join(strength, on="type", how="left")
        .sort("profile", "_strength", "value", nulls_last=True)
        .group_by("profile", maintain_order=True)
        .agg(
            pl.col("first_seen").min(),
            pl.col("last_seen").max(),
            identifiers=pl.struct("type", "value"),
        )
    )
    # a kiosk's last visitor is not this person: shared identifiers give no dates, unless there is nothing else
    dates = (
        rows.filter(own)
        .group_by("profile")
        .agg(own_first=pl.col("first_seen").min(), own_last=pl.col("last_seen").max())
    )
    gone = pl.DataFrame({"value": [] if merged_away is None else merged_away}, schema={"value": pl.String}).lazy()
    standing = rows.filter(own & (pl.col("type") == HEAP_IDENTITY)).join(gone, on="value", how="anti")
    identities = standing.sort("first_seen", "value", nulls_last=True)
    primary = identities.unique("profile", keep="first", maintain_order=True).select("profile", heap_identity="value")
    lists = [
        identities.group_by("profile").agg(heap_identities=pl.col("value").sort()),
        rows.filter(own & (pl.col("type") == HEAP_USER_ID))
        .group_by("profile")
        .agg(heap_user_ids=pl.col("value").cast(pl.Int64).sort()),
    ]
    seen = _in_order(
        everything.join(dates, on="profile", how="left")
        .with_columns(first_seen=pl.coalesce("own_first", "first_seen"), last_seen=pl.coalesce("own_last", "last_seen"))
        .drop("own_first", "own_last"),
        numbers,
    )
    nothing = {"heap_identities": pl.List(pl.String), "heap_user_ids": pl.List(pl.Int64)}
    keys = pl.concat([_in_order(part, numbers) for part in (primary, *lists)], how="horizontal").with_columns(
        pl.col(name).fill_null(pl.lit([], dtype)) for name, dtype in nothing.items()
    )
    return pl.concat([numbers.select("profile_id"), seen, keys], how="horizontal")


def _assigned(source: TraitSource, traits: Mapping[str, str], to_profile: pl.LazyFrame, rules: Rules) -> pl.LazyFrame:
    """Return the rows of a source that belong to a profile: profile, time, and a column per path in `traits`.

    Collected, since every trait of the table reads it.
    """
    schema, name = source.rows.collect_schema(), source.table.name
    column = source.updated_at or source.table.time_column
    time = pl.lit(None, TIME)
    if column is not None:
        time = _utc(*_resolved(column, schema, name, "the time of its rows"), f"{name}.{column}")
    values = [present(*_resolved(path, schema, name, f"trait {trait!r}")).alias(path) for path, trait in traits.items()]
    return (
        assign(source.rows, source.table, to_profile, rules, under=_PROFILE)
        .filter(pl.col(_PROFILE).is_not_null())
        .select(time.alias(_TIME), _PROFILE, *values)
        .collect()
        .lazy()
    )


def _resolved(path: str, schema: pl.Schema, table: str, what: str) -> tuple[pl.Expr, pl.DataType]:
    try:
        found = resolve_path(path, schema, table)
    except RulesError as error:
        raise SettingsError(f"{what}: {error}") from error
    if found.many:
        raise SettingsError(f"{what}: {table}.{path} is an array, expected one value.")
    return found.expression, found.dtype


def _utc(value: pl.Expr, dtype: pl.DataType, name: str) -> pl.Expr:
    """Return a warehouse's time as UTC; one without a zone is taken as UTC."""
    if isinstance(dtype, pl.Datetime):
        zoned = value.dt.replace_time_zone("UTC") if dtype.time_zone is None else value.dt.convert_time_zone("UTC")
        return zoned.cast(TIME)
    if dtype == pl.Date:
        return value.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    if dtype == pl.String:
        return value.str.to_datetime(time_unit="us", time_zone="UTC", strict=False)
    raise SettingsError(f"{name} is {dtype}, expected a date or a timestamp to tell how new a row is.")


def _candidates(assigned: Mapping[str, pl.LazyFrame], rule: TraitRule, rank: int) -> pl.LazyFrame:
    table, _, path = rule.sources[rank].partition(".")
    return (
        assigned[table]
        .select(profile=_PROFILE, rank=pl.lit(rank, pl.UInt32), time=_TIME, value=path)
        .filter(pl.col("value").is_not_null())
    )


def _conflict_counts(conflicts: pl.LazyFrame | None, numbers: pl.DataFrame) -> pl.DataFrame:
    """Count the refused links that touch each profile, in order."""
    if conflicts is None:
        return numbers.with_columns(conflicts=pl.lit(0, pl.Int64)).select("conflicts")
    sides = pl.concat([conflicts.select(profile_id=side) for side in ("profile_a", "profile_b")])
    counted = sides.join(numbers.lazy(), on="profile_id").group_by("profile").agg(conflicts=pl.len().cast(pl.Int64))
    return _in_order(counted, numbers).with_columns(pl.col("conflicts").fill_null(0))
