"""Ask before doing something unusual: a broken source should not become a broken destination."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import polars as pl

from heap_assets.destinations.difference import Plan, Prepared
from heap_assets.destinations.hashing import UNKNOWN
from heap_assets.destinations.log import FIELD
from heap_assets.destinations.spec import Guard


def concerns(
    guard: Guard, plan: Plan, prepared: Prepared, ledger: pl.DataFrame, changed_before: Sequence[float]
) -> list[str]:
    """Say what is unusual about an upsert plan; an empty list means that it can be sent.

    Parameters
    ----------
    changed_before
        Share of known keys changed by each of the last seven runs.
    """
    known = plan.counts["known"]
    if known < guard.at_least:
        return []
    return [
        *_removal(guard, plan.counts["withdrawn"], known),
        *([] if plan.full_resend_reason else _change(guard, plan.counts["changed"], known, changed_before)),
        *_takeover(guard, prepared, ledger),
    ]


def _removal(guard: Guard, withdrawn: int, known: int) -> list[str]:
    if withdrawn <= guard.removed * known:
        return []
    return [
        f"{withdrawn} of {known} keys ({withdrawn / known:.0%}) would lose a value; up to {guard.removed:.0%} is usual"
    ]


def _change(guard: Guard, changed: int, known: int, before: Sequence[float]) -> list[str]:
    share = changed / known
    usual = median(before) if before else None
    if usual is None or share <= guard.changed or share <= guard.changed_times_median * usual:
        return []
    return [f"{changed} of {known} keys ({share:.0%}) would change; the median of the last runs is {usual:.1%}"]


def _takeover(guard: Guard, prepared: Prepared, ledger: pl.DataFrame) -> list[str]:
    """Find a property of which one value spreads: a default that overwrites what was known."""
    found = []
    for name in prepared.names:
        column = FIELD + name
        if column not in ledger.columns or not len(prepared.rows):
            continue
        before = ledger.filter(pl.col(column) > UNKNOWN)[column]
        now = prepared.rows[column].drop_nulls()
        if not len(before) or not len(now):
            continue
        count = pl.len()
        top = now.to_frame().group_by(column).agg(n=count).sort("n", descending=True).head(3)
        for value, rows in top.iter_rows():
            gained = rows / len(prepared.rows) - int((before == value).sum()) / len(ledger)
            if gained > guard.takeover:
                found.append(f"one value of {name} would spread to {gained:.0%} more of the keys")
    return found
