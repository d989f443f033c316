"""Ask before doing something unusual: a broken source should not become a broken destination."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import polars as pl

from heap_assets.activation.engine.difference import OLD, Plan, Prepared
from heap_assets.activation.engine.hashing import UNKNOWN
from heap_assets.activation.engine.log import FIELD
from heap_assets.activation.engine.spec import Guard


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
        *_takeover(guard, plan, prepared, ledger),
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


def _takeover(guard: Guard, plan: Plan, prepared: Prepared, ledger: pl.DataFrame) -> list[str]:
    """Find a property of which one value spreads over keys that had another: a default that overwrites."""
    found = []
    for name in prepared.names:
        new, old = FIELD + name, OLD + name
        if old not in plan.send.columns or new not in ledger.columns:
            continue
        known = int((ledger[new] > UNKNOWN).sum())
        moved = plan.send.filter(pl.col(old) > UNKNOWN, pl.col(new) > UNKNOWN, pl.col(new) != pl.col(old))
        taken = moved.group_by(new).len().sort("len", descending=True).head(3)
        gains = [rows - int((moved[old] == value).sum()) for value, rows in taken.iter_rows()]
        if gains and max(gains) > guard.takeover * known:
            found.append(f"one value of {name} would spread to {max(gains) / known:.0%} more of the keys that have one")
    return found
