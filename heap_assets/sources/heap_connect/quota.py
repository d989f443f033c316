"""Rows a month against the plan: counted durably with each landing, never estimated."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum

import polars as pl

from heap_assets.sources.heap_connect.landing import Landing

WARN_AT = 0.8
FREE_DAYS = 7
USAGE_SCHEMA = pl.Schema({"day": pl.Date(), "month": pl.String(), "rows": pl.Int64(), "free": pl.Boolean()})


class Plan(StrEnum):
    """Heap's plans, which differ in rows a calendar month and in how often they export."""

    GROWTH = "growth"
    PRO = "pro"
    PREMIER = "premier"


ROWS_A_MONTH: dict[Plan, int | None] = {Plan.GROWTH: 100_000, Plan.PRO: 1_000_000, Plan.PREMIER: None}
FASTEST: dict[Plan, timedelta] = {
    Plan.GROWTH: timedelta(days=1),
    Plan.PRO: timedelta(hours=1),
    Plan.PREMIER: timedelta(0),
}


class QuotaStatus(StrEnum):
    """A month's usage compared with the limit."""

    WITHIN = "within"
    WARN = "warn"
    REACHED = "reached"


@dataclass(frozen=True)
class Quota:
    """A month's rows against its limit (None: unlimited). `resumes` is the first day of the next month."""

    month: str
    rows: int
    limit: int | None
    status: QuotaStatus
    resumes: date

    @property
    def share(self) -> float | None:
        return None if self.limit is None else self.rows / self.limit


def usage(landing: Landing) -> pl.DataFrame:
    """Return rows read by UTC day of landing; what landed again counts again.

    `free` marks the first seven days after the first landing.
    """
    rows: Counter[date] = Counter()
    for record in landing.records().values():
        rows.update(record.metered)
    first = min(rows, default=None)
    days = [(d, f"{d:%Y-%m}", n, first is not None and (d - first).days < FREE_DAYS) for d, n in sorted(rows.items())]
    return pl.DataFrame(days, schema=USAGE_SCHEMA, orient="row")


def quota(
    landing: Landing,
    plan: Plan | str,
    now: datetime,
    *,
    rows_a_month: int | None = None,
    count_free_days: bool = True,
) -> Quota:
    """Return the usage of the running month.

    The caller stops between dumps and never inside one: the next dump waits until :attr:`Quota.resumes`.

    Parameters
    ----------
    rows_a_month
        A limit that replaces the plan's.
    count_free_days
        Whether rows of the first seven days count.
    """
    month = f"{now.astimezone(UTC):%Y-%m}"
    counted = usage(landing).filter(pl.col("month") == month)
    if not count_free_days:
        counted = counted.filter(~pl.col("free"))
    rows = int(counted["rows"].sum())
    limit = ROWS_A_MONTH[Plan(plan)] if rows_a_month is None else rows_a_month
    if limit is None or rows < WARN_AT * limit:
        status = QuotaStatus.WITHIN
    else:
        status = QuotaStatus.WARN if rows < limit else QuotaStatus.REACHED
    first = now.astimezone(UTC).date().replace(day=1)
    return Quota(month, rows, limit, status, (first + timedelta(days=32)).replace(day=1))
