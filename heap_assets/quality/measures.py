"""Checks that every stored table has, and the measures of a partition that several checks share."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from heap_assets.quality import baselines, heap_tables, warehouse
from heap_assets.quality.engine import Check, Subject
from heap_assets.quality.heap_tables import TableFacts, table_facts
from heap_assets.quality.results import Severity, Verdict, together
from heap_assets.quality.thresholds import Thresholds

USERS = "heap/users"
SESSIONS = "heap/sessions"
MIGRATIONS = "heap/user_migrations"

LOOK_BACK_DAYS = 7
_SNAPSHOT_GAP_DAYS = 7


def facts_of(s: Subject) -> TableFacts:
    is_event = s.asset not in (USERS, MIGRATIONS) and s.asset.startswith("heap/")
    return s.once("facts", lambda: table_facts(s.rows(), s.day if is_event else None))


def remembered(s: Subject, name: str) -> list[dict[str, Any]]:
    """Return what this check remembered on earlier days, newest first."""
    return [v.memory[name] for v in s.earlier(LOOK_BACK_DAYS) if v.memory.get(name)]


def readable_check(asset: str) -> Check:
    """Return the check that a table could be built; the step that builds it gives the verdict."""
    return Check(
        asset,
        "readable",
        "The table can be read and built.",
        mend="the reason names the file or relation; the other tables go on without it.",
    )


def values_check(asset: str, mend: str) -> Check:
    """Return the check that every value of a table could be kept; its writer noted what could not."""
    return Check(
        asset,
        "values_kept",
        "Every value of the table fits a type of the lake.",
        lambda s: warehouse.values_kept(s.notes()),
        Severity.WARN,
        mend=mend,
    )


def rejected_check(asset: str, t: Thresholds) -> Check:
    """Return the check that hardly any row of a Heap table was set aside."""

    def rejected(s: Subject) -> Verdict:
        count, reasons = heap_tables.reasons_of(s.notes())
        return heap_tables.rejected_rows(facts_of(s).rows, count, reasons, t.rejected_rows)

    return Check(
        asset,
        "rejected_rows",
        f"At most {t.rejected_rows:.2%} of the rows could not be read.",
        rejected,
        mend="`heap-assets rejected TABLE` shows file, row and reason of each.",
    )


def column_check(asset: str, t: Thresholds) -> Check:
    """Return the check of a table's columns: the ones it had, of the types they had, and as filled as they were."""

    def judge(s: Subject) -> Verdict:
        facts = facts_of(s)
        before = s.earlier(LOOK_BACK_DAYS)
        columns = next((v.memory["columns"] for v in before if v.memory.get("columns")), None)
        filled = [(v.memory["rows"], v.memory["null_shares"]) for v in before if v.memory.get("null_shares")]
        return together(
            baselines.columns_as_before(facts.columns, columns),
            baselines.filled_as_usual(facts.rows, facts.null_shares, filled, t),
        )

    return Check(
        asset,
        "columns_as_usual",
        f"The table has the columns and types it had, none emptier by {t.null_change * 100:g} percentage points and "
        f"three standard errors (days of {t.null_min_rows} rows or more).",
        judge,
        Severity.WARN,
        mend="`heap-assets catalogue accept` takes new ones in; a vanished one was untracked or unmapped."
        if asset.startswith("heap/")
        else "map a new one in `warehouse.tables` if it is wanted; ask the loader's owner for one that is gone.",
    )


def shrink_check(asset: str, t: Thresholds) -> Check:
    def judge(s: Subject) -> Verdict:
        return baselines.not_shrunk(facts_of(s).rows, _rows_before(s), t)

    return Check(
        asset,
        "not_shrunk",
        f"The snapshot has not lost more than {t.max_shrink:.0%} of its rows since the one before.",
        judge,
        blocking=True,
        mend="look at the source's last load; if the rows are gone for good, raise checks.max_shrink for one run.",
    )


def _rows_before(s: Subject) -> int | None:
    for back in range(1, _SNAPSHOT_GAP_DAYS + 1):
        found = s.lake.find(s.asset, str(s.day - timedelta(days=back)))
        if found is not None:
            return found.rows
    return None
