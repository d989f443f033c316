"""Comparisons of a day's figures with earlier days, robust against weekly seasons, growth and small numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import median

from heap_assets.quality.results import CheckResult, Number, nothing_to_compare
from heap_assets.quality.thresholds import Thresholds

_WEEKS_TO_TREND = 4
_PAIRS_TO_TELL = 4
_ROWS_OF_A_PERSON = 10
"""Design effect: rows of one person in a day are alike, so shares vary more than the number of rows suggests."""


def volume_as_usual(
    rows: int, same_weekdays: Sequence[Number], thresholds: Thresholds, week: float | None = None
) -> CheckResult:
    """Compare a day's rows with the same weekday of earlier weeks.

    Two expectations, and being near one of them is enough: the median of the weekday times its usual growth, and last
    week's weekday times how this week compares with last week so far. Tolerated is `volume_change` of the expectation,
    or four times the median deviation if that is more, plus three standard deviations of a count of that size.

    `same_weekdays`: rows of the same weekday, newest first; weeks without a partition are left out. `week`: rows of the
    six days before, as a multiple of the same days a week earlier; None if not known.
    """
    history = _since_it_began(same_weekdays[: thresholds.volume_weeks])
    if len(history) < thresholds.volume_min_weeks:
        reason = f"{len(history)} of {thresholds.volume_min_weeks} weeks are there to compare with"
        return nothing_to_compare(reason, {"rows": rows})
    expectations = [median(history) * _growth(history)]
    if week is not None:
        expectations.append(history[0] * min(max(week, 0.5), 2.0))
    spread = median(abs(count - median(history)) for count in history)
    bands = [(e, max(thresholds.volume_change * e, 4 * spread) + 3 * e**0.5) for e in expectations]
    quiet = max(rows, *expectations) < thresholds.volume_min_rows
    return CheckResult(
        passed=quiet or any(abs(rows - expected) <= tolerated for expected, tolerated in bands),
        numbers={
            "rows": rows,
            "expected_rows": round(expectations[0]),
            "at_least": max(round(min(expected - tolerated for expected, tolerated in bands)), 0),
            "at_most": round(max(expected + tolerated for expected, tolerated in bands)),
        },
        notes={"said": "too few rows to tell"} if quiet else {},
    )


def week_against_last(rows_by_days_back: Mapping[int, Number]) -> float | None:
    """Return the rows of the six days before as a multiple of the same days a week earlier; None if too few are known.

    The keys of `rows_by_days_back` are days back: 1 is the day before.
    """
    pairs = [
        (rows_by_days_back[n], rows_by_days_back[n + 7])
        for n in range(1, 7)
        if n in rows_by_days_back and n + 7 in rows_by_days_back
    ]
    before = sum(old for _, old in pairs)
    return sum(new for new, _ in pairs) / before if len(pairs) >= _PAIRS_TO_TELL and before else None


def filled_as_usual(
    rows: int,
    null_shares: Mapping[str, float],
    earlier: Sequence[tuple[int, Mapping[str, float]]],
    thresholds: Thresholds,
) -> CheckResult:
    """Check that no column has a larger share of nulls than it used to have.

    Days of fewer than `null_min_rows` rows are neither checked nor compared with. Tolerated is `null_change` above the
    median of the earlier days, plus three standard errors of the difference between two shares, for which
    :data:`_ROWS_OF_A_PERSON` rows count as one.

    `null_shares`: column to its share of nulls today. `earlier`: rows, and the same, of earlier days, newest first.
    """
    memory = {"null_shares": {name: round(share, 4) for name, share in null_shares.items()}, "rows": rows}
    if rows < thresholds.null_min_rows:
        return CheckResult(passed=True, numbers={"rows": rows}, notes={"said": "too few rows to remark"}, memory=memory)
    large = [(count, shares) for count, shares in earlier if count >= thresholds.null_min_rows]
    if len(large) < thresholds.null_min_days:
        reason = f"{len(large)} of {thresholds.null_min_days} days are there to compare the share of nulls with"
        return nothing_to_compare(reason, {"rows": rows}, memory)
    worse: dict[str, float] = {}
    for name, share in null_shares.items():
        earlier_shares = [(count, shares[name]) for count, shares in large if name in shares]
        if len(earlier_shares) >= thresholds.null_min_days:
            usual = median(of_day for _, of_day in earlier_shares)
            chance = 3 * _error(usual, rows, sum(count for count, _ in earlier_shares))
            if share - usual > thresholds.null_change + chance:
                worse[name] = share - usual
    return CheckResult(
        passed=not worse,
        numbers={
            "rows": rows,
            "emptier_columns": len(worse),
            "worst_rise": round(max(worse.values(), default=0.0), 4),
        },
        notes={"emptier": ", ".join(sorted(worse))} if worse else {},
        memory=memory,
    )


def _error(share: float, rows: int, rows_before: int) -> float:
    """Return the standard error of the difference between the shares of two samples with a common `share`.

    One success and one failure are added to the earlier sample (Laplace), so that a share of 0 has an error too.
    """
    now, before = rows / _ROWS_OF_A_PERSON, rows_before / _ROWS_OF_A_PERSON
    likely = (share * before + 1) / (before + 2)
    return float((likely * (1 - likely) * (1 / now + 1 / before)) ** 0.5)


def columns_as_before(
    columns: Mapping[str, str], before: Mapping[str, str] | None, uncatalogued: Sequence[str] = ()
) -> CheckResult:
    """Check that a table has the columns and types that it had; Heap adds a column when a team tracks a property.

    `columns` and `before`: column to type, today and when last checked (None: never). `uncatalogued`: columns that
    landing found and that the catalogue does not have yet.
    """
    memory = {"columns": dict(columns)}
    if before is None and not uncatalogued:
        return nothing_to_compare("no earlier day tells the columns", {"columns": len(columns)}, memory)
    before = columns if before is None else before
    new = sorted({*columns} - {*before} | {*uncatalogued})
    vanished = sorted({*before} - {*columns})
    retyped = sorted(name for name in {*columns} & {*before} if columns[name] != before[name])
    changes = {"new": new, "vanished": vanished, "retyped": retyped}
    return CheckResult(
        passed=not (new or vanished or retyped),
        numbers={"columns": len(columns), **{f"{kind}_columns": len(names) for kind, names in changes.items()}},
        notes={kind: ", ".join(names[:20]) for kind, names in changes.items() if names},
        memory=memory,
    )


def not_risen(name: str, count: int, earlier: Sequence[Number], allowed_rise: float, least: int) -> CheckResult:
    """Check that a count (called `name` in the metadata) is not far above its median of the days before.

    It may rise by `allowed_rise` of the median plus two standard deviations of a count of that size; rises of fewer
    than `least` always pass.
    """
    if not earlier:
        return nothing_to_compare("there is no earlier day to compare with", {name: count})
    usual = median(float(n) for n in earlier)
    rise = count - usual
    return CheckResult(
        passed=rise < least or rise <= allowed_rise * usual + 2 * usual**0.5,
        numbers={name: count, f"usual_{name}": round(usual, 1), "rise": round(rise, 1)},
    )


def not_fallen(shares: Mapping[str, float], earlier: Sequence[Mapping[str, float]], allowed_fall: float) -> CheckResult:
    """Check that no share has fallen more than `allowed_fall` points below its median of the days before."""
    numbers, memory = {name: round(share, 4) for name, share in shares.items()}, {"shares": dict(shares)}
    if shares and not any(name in day for day in earlier for name in shares):
        return nothing_to_compare("there is no earlier day to compare with", numbers, memory)
    fallen: dict[str, float] = {}
    for name, share in shares.items():
        before = [day[name] for day in earlier if name in day]
        if before and median(before) - share > allowed_fall:
            fallen[name] = median(before) - share
    return CheckResult(
        passed=not fallen,
        numbers={**numbers, "fallen": len(fallen)},
        notes={"fallen_below_usual": ", ".join(sorted(fallen))} if fallen else {},
        memory=memory,
    )


def not_shrunk(rows: int, rows_before: int | None, thresholds: Thresholds) -> CheckResult:
    """Check that a snapshot has not lost more than `max_shrink` of its rows since the one before it."""
    if rows_before is None:
        return nothing_to_compare("there is no earlier snapshot to compare with", {"rows": rows})
    if rows_before < thresholds.shrink_min_rows:
        return CheckResult(passed=True, numbers={"rows": rows}, notes={"said": "too few rows to remark"})
    lost = max(rows_before - rows, 0) / rows_before
    return CheckResult(
        passed=lost <= thresholds.max_shrink,
        numbers={
            "rows": rows,
            "rows_before": rows_before,
            "lost_share": round(lost, 4),
            "allowed_share": thresholds.max_shrink,
        },
    )


def _since_it_began(counts: Sequence[Number]) -> list[float]:
    """Leave out the weeks before a table's first row."""
    history = [float(count) for count in counts]
    while history and history[-1] == 0:
        history.pop()
    return history


def _growth(history: Sequence[float]) -> float:
    """Return the usual growth from the middle of the window to today as a factor; 1.0 if there are too few weeks."""
    ratios = [new / old for new, old in pairwise(history) if old > 0 and new > 0]
    if len(ratios) < _WEEKS_TO_TREND - 1:
        return 1.0
    weekly = min(max(median(ratios), 0.8), 1.25)
    return float(weekly ** ((len(history) + 1) / 2))
