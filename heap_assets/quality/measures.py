"""Checks that every stored table has, and the measures of a partition that several checks share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import polars as pl

from heap_assets.quality import baselines
from heap_assets.quality.engine import Check, CheckContext
from heap_assets.quality.results import SAMPLE_ROWS, CheckResult, Severity, combine_results
from heap_assets.quality.thresholds import Thresholds
from heap_assets.tables import MIGRATIONS, USERS, is_heap_table
from heap_assets.values import PRIVATE

LOOK_BACK_DAYS = 7
_SNAPSHOT_GAP_DAYS = 7

_ROWS = f"{PRIVATE}rows"
_OUTSIDE = f"{PRIVATE}outside"


@dataclass(frozen=True)
class TableFacts:
    """Figures of a partition: rows, column to type, column to nulls, and rows of other days (0 for snapshots)."""

    rows: int
    columns: Mapping[str, str]
    nulls: Mapping[str, int]
    outside: int = 0

    @property
    def null_shares(self) -> dict[str, float]:
        """Return column to share of nulls, empty for a table without rows."""
        return {name: count / self.rows for name, count in self.nulls.items()} if self.rows else {}


def table_facts(rows: pl.LazyFrame, day: date | None = None, time_column: str = "time") -> TableFacts:
    """Measure a partition in one pass; `day` is its UTC day, None for snapshots, whose rows have no day."""
    schema = rows.collect_schema()
    figures = [pl.len().alias(_ROWS), *(pl.col(name).null_count() for name in schema)]
    if day is not None and time_column in schema:
        figures.append((~inside_day(time_column, day)).sum().alias(_OUTSIDE))
    measured = rows.select(figures).collect(engine="streaming").row(0, named=True)
    return TableFacts(
        rows=measured.pop(_ROWS),
        outside=measured.pop(_OUTSIDE, 0) or 0,
        columns={name: str(dtype) for name, dtype in schema.items()},
        nulls=measured,
    )


def ids_present(facts: TableFacts, required: Sequence[str]) -> CheckResult:
    """Check that the required columns exist and have no nulls."""
    absent = [name for name in required if name not in facts.columns]
    missing = {name: facts.nulls[name] for name in required if facts.nulls.get(name)}
    return CheckResult(
        passed=not missing and not absent,
        numbers={"rows": facts.rows, **{f"rows_without_{name}": count for name, count in missing.items()}},
        notes={"absent_columns": ", ".join(absent)} if absent else {},
    )


def rejected_rows(rows: int, rejected: int, reasons: Mapping[str, int], allowed: float) -> CheckResult:
    """Check that at most `allowed` of the rows were rejected; `reasons` has reason to rows, and no values."""
    share = rejected / (rows + rejected) if rejected else 0.0
    table = pl.DataFrame({"reason": list(reasons), "rows": list(reasons.values())}) if reasons else None
    return CheckResult(
        passed=share <= allowed,
        numbers={"rows": rows, "rejected_rows": rejected, "rejected_share": share, "allowed_share": allowed},
        offenders=table,
        plain=("reason", "rows"),
    )


def reasons_of(notes: Mapping[str, Any]) -> tuple[int, dict[str, int]]:
    """Return rejected rows and their reasons from a footer's notes (`rejected`, `rejected_reasons`)."""
    reasons = notes.get("rejected_reasons") or {}
    return int(notes.get("rejected") or 0), {str(reason): int(n) for reason, n in reasons.items()}


def inside_day(time_column: str, day: date) -> pl.Expr:
    """Return whether a row happened on a UTC day."""
    start = datetime.combine(day, time.min, UTC)
    moment = pl.col(time_column)
    return (moment >= start) & (moment < start + timedelta(days=1))


def values_kept(notes: Mapping[str, object]) -> CheckResult:
    """Check that no value was replaced by null because no type of the lake holds it (docs/values.md).

    The partition's notes have column to count under `values_lost_in`.
    """
    lost = notes.get("values_lost_in")
    counts = {str(name): int(count) for name, count in lost.items()} if isinstance(lost, Mapping) else {}
    return CheckResult(
        passed=not counts,
        numbers={"values_lost": sum(counts.values())},
        notes={"columns": ", ".join(f"{name}: {count}" for name, count in sorted(counts.items()))} if counts else {},
    )


def facts_of(s: CheckContext) -> TableFacts:
    """Return the figures of a partition, measured once for all of its checks."""
    is_event = s.asset not in (USERS, MIGRATIONS) and is_heap_table(s.asset)
    return s.once("facts", lambda: table_facts(s.rows(), s.day if is_event else None))


def remembered(s: CheckContext, name: str) -> list[dict[str, Any]]:
    """Return a figure that this check stored for comparison on earlier days, newest first."""
    return [v.memory[name] for v in s.earlier(LOOK_BACK_DAYS) if v.memory.get(name)]


def readable_check(asset: str) -> Check:
    """Return the check that a table could be built; the step that builds it reports the result."""
    return Check(
        asset,
        "readable",
        "The table can be read and built.",
        remedy="the reason names the file or relation; the other tables go on without it.",
    )


def unique_key_check(asset: str, key: str, remedy: str) -> Check:
    """Return the check that no key of a table is there twice."""
    return Check(
        asset,
        "unique_keys",
        f"No {key} is there twice.",
        lambda s: unique_keys(s.rows(), [key]),
        blocking=True,
        remedy=remedy,
    )


def values_check(asset: str, remedy: str) -> Check:
    """Return the check that no value of a table was lost; its writer noted how many were."""
    return Check(
        asset,
        "values_kept",
        "Every value of the table fits a type of the lake.",
        lambda s: values_kept(s.notes()),
        Severity.WARN,
        remedy=remedy,
    )


def rejected_check(asset: str, t: Thresholds) -> Check:
    """Return the check on the rejected rows of a Heap table."""

    def rejected(s: CheckContext) -> CheckResult:
        count, reasons = reasons_of(s.notes())
        return rejected_rows(facts_of(s).rows, count, reasons, t.rejected_rows)

    return Check(
        asset,
        "rejected_rows",
        f"At most {t.rejected_rows:.2%} of the rows could not be read.",
        rejected,
        remedy="`heap-assets rejected TABLE` shows file, row and reason of each.",
    )


def column_check(asset: str, t: Thresholds) -> Check:
    """Return the check that a table's columns, their types and their shares of nulls are as before."""

    def evaluate(s: CheckContext) -> CheckResult:
        facts = facts_of(s)
        before = s.earlier(LOOK_BACK_DAYS)
        columns = next((v.memory["columns"] for v in before if v.memory.get("columns")), None)
        filled = [(v.memory["rows"], v.memory["null_shares"]) for v in before if v.memory.get("null_shares")]
        return combine_results(
            baselines.columns_as_before(facts.columns, columns),
            baselines.filled_as_usual(facts.rows, facts.null_shares, filled, t),
        )

    return Check(
        asset,
        "columns_as_usual",
        f"The table has the columns and types it had, none emptier by {t.null_change * 100:g} percentage points and "
        f"three standard errors (days of {t.null_min_rows} rows or more).",
        evaluate,
        Severity.WARN,
        remedy="`heap-assets catalogue accept` takes new ones in; a vanished one was untracked or unmapped."
        if is_heap_table(asset)
        else "map a new one in `warehouse.tables` if it is wanted; ask the loader's owner for one that is gone.",
    )


def shrink_check(asset: str, t: Thresholds) -> Check:
    """Return the check that a snapshot has not lost too many of its rows."""
    return Check(
        asset,
        "not_shrunk",
        f"The snapshot has not lost more than {t.max_shrink:.0%} of its rows since the one before.",
        lambda s: baselines.not_shrunk(facts_of(s).rows, rows_before(s), t),
        blocking=True,
        remedy="look at the source's last load; if the rows are gone for good, raise checks.max_shrink for one run.",
    )


def rows_before(s: CheckContext) -> int | None:
    """Return how many rows the newest partition of the days before has; None without one."""
    for back in range(1, _SNAPSHOT_GAP_DAYS + 1):
        partition = s.lake.find(s.asset, str(s.day - timedelta(days=back)))
        if partition is not None:
            return partition.rows
    return None


def unique_keys(rows: pl.LazyFrame, key: Sequence[str]) -> CheckResult:
    """Check that no two rows have the same key; rows with a null in their key are left out (see `ids_present`)."""
    columns = list(key)
    count = "rows" if "rows" not in columns else "rows_"
    repeated = rows.drop_nulls(columns).group_by(columns).agg(pl.len().alias(count)).filter(pl.col(count) > 1)
    counted, totals, sample = pl.collect_all(
        [
            rows.select(pl.len().alias("rows")),
            repeated.select(pl.len().alias("keys"), (pl.col(count).sum() - pl.len()).alias("extra")),
            repeated.sort([count, *columns], descending=[True] + [False] * len(columns)).head(SAMPLE_ROWS),
        ]
    )
    keys, extra = totals.row(0)
    return CheckResult(
        passed=keys == 0,
        numbers={"rows": counted.item(), "repeated_keys": keys, "extra_rows": extra},
        offenders=sample if keys else None,
        plain=(count,),
    )
