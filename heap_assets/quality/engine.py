"""A check as data: which asset, which rule, how bad, and the judge; no Dagster here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, TypeVar

import polars as pl

from heap_assets.quality import result_store
from heap_assets.quality.result_store import WHOLE, StoredVerdict
from heap_assets.quality.results import Severity, Verdict
from heap_assets.storage import Lake, Store

T = TypeVar("T")
_KEPT_IN_STEP = 64


@dataclass(frozen=True)
class Subject:
    """One partition of one asset as a judge sees it; what several judges need is computed once.

    `shared` belongs to (asset, partition), so the checks of one table cost one pass over its rows; `step_shared`
    belongs to the step, for what 200 tables of one day hold themselves against.
    """

    lake: Lake
    asset: str
    partition: str
    check: str = ""
    shared: dict[str, Any] = field(default_factory=dict)
    step_shared: dict[str, Any] = field(default_factory=dict)

    @property
    def day(self) -> date:
        return date.fromisoformat(self.partition)

    def rows(self) -> pl.LazyFrame:
        """Return the rows of the partition; MissingInputError if it was never built."""
        return self.lake.scan(self.asset, None if self.partition == WHOLE else self.partition)

    def other(self, asset: str, days_back: int = 0) -> pl.LazyFrame | None:
        """Return the rows of another asset (or another day of this one), None if that was never built."""
        partition = str(self.day - timedelta(days=days_back))
        return self.lake.scan(asset, partition) if self.lake.store.exists(self.lake.key(asset, partition)) else None

    def notes(self) -> dict[str, Any]:
        """Return what the writer of the partition noted in its footer."""
        return self.once("notes", self._notes)

    def earlier(self, days: int) -> list[StoredVerdict]:
        """Return this check's verdicts of up to `days` days before, newest first."""
        return self.earlier_days(range(1, days + 1))

    def earlier_days(self, days_back: Iterable[int]) -> list[StoredVerdict]:
        """Return this check's verdicts of chosen earlier days, in the order of `days_back`."""
        wanted = [str(self.day - timedelta(days=n)) for n in days_back]
        return result_store.read_many(self.lake.store, self.asset, self.check, wanted)

    def once(self, name: str, compute: Callable[[], T]) -> T:
        """Return `compute()`, computed the first time that any check of this partition asks."""
        if name not in self.shared:
            self.shared[name] = compute()
        found: T = self.shared[name]
        return found

    def once_in_step(self, name: str, compute: Callable[[], T]) -> T:
        """Return `compute()`, computed the first time that any check of the step asks; old ones are let go."""
        if name not in self.step_shared:
            while len(self.step_shared) >= _KEPT_IN_STEP:
                self.step_shared.pop(next(iter(self.step_shared)))
            self.step_shared[name] = compute()
        found: T = self.step_shared[name]
        return found

    def _notes(self) -> dict[str, Any]:
        found = self.lake.find(self.asset, None if self.partition == WHOLE else self.partition)
        return dict(found.notes) if found else {}


Judge = Callable[[Subject], Verdict]


@dataclass(frozen=True)
class Check:
    """One rule on one asset.

    Attributes
    ----------
    rule
        One sentence that says what holds when the check passes; the UI, the alert and the docs use it.
    judge
        None if the step that builds the asset gives the verdict itself (`readable`, `rejected_rows`).
    blocking
        Nothing goes to Heap while it fails.
    partitioned
        False for checks on a whole asset, such as how new its newest row is.
    mend
        What usually mends it.
    """

    asset: str
    name: str
    rule: str
    judge: Judge | None = None
    severity: Severity = Severity.ERROR
    blocking: bool = False
    partitioned: bool = True
    mend: str = ""


def record_check(
    store: Store, check: Check, verdict: Verdict, *, partition: str, version: str | None, run_id: str | None
) -> StoredVerdict:
    """Store the verdict of a check on a partition, see :func:`result_store.record`."""
    return result_store.record(
        store,
        verdict,
        asset=check.asset,
        check=check.name,
        partition=partition,
        version=version,
        severity=check.severity,
        blocking=check.blocking,
        rule=check.rule,
        run_id=run_id,
    )


def blocking_checks(checks: list[Check], asset: str) -> list[str]:
    """Return the names that a sync from `asset` passes to `verdicts.gate`."""
    return [check.name for check in checks if check.asset == asset and check.blocking]
