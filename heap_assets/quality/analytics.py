"""Results of analytics from day to day; rules and checks."""

from __future__ import annotations

from heap_assets.quality.engine import Check, CheckContext
from heap_assets.quality.measures import facts_of, rows_before
from heap_assets.quality.results import CheckResult, Severity


def checks_for_analytics(asset: str) -> list[Check]:
    """Return the checks of `analytics/<name>`."""
    return [
        Check(
            asset,
            "result_has_rows",
            "The result has rows if that of the newest day before had some.",
            _result_has_rows,
            Severity.WARN,
            remedy="an event, a property or a trait that it names has stopped: `heap-assets query` prints its SQL.",
        )
    ]


def _result_has_rows(s: CheckContext) -> CheckResult:
    rows, before = facts_of(s).rows, rows_before(s) or 0
    return CheckResult(rows > 0 or before == 0, {"rows": rows, "rows_before": before})
