"""One report for a sync that keeps several ledgers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import fields
from datetime import date
from typing import Any

from heap_assets.activation import Status, SyncReport

_WORST_FIRST = (
    *(Status.STOPPED, Status.REFUSED, Status.NEEDS_CONFIRMATION, Status.BLOCKED, Status.PARTIAL, Status.SUPERSEDED),
    *(Status.PLANNED, Status.SUCCEEDED),
)
_SAMPLE = 10


def merged(
    name: str,
    kind: str,
    run_id: str,
    day: date,
    reports: Mapping[str, SyncReport],
    left_out: Mapping[str, str],
    status: Status = Status.SUCCEEDED,
) -> SyncReport:
    """Add up the reports of a sync's tables; a sync without tables has one, which is returned.

    Its status is the worst of them; a table that was left out makes the whole `partial`, all of them `blocked`.
    """
    if "" in reports:
        return reports[""]
    every = list(reports.values())
    worst = min((r.status for r in every), key=_WORST_FIRST.index, default=status)
    if left_out and worst is Status.SUCCEEDED:
        worst = Status.PARTIAL if every else Status.BLOCKED
    told = [f"{table}: {r.reason}" for table, r in reports.items() if r.reason]
    told += [f"{table} left out: {reason}" for table, reason in left_out.items()]
    facts: dict[str, Any] = {"reason": "; ".join(told) or None}
    for known in fields(SyncReport):
        if known.name in facts or known.name in (
            "sync",
            "destination",
            "run_id",
            "day",
            "status",
            "full_resend_reason",
        ):
            continue
        facts[known.name] = _added(known.name, [getattr(report, known.name) for report in every])
    return SyncReport(name, kind, run_id, day, worst, **{k: v for k, v in facts.items() if v is not None})


def _added(name: str, values: list[Any]) -> Any:
    if not values:
        return None
    if isinstance(values[0], dict):
        counted: Counter[str] = Counter()
        for value in values:
            counted.update(value)
        return dict(counted)
    if isinstance(values[0], tuple):
        return _distinct(values)[: _SAMPLE if name == "sample" else None]
    return sum(values)


def _distinct(values: Iterable[tuple[Any, ...]]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(one for value in values for one in value))
