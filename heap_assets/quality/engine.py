"""A check as data: which asset, which rule, how severe, and the function that evaluates it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, TypeVar, cast

import polars as pl

from heap_assets.errors import MissingInputError
from heap_assets.quality import result_store
from heap_assets.quality.result_store import ALL_PARTITIONS, StoredResult
from heap_assets.quality.results import CheckResult, Severity, nothing_to_compare
from heap_assets.storage import Lake, Store, is_marker

T = TypeVar("T")
_CACHE_ENTRIES = 64
_READ_AT_ONCE = 4 << 20
"""Bytes of a partition up to which checks share its rows in memory."""


@dataclass(frozen=True)
class CheckContext:
    """One partition of one asset, as a check reads it.

    `shared` caches what several checks of the partition need, `step_shared` what all partitions of one step need.
    """

    lake: Lake
    asset: str
    partition: str
    check: str = ""
    shared: dict[str, Any] = field(default_factory=dict)
    step_shared: dict[str, Any] = field(default_factory=dict)
    recorded: Mapping[tuple[str, str], StoredResult] = field(default_factory=dict)
    """Results that the step itself has stored for the asset, by check and partition: they need not be read again."""

    @property
    def day(self) -> date:
        return date.fromisoformat(self.partition)

    def rows(self) -> pl.LazyFrame:
        """Return the rows of the partition, read once if it is small; MissingInputError if it was never built."""
        return self.once("rows", self._rows)

    def other(self, asset: str, days_back: int = 0) -> pl.LazyFrame | None:
        """Return the rows of another asset (or another day of this one), None if that was never built."""
        try:
            return self.lake.scan(asset, str(self.day - timedelta(days=days_back)))
        except MissingInputError:
            return None

    def notes(self) -> dict[str, Any]:
        """Return the notes in the partition's footer, as its writer stored them."""
        return self.once("notes", self._notes)

    def earlier(self, days: int) -> list[StoredResult]:
        """Return this check's results of up to `days` days before, newest first."""
        return self.earlier_days(range(1, days + 1))

    def earlier_days(self, days_back: Iterable[int]) -> list[StoredResult]:
        """Return this check's results of chosen earlier days, in the order of `days_back`."""
        partitions = [str(self.day - timedelta(days=n)) for n in days_back]
        results = {day: self.recorded.get((self.check, day)) for day in partitions}
        unread = [day for day, result in results.items() if result is None]
        if not self.lake.store.is_local:  # each that there is not would be a request
            stored = self.cached(_listing(self.asset, self.check), self._stored)
            unread = [day for day in unread if day in stored]
        read = result_store.read_many(self.lake.store, self.asset, self.check, unread)
        results |= {result.partition: result for result in read}
        return [result for result in results.values() if result is not None]

    def once(self, name: str, compute: Callable[[], T]) -> T:
        """Return `compute()`, cached for all checks of this partition."""
        if name not in self.shared:
            self.shared[name] = compute()
        return cast(T, self.shared[name])

    def cached(self, name: str, compute: Callable[[], T]) -> T:
        """Return `compute()`, cached by `name` over all partitions of a Dagster step; the oldest are evicted."""
        if name not in self.step_shared:
            while len(self.step_shared) >= _CACHE_ENTRIES:
                self.step_shared.pop(next(iter(self.step_shared)))
            self.step_shared[name] = compute()
        return cast(T, self.step_shared[name])

    @property
    def _key(self) -> str | None:
        return None if self.partition == ALL_PARTITIONS else self.partition

    def _rows(self) -> pl.LazyFrame:
        key, store = self.lake.key(self.asset, self._key), self.lake.store
        info = store.head(key)
        if info is None or info.size > _READ_AT_ONCE:
            return self.lake.scan(self.asset, self._key)
        rows = pl.read_parquet(io.BytesIO(store.read_stored(key))).lazy()
        return self.lake.scan(self.asset, self._key) if is_marker(rows.collect_schema()) else rows

    def _stored(self) -> set[str]:
        return result_store.partitions(self.lake.store, self.asset, self.check)

    def _notes(self) -> dict[str, Any]:
        partition = self.lake.find(self.asset, self._key)
        return dict(partition.notes) if partition else {}


def add_stored(step_shared: Mapping[str, Any], results: Iterable[StoredResult]) -> None:
    """Add results that a step has stored to what it knows to be there."""
    for result in results:
        step_shared.get(_listing(result.asset, result.check), set()).add(result.partition)


def _listing(asset: str, check: str) -> str:
    return f"partitions with a result of {check} on {asset}"


Evaluate = Callable[[CheckContext], CheckResult]


@dataclass(frozen=True)
class Check:
    """One rule on one asset."""

    asset: str
    name: str
    rule: str
    """One sentence that says what holds when the check passes; the UI, the alert and the docs use it."""
    evaluate: Evaluate | None = None
    """None if the step that builds the asset reports the result itself (`readable`)."""
    severity: Severity = Severity.ERROR
    blocking: bool = False
    """Nothing goes to Heap while it fails."""
    partitioned: bool = True
    """False for checks on a whole asset, such as how new its newest row is."""
    remedy: str = ""
    """What usually puts it right."""
    plotted: tuple[str, ...] = ()
    """Numbers of its results that the table's own metadata carries too: they plot over days, those of checks do not."""


def with_table(asset: str, rule: Callable[[CheckContext, pl.LazyFrame], CheckResult]) -> Evaluate:
    """Return a rule that also reads another asset's partition of the day; without it there is nothing to compare."""

    def evaluate(s: CheckContext) -> CheckResult:
        rows = s.other(asset)
        return nothing_to_compare(f"{asset} has not been built for this day") if rows is None else rule(s, rows)

    return evaluate


def record_check(
    store: Store, check: Check, result: CheckResult, *, partition: str, version: str | None, run_id: str | None
) -> StoredResult:
    """Store the result of a check on a partition, see :func:`result_store.record`."""
    return result_store.record(
        store,
        result,
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
    """Return the names that a sync from `asset` passes to :func:`result_store.gate`."""
    return [check.name for check in checks if check.asset == asset and check.blocking]
