"""Judges of Heap's own tables: ids, times, rejected rows, names of others, user migrations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import polars as pl

from heap_assets.quality.results import SAMPLE_ROWS, Verdict
from heap_assets.values import (
    PRIVATE,
)

_ROWS = f"{PRIVATE}rows"
_OUTSIDE = f"{PRIVATE}outside"


@dataclass(frozen=True)
class TableFacts:
    """What one pass over a partition tells.

    `nulls` counts by column; `outside` are rows whose time is not in the partition's day (0 for snapshots).
    """

    rows: int
    columns: Mapping[str, str]
    nulls: Mapping[str, int]
    outside: int = 0

    @property
    def null_shares(self) -> dict[str, float]:
        """Return column to share of nulls, empty for a table without rows."""
        return {name: count / self.rows for name, count in self.nulls.items()} if self.rows else {}


def table_facts(rows: pl.LazyFrame, day: date | None = None, time_column: str = "time") -> TableFacts:
    """Read a partition once.

    Parameters
    ----------
    day
        The partition's UTC day for event tables; None for snapshots, whose rows have no day.
    """
    schema = rows.collect_schema()
    figures = [pl.len().alias(_ROWS), *(pl.col(name).null_count() for name in schema)]
    if day is not None and time_column in schema:
        figures.append((~_inside(time_column, day)).sum().alias(_OUTSIDE))
    found = rows.select(figures).collect(engine="streaming").row(0, named=True)
    return TableFacts(
        rows=found.pop(_ROWS),
        outside=found.pop(_OUTSIDE, 0) or 0,
        columns={name: str(dtype) for name, dtype in schema.items()},
        nulls=found,
    )


def ids_present(facts: TableFacts, required: Sequence[str]) -> Verdict:
    """Judge that every row names who and what it is about."""
    absent = [name for name in required if name not in facts.columns]
    missing = {name: facts.nulls[name] for name in required if facts.nulls.get(name)}
    return Verdict(
        passed=not missing and not absent,
        numbers={"rows": facts.rows, **{f"rows_without_{name}": count for name, count in missing.items()}},
        notes={"absent_columns": ", ".join(absent)} if absent else {},
    )


def times_inside_day(rows: pl.LazyFrame, facts: TableFacts, day: date, time_column: str = "time") -> Verdict:
    """Judge that every row happened on the UTC day that its partition stands for."""
    sample = None
    if facts.outside:
        outside = rows.filter(~_inside(time_column, day))
        sample = outside.select(pl.col(time_column).dt.date().alias("day")).group_by("day").len("rows")
        sample = sample.sort("rows", "day", descending=[True, False]).head(SAMPLE_ROWS)
    return Verdict(
        passed=not facts.outside,
        numbers={"rows": facts.rows, "rows_of_other_days": facts.outside},
        offenders=sample.collect() if sample is not None else None,
        plain=("day", "rows"),
    )


def rejected_rows(rows: int, rejected: int, reasons: Mapping[str, int], allowed: float) -> Verdict:
    """Judge that hardly any row was unreadable.

    Parameters
    ----------
    reasons
        Reason (`user_id is no integer`) to rows; holds no values.
    """
    share = rejected / (rows + rejected) if rejected else 0.0
    table = pl.DataFrame({"reason": list(reasons), "rows": list(reasons.values())}) if reasons else None
    return Verdict(
        passed=share <= allowed,
        numbers={"rows": rows, "rejected_rows": rejected, "rejected_share": share, "allowed_share": allowed},
        offenders=table,
        plain=("reason", "rows"),
    )


def names_known(rows: pl.LazyFrame, known: Mapping[str, pl.Series | None], allowed: float) -> Verdict:
    """Judge that the users and sessions which events name have been exported too.

    Parameters
    ----------
    known
        Column (`user_id`, `session_id`) to all values that exist, None if that table has not been built.
    """
    present = rows.collect_schema().names()
    judged = {name: values for name, values in known.items() if values is not None and name in present}
    figures = [
        (pl.col(name).is_not_null() & ~_is_known(name, values)).sum().alias(name) for name, values in judged.items()
    ]
    counted = rows.select(pl.len().alias(_ROWS), *figures).collect().row(0, named=True)
    total = counted.pop(_ROWS)
    share = max(counted.values(), default=0) / total if total else 0.0
    missing = [name for name, values in known.items() if values is None and name in present]
    return Verdict(
        passed=share <= allowed,
        numbers={
            "rows": total,
            "unknown_share": share,
            "allowed_share": allowed,
            **{f"rows_with_unknown_{name}": count for name, count in counted.items()},
        },
        not_judged=f"the tables that {' and '.join(missing)} are exported in are not built for the day"
        if missing and share <= allowed
        else "",
    )


def users_of_events_known(named: pl.LazyFrame, users: pl.LazyFrame, allowed: float) -> Verdict:
    """Judge that the users whom events name are exported; the table of users comes with the same dump.

    Parameters
    ----------
    named
        user_id Int64, rows: of all event tables of the day.
    users
        heap/users of the day: user_id Int64.
    """
    unknown = named.drop_nulls("user_id").join(users.select("user_id"), on="user_id", how="anti")
    total, strangers, rows = pl.collect_all(
        [
            named.select(pl.col("rows").sum()),
            unknown.select(pl.col("user_id").n_unique()),
            unknown.select(pl.col("rows").sum()),
        ]
    )
    share = rows.item() / total.item() if total.item() else 0.0
    return Verdict(
        passed=share <= allowed,
        numbers={
            "event_rows": total.item() or 0,
            "rows_of_unknown_users": rows.item() or 0,
            "unknown_users": strangers.item(),
            "share": share,
            "allowed_share": allowed,
        },
    )


def no_migration_cycles(migrations: pl.LazyFrame) -> Verdict:
    """Judge that every chain of user migrations ends at one user.

    Parameters
    ----------
    migrations
        heap/user_migrations: from_user_id, to_user_id Int64; cycle Boolean.
    """
    total, cycles, sample = pl.collect_all(
        [
            migrations.select(pl.len()),
            migrations.filter("cycle").select(pl.len()),
            migrations.filter("cycle").select("from_user_id", "to_user_id").sort("from_user_id").head(SAMPLE_ROWS),
        ]
    )
    return Verdict(
        passed=cycles.item() == 0,
        numbers={"migrations": total.item(), "in_a_cycle": cycles.item()},
        offenders=sample if cycles.item() else None,
    )


def migration_chains_short(migrations: pl.LazyFrame, longest: int) -> Verdict:
    """Judge that users do not migrate over and over; long chains are scripts that call identify in a loop.

    Parameters
    ----------
    migrations
        heap/user_migrations: from_user_id, to_user_id, resolved_to Int64; cycle Boolean.
    """
    steps = migrations.filter(~pl.col("cycle")).select("from_user_id", "to_user_id", "resolved_to").collect()
    hop = steps.select(pl.col("from_user_id").alias("at"), pl.col("to_user_id").alias("next"))
    going = steps.filter(pl.col("to_user_id") != pl.col("resolved_to")).select(pl.col("to_user_id").alias("at"))
    in_chains, length = going.height, 1 if steps.height else 0
    while going.height and length <= longest:
        length += 1
        going = going.join(hop, on="at").select(pl.col("next").alias("at")).join(hop.select("at"), on="at", how="semi")
    return Verdict(
        passed=length <= longest,
        numbers={"migrations": steps.height, "in_chains": in_chains, "longest_chain_at_least": length},
    )


def reasons_of(notes: Mapping[str, Any]) -> tuple[int, dict[str, int]]:
    """Return rejected rows and their reasons from a footer's notes (`rejected`, `rejected_reasons`)."""
    reasons = notes.get("rejected_reasons") or {}
    return int(notes.get("rejected") or 0), {str(reason): int(n) for reason, n in reasons.items()}


def _is_known(name: str, values: pl.Series) -> pl.Expr:
    """Return whether a column's values are among `values`; a retyped column is for another check to say."""
    return pl.col(name).cast(values.dtype, strict=False).is_in(values.implode()).fill_null(value=False)


def _inside(time_column: str, day: date) -> pl.Expr:
    start = datetime.combine(day, time.min, UTC)
    moment = pl.col(time_column)
    return (moment >= start) & (moment < start + timedelta(days=1))
