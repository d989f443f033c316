"""Golden records: one row per profile, its identifiers, and traits chosen from every table with rows of the person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import polars as pl

from heap_assets.errors import SettingsError
from heap_assets.identity import HEAP_IDENTITY, HEAP_USER_ID, Rules
from heap_assets.profiles.survivorship import TraitRule, survivors
from heap_assets.profiles.trait_rows import PROFILE, ROW_TIME, UNREADABLE, TraitRows, TraitSource, assigned_rows
from heap_assets.values import PRIVATE, TIME

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
"""Columns every profiles table has, without its traits (which come before `conflicts`)."""

SET_ASIDE: Final = "traits_set_aside"
"""The note of a day's profiles: traits and audiences that could not be made, and why. The check `traits_made` fails."""

_LOST: Final = f"{PRIVATE}lost"


@dataclass(frozen=True)
class GoldenRecords:
    """The profiles of a day.

    Attributes
    ----------
    frame
        `PROFILE_SCHEMA` with `<trait>` and `<trait>__source` per trait before `conflicts`; sorted by profile_id.
    set_aside
        Why a trait could not be made: types that clash, a missing column. Both of its columns are null.
    unreadable_times
        Number of rows with text that is no time, by `table.column`; such rows count as without a time.
    values_lost
        Number of people whose value is null because it does not fit the type of the trait, by trait (docs/values.md).
    """

    frame: pl.LazyFrame
    set_aside: Mapping[str, str] = field(default_factory=dict)
    unreadable_times: Mapping[str, int] = field(default_factory=dict)
    values_lost: Mapping[str, int] = field(default_factory=dict)


def golden_records(
    graph: pl.LazyFrame,
    sources: Mapping[str, TraitSource],
    traits: Sequence[TraitRule],
    rules: Rules,
    conflicts: pl.LazyFrame | None = None,
    merged_away: pl.Series | None = None,
) -> GoldenRecords:
    """Build the profiles of a day.

    A row of a source belongs to the profile of its strongest identifier that is not null, blocked or shared; a row
    without one gives no traits. `heap_identity` is the identity a sync uses when it may use only one: the earliest by
    `first_seen`, of equals the smallest; `heap_identities` holds all of them, sorted. Shared identifiers are listed in
    `identifiers` only, where Heap itself has tied them to the profile. The result is computed eagerly.

    Parameters
    ----------
    graph
        `identity/graph` of the day.
    sources
        Tables by the name that the traits use for them.
    traits
        One rule per trait column.
    rules
        The identity rules the graph was built with.
    conflicts
        `identity/conflicts` of the day; without it the count is 0.
    merged_away
        Heap identities whose users Heap has merged into others. They stay among `identifiers` and are left out of
        `heap_identity` and `heap_identities`.

    Raises SettingsError: a trait names no known table or has the name of another column. A trait whose columns are
    missing or do not fit is set aside, and the others are made.
    """
    _check_names(sources, traits)
    members = graph.filter(pl.col("profile_id").is_not_null()).collect()
    numbers = members.select(pl.col("profile_id").unique().sort()).with_row_index("profile")
    # traits join on a number: a profile id is 32 characters, and rows are wide
    numbered = members.join(numbers, on="profile_id").drop("profile_id")
    to_profile = numbered.lazy().rename({"profile": "profile_id"})
    tables = {name: TraitRows.of(sources[name], paths) for name, paths in _paths_by_table(traits).items()}
    assigned = {
        name: assigned_rows(sources[name], table, to_profile, rules)
        for name, table in tables.items()
        if "" not in table.wrong
    }
    set_aside = {rule.name: why for rule in traits if (why := _why_impossible(rule, tables))}
    trait_columns, lost = [], {}
    for rule in traits:
        try:
            if rule.name not in set_aside:
                trait = _trait(rule, assigned, numbers)
                lost[rule.name] = int(trait[_LOST].sum())
                trait_columns.append(trait.drop(_LOST))
                continue
        except SettingsError as error:
            set_aside[rule.name] = str(error)
        empty = pl.Series([None], dtype=pl.String).new_from_index(0, numbers.height)
        trait_columns.append(pl.DataFrame({rule.name: empty, f"{rule.name}__source": empty}))
    columns = [_body(numbered, numbers, rules, merged_away), *trait_columns, _conflict_counts(conflicts, numbers)]
    unreadable = {
        f"{sources[name].table.name}.{tables[name].time_column}": rows.select(pl.col(UNREADABLE).sum()).collect().item()
        for name, rows in assigned.items()
    }
    return GoldenRecords(
        pl.concat(columns, how="horizontal").lazy(),
        set_aside,
        {column: int(count) for column, count in unreadable.items() if count},
        {name: count for name, count in lost.items() if count},
    )


def _why_impossible(rule: TraitRule, tables: Mapping[str, TraitRows]) -> str:
    """Return why one of a trait's sources cannot be read at all; empty if all can."""
    for source in rule.sources:
        table, _, path = source.partition(".")
        if why := tables[table].wrong.get("") or tables[table].wrong.get(path):
            return f"trait {rule.name!r}: {why}"
    return ""


def _trait(rule: TraitRule, assigned: Mapping[str, pl.LazyFrame], numbers: pl.DataFrame) -> pl.DataFrame:
    """Return the trait, its source and whether a value did not fit its type, one row per profile in order."""
    survivors_of_rule = survivors([_candidates(assigned, rule, rank) for rank in range(len(rule.sources))], rule)
    columns = survivors_of_rule.select(
        "profile",
        pl.col("value").alias(rule.name),
        pl.col("source").alias(f"{rule.name}__source"),
        pl.col("value").is_null().alias(_LOST),
    )
    try:
        return _in_order(columns, numbers)
    except pl.exceptions.PolarsError as error:
        raise SettingsError(
            f"trait {rule.name!r}: values of {', '.join(rule.sources)} cannot be put together ({type(error).__name__})."
        ) from error


def _in_order(rows: pl.LazyFrame, numbers: pl.DataFrame) -> pl.DataFrame:
    """Return rows with `profile` as one row per profile, in order and without it; nulls where there is none."""
    every = numbers.lazy().select("profile")
    return every.join(rows, on="profile", how="left").sort("profile").drop("profile").collect()


def _paths_by_table(traits: Sequence[TraitRule]) -> dict[str, list[str]]:
    """Return the column paths that traits use of each table, each once."""
    tables: dict[str, dict[str, None]] = {}
    for rule in traits:
        for source in rule.sources:
            table, _, path = source.partition(".")
            tables.setdefault(table, {})[path] = None
    return {table: list(paths) for table, paths in tables.items()}


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
                tables = ", ".join(sorted(sources)) or "none"
                raise SettingsError(f"trait {rule.name!r}: source {source!r} is of no known table. Tables: {tables}.")


def _body(numbered: pl.DataFrame, numbers: pl.DataFrame, rules: Rules, merged_away: pl.Series | None) -> pl.DataFrame:
    """Return profile_id, first_seen, last_seen, identifiers, heap_identity, heap_identities, heap_user_ids."""
    strength = pl.DataFrame({"type": rules.types}).with_row_index("_strength").lazy()
    rows = numbered.lazy().rename({"identifier_type": "type", "identifier": "value"})
    is_unshared = ~pl.col("shared")
    by_profile = (
        rows.join(strength, on="type", how="left")
        .sort("profile", "_strength", "value", nulls_last=True)
        .group_by("profile", maintain_order=True)
        .agg(pl.col("first_seen").min(), pl.col("last_seen").max(), identifiers=pl.struct("type", "value"))
    )
    # a kiosk's last visitor is not this person: shared identifiers give no dates, unless there is nothing else
    dates = (
        rows.filter(is_unshared).group_by("profile").agg(own_first=pl.min("first_seen"), own_last=pl.max("last_seen"))
    )
    merged = pl.DataFrame({"value": [] if merged_away is None else merged_away}, schema={"value": pl.String}).lazy()
    current = rows.filter(is_unshared & (pl.col("type") == HEAP_IDENTITY)).join(merged, on="value", how="anti")
    identities = current.sort("first_seen", "value", nulls_last=True)
    primary = identities.unique("profile", keep="first", maintain_order=True).select("profile", heap_identity="value")
    lists = [
        identities.group_by("profile").agg(heap_identities=pl.col("value").sort()),
        rows.filter(is_unshared & (pl.col("type") == HEAP_USER_ID))
        .group_by("profile")
        .agg(heap_user_ids=pl.col("value").cast(pl.Int64).sort()),
    ]
    dated = _in_order(
        by_profile.join(dates, on="profile", how="left")
        .with_columns(first_seen=pl.coalesce("own_first", "first_seen"), last_seen=pl.coalesce("own_last", "last_seen"))
        .drop("own_first", "own_last"),
        numbers,
    )
    list_types = {"heap_identities": pl.List(pl.String), "heap_user_ids": pl.List(pl.Int64)}
    keys = pl.concat([_in_order(part, numbers) for part in (primary, *lists)], how="horizontal").with_columns(
        pl.col(name).fill_null(pl.lit([], dtype)) for name, dtype in list_types.items()
    )
    return pl.concat([numbers.select("profile_id"), dated, keys], how="horizontal")


def _candidates(assigned: Mapping[str, pl.LazyFrame], rule: TraitRule, rank: int) -> pl.LazyFrame:
    table, _, path = rule.sources[rank].partition(".")
    return (
        assigned[table]
        .select(profile=PROFILE, rank=pl.lit(rank, pl.UInt32), time=ROW_TIME, value=path)
        .filter(pl.col("value").is_not_null())
    )


def _conflict_counts(conflicts: pl.LazyFrame | None, numbers: pl.DataFrame) -> pl.DataFrame:
    """Count the refused links that touch each profile, in order."""
    if conflicts is None:
        return numbers.with_columns(conflicts=pl.lit(0, pl.Int64)).select("conflicts")
    sides = pl.concat([conflicts.select(profile_id=side) for side in ("profile_a", "profile_b")])
    counts = sides.join(numbers.lazy(), on="profile_id").group_by("profile").agg(conflicts=pl.len().cast(pl.Int64))
    return _in_order(counts, numbers).with_columns(pl.col("conflicts").fill_null(0))
