"""Rows of a table that traits are taken from: whose they are, how new, and the columns that traits use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from heap_assets.errors import SettingsError
from heap_assets.identity import Rules, RulesError, SourceTable, assign, resolve_path
from heap_assets.profiles.survivorship import present
from heap_assets.values import PRIVATE, TIME, read_times

PROFILE, ROW_TIME, UNREADABLE = (f"{PRIVATE}{name}" for name in ("profile", "time", "unreadable"))


@dataclass(frozen=True)
class TraitSource:
    """A table that traits are taken from.

    Attributes
    ----------
    rows
        The rows of the day (a snapshot), or of all days that count (events).
    table
        How its columns map to identifiers.
    updated_at
        The column that says how new a row is; without one, the time column of the table.
    """

    rows: pl.LazyFrame
    table: SourceTable
    updated_at: str | None = None


@dataclass(frozen=True)
class TraitRows:
    """How a source's columns are read.

    Attributes
    ----------
    time, unreadable
        The time of a row, and whether the column `time_column` has text there that is no time.
    values
        The values of each path.
    wrong
        Why a path cannot be read; under "" why no row can.
    """

    time: pl.Expr
    unreadable: pl.Expr
    time_column: str
    values: Mapping[str, pl.Expr]
    wrong: Mapping[str, str]

    @classmethod
    def of(cls, source: TraitSource, paths: Sequence[str]) -> TraitRows:
        schema, name = source.rows.collect_schema(), source.table.name
        column = source.updated_at or source.table.time_column
        time = pl.lit(None, TIME)
        unreadable, wrong, values = pl.lit(value=False), {}, {}
        if column is not None:
            try:
                value, dtype = _resolved(column, schema, name)
                time = _utc(value, dtype, f"{name}.{column}")
                if dtype == pl.String:
                    unreadable = value.is_not_null() & time.is_null()
            except SettingsError as error:
                wrong[""] = f"the time of its rows: {error}"
        for path in paths:
            try:
                values[path] = present(*_resolved(path, schema, name))
            except SettingsError as error:
                wrong[path] = str(error)
        return cls(time, unreadable, column or "", values, wrong)


def assigned_rows(source: TraitSource, table: TraitRows, to_profile: pl.LazyFrame, rules: Rules) -> pl.LazyFrame:
    """Return the rows of a source that belong to a profile: profile, time, and a column per path that can be read.

    Collected, since every trait of the table reads it.
    """
    return (
        assign(source.rows, source.table, to_profile, rules, under=PROFILE)
        .filter(pl.col(PROFILE).is_not_null())
        .select(
            table.time.alias(ROW_TIME),
            table.unreadable.alias(UNREADABLE),
            PROFILE,
            *(value.alias(path) for path, value in table.values.items()),
        )
        .collect()
        .lazy()
    )


def _resolved(path: str, schema: pl.Schema, table: str) -> tuple[pl.Expr, pl.DataType]:
    try:
        column = resolve_path(path, schema, table)
    except RulesError as error:
        raise SettingsError(str(error)) from error
    if column.many:
        raise SettingsError(f"{table}.{path} is an array, expected one value.")
    return column.expression, column.dtype


def _utc(value: pl.Expr, dtype: pl.DataType, name: str) -> pl.Expr:
    """Return a warehouse's time as UTC; one without a zone is taken as UTC, text that is no time as none."""
    if isinstance(dtype, pl.Datetime):
        zoned = value.dt.replace_time_zone("UTC") if dtype.time_zone is None else value.dt.convert_time_zone("UTC")
        return zoned.cast(TIME)
    if dtype == pl.Date:
        return value.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    if dtype == pl.String:
        return read_times(value)
    raise SettingsError(f"{name} is {dtype}, expected a date or a timestamp to tell how new a row is.")
