"""Audiences: their sizes from day to day; rules and checks."""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from heap_assets.profiles import current_members
from heap_assets.quality.engine import Check, CheckContext
from heap_assets.quality.results import CheckResult, Severity, nothing_to_compare
from heap_assets.quality.thresholds import Thresholds
from heap_assets.tables import AUDIENCES


def checks_for_audiences(thresholds: Thresholds | None = None, path: str = AUDIENCES) -> list[Check]:
    """Return the checks of `audiences`, or of the table of accounts' audiences."""
    t = thresholds or Thresholds()
    return [
        Check(
            path,
            "members_as_usual",
            f"No audience has {t.audience_change:.0%} more or fewer members than the day before.",
            lambda s: _members(s, t, path),
            Severity.WARN,
            remedy="a trait, an event or the definition has changed: see what feeds the audience.",
        )
    ]


def _members(s: CheckContext, t: Thresholds, path: str) -> CheckResult:
    yesterday = s.other(path, days_back=1)
    now = _sizes(s.rows())
    numbers = {f"members_{name}": count for name, count in sorted(now.items())}
    if yesterday is None:
        return nothing_to_compare(f"{s.day - timedelta(days=1)} has not been built", numbers)
    before = _sizes(yesterday)
    changed = [
        name
        for name in sorted({*now, *before})
        if abs(now.get(name, 0) - before.get(name, 0)) > max(t.audience_min, t.audience_change * before.get(name, 0))
    ]
    return CheckResult(not changed, numbers, {"changed": ", ".join(changed)} if changed else {})


def _sizes(rows: pl.LazyFrame) -> dict[str, int]:
    return dict(current_members(rows).group_by("audience").agg(pl.len()).collect().rows())
