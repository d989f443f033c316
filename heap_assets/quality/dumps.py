"""What landed of a dump: its tables, the catalogue and the month's quota; rules and checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from heap_assets.quality.engine import Check
from heap_assets.quality.results import CheckResult, Severity
from heap_assets.quality.thresholds import Thresholds
from heap_assets.sources.heap_connect import DumpReport, Quota

TABLES_LANDED = "every_table_landed"
CATALOGUE = "catalogue_is_complete"
QUOTA = "rows_within_quota"
_MAX_NAMES = 20


def checks_for_dumps(asset: str, thresholds: Thresholds | None = None) -> list[Check]:
    """Return the checks of `heap_connect/dumps`; one result a dump."""
    t = thresholds or Thresholds()
    return [
        Check(
            asset,
            TABLES_LANDED,
            "Every selected table of the dump was read whole.",
            remedy="a table that was not is tried again by itself; the reason names the file.",
        ),
        Check(
            asset,
            CATALOGUE,
            "The dump holds no table or column that the catalogue does not know.",
            severity=Severity.WARN,
            remedy="`heap-assets catalogue accept` takes them in.",
        ),
        Check(
            asset,
            QUOTA,
            f"At most {t.quota:.0%} of the month's rows have landed.",
            severity=Severity.WARN,
            remedy="leave out tables (`heap.tables`), or raise `heap.quota`; with `heap.quota.stop` the rest waits.",
        ),
    ]


def landing_result(report: DumpReport) -> CheckResult:
    """Check that a dump's tables were read whole; reasons name files, never values."""
    reasons = {table.table: table.failure.summary for table in report.failed if table.failure}
    return CheckResult(not report.failed, {"failed_tables": len(report.failed)}, reasons)


def catalogue_result(new_tables: Sequence[str], new_columns: Mapping[str, Sequence[str]]) -> CheckResult:
    """Evaluate a dump's tables and columns against the catalogue."""
    columns = [f"{table}.{name}" for table, names in sorted(new_columns.items()) for name in names]
    notes = {"tables": ", ".join(sorted(new_tables)[:_MAX_NAMES]), "columns": ", ".join(columns[:_MAX_NAMES])}
    return CheckResult(
        passed=not new_tables and not columns,
        numbers={"new_tables": len(new_tables), "new_columns": len(columns)},
        notes={name: text for name, text in notes.items() if text},
    )


def quota_result(quota: Quota, allowed: float) -> CheckResult:
    """Check that the month's rows are not about to run out."""
    if quota.limit is None or quota.share is None:
        return CheckResult(passed=True, numbers={"rows_this_month": quota.rows}, notes={"said": "rows are not limited"})
    return CheckResult(
        passed=quota.share <= allowed,
        numbers={"rows_this_month": quota.rows, "rows_a_month": quota.limit, "share": quota.share},
        notes={"month": quota.month, "resumes": str(quota.resumes)},
    )
