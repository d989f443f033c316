"""The checks of a dump: read whole, known to the catalogue, and within the month's rows. Landing gives the verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from heap_assets.quality.engine import Check
from heap_assets.quality.results import Severity, Verdict
from heap_assets.quality.thresholds import Thresholds
from heap_assets.sources.heap_connect import DumpReport, Quota

TABLES_LANDED = "every_table_landed"
CATALOGUE = "catalogue_is_complete"
QUOTA = "rows_within_quota"
_NAMES_TOLD = 20


def checks_for_dumps(asset: str, thresholds: Thresholds | None = None) -> list[Check]:
    """Return the checks of `heap_connect/dumps`; one result a dump."""
    t = thresholds or Thresholds()
    return [
        Check(
            asset,
            TABLES_LANDED,
            "Every selected table of the dump was read whole.",
            mend="a table that was not is tried again by itself; the reason names the file.",
        ),
        Check(
            asset,
            CATALOGUE,
            "The dump holds no table or column that the catalogue does not know.",
            severity=Severity.WARN,
            mend="`heap-assets catalogue accept` takes them in.",
        ),
        Check(
            asset,
            QUOTA,
            f"At most {t.quota:.0%} of the month's rows have landed.",
            severity=Severity.WARN,
            mend="leave out tables (`heap.tables`), or raise `heap.quota`; with `heap.quota.stop` the rest waits.",
        ),
    ]


def landed_verdict(report: DumpReport) -> Verdict:
    """Judge that a dump's tables were read whole; reasons name files, never values."""
    reasons = {table.table: table.failure.told for table in report.failed if table.failure}
    return Verdict(not report.failed, {"failed_tables": len(report.failed)}, reasons)


def news_verdict(new_tables: Sequence[str], new_columns: Mapping[str, Sequence[str]]) -> Verdict:
    """Judge a dump's tables and columns against the catalogue."""
    columns = [f"{table}.{name}" for table, names in sorted(new_columns.items()) for name in names]
    notes = {"tables": ", ".join(sorted(new_tables)[:_NAMES_TOLD]), "columns": ", ".join(columns[:_NAMES_TOLD])}
    return Verdict(
        passed=not new_tables and not columns,
        numbers={"new_tables": len(new_tables), "new_columns": len(columns)},
        notes={name: told for name, told in notes.items() if told},
    )


def quota_verdict(quota: Quota, allowed: float) -> Verdict:
    """Judge that the month's rows are not about to run out."""
    if quota.limit is None or quota.share is None:
        return Verdict(passed=True, numbers={"rows_this_month": quota.rows}, notes={"said": "rows are not limited"})
    return Verdict(
        passed=quota.share <= allowed,
        numbers={"rows_this_month": quota.rows, "rows_a_month": quota.limit, "share": quota.share},
        notes={"month": quota.month, "resumes": str(quota.resumes)},
    )
