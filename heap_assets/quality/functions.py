"""Users' functions: rows that they failed on, and columns that they made without being asked to."""

from __future__ import annotations

import polars as pl

from heap_assets.quality.engine import Check, CheckContext
from heap_assets.quality.results import SAMPLE_ROWS, CheckResult, Severity, share_within
from heap_assets.quality.thresholds import Thresholds

_REJECTED_ROWS = {"key": pl.String(), "place": pl.String(), "reason": pl.String()}


def checks_for_function(asset: str, t: Thresholds) -> list[Check]:
    """Return the checks of a table whose rows a function makes; its writer noted what became of the rows."""

    def rejected(s: CheckContext) -> CheckResult:
        notes = s.notes()
        count, rows = int(notes.get("function_rejected", 0)), int(notes.get("function_rows", 0))
        numbers = {"rows": rows, "rejected": count}
        numbers |= {name: int(notes.get(f"function_{name}", 0)) for name in ("dropped", "split")}
        reasons = {str(reason): str(times) for reason, times in dict(notes.get("function_reasons", {})).items()}
        result = share_within(count, rows, t.function_rejected, numbers)
        sample = list(notes.get("function_rejected_rows", []))[:SAMPLE_ROWS]
        offenders = pl.DataFrame(sample, schema=_REJECTED_ROWS) if sample else None
        return CheckResult(result.passed, result.numbers, reasons, offenders, tuple(_REJECTED_ROWS))

    def declared(s: CheckContext) -> CheckResult:
        undeclared = {str(name): str(times) for name, times in dict(s.notes().get("function_undeclared", {})).items()}
        return CheckResult(not undeclared, {"undeclared_columns": len(undeclared)}, undeclared)

    return [
        Check(
            asset,
            "function_rejected_rows",
            f"At most {t.function_rejected:.2%} of the rows were rejected by the table's function.",
            rejected,
            remedy="the reasons name file, line and column; `heap-assets function test` runs it on rows of a day.",
        ),
        Check(
            asset,
            "function_columns_declared",
            "The table's function returns no column that its settings do not declare.",
            declared,
            Severity.WARN,
            remedy="add the columns to `columns:` of the function if they are wanted; they are left out until then.",
        ),
    ]
