"""The data of the status page, read from stored check results and the runs of syncs, never from raw rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from heap_assets.quality import ALL_PARTITIONS, Severity, StoredResult, result_store
from heap_assets.storage import Lake, Store, state_keys
from heap_assets.tables import ANALYTICS, WAREHOUSE_SOURCE, is_event_table, is_warehouse_table

RECENCY = ("newest_row_is_recent", "newest_complete_day_delivered")
GROUP_ORDER = ("heap_connect", "heap", "warehouse", "identity", "profiles", "audit", "sync")

Series = Mapping[str, Mapping[str, float]]
"""Name of a line to day (YYYY-MM-DD) to value."""


@dataclass(frozen=True)
class SyncRun:
    """One run of a sync, in counts."""

    sync: str
    day: str
    status: str
    finished_at: datetime | None
    counts: Mapping[str, int]
    reason: str = ""


@dataclass(frozen=True)
class Status:
    """The data of the whole page."""

    at: datetime
    days: Sequence[str]
    """Days of the page, oldest first."""
    newest: Sequence[StoredResult]
    """The newest result of every check, worst first."""
    freshness: Sequence[StoredResult]
    strips: Mapping[str, Mapping[str, str]]
    """Asset to day to the worst outcome of that day: `pass`, `warn`, `error`, or `unjudged`."""
    volumes: Series
    """Asset to rows by day."""
    duplicates: Series
    matches: Series
    identity: Series
    cluster_sizes: Mapping[str, int]
    figures: Mapping[str, float]
    syncs: Sequence[SyncRun] = field(default=())
    results: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Analytics result to its newest chart: title, unit, bars."""

    @property
    def failing(self) -> list[StoredResult]:
        """Return the newest results that failed, errors before warnings."""
        return [result for result in self.newest if result.failed]

    @property
    def unjudged(self) -> list[StoredResult]:
        """Return the newest results of checks that were not evaluated, those that raised an error first."""
        return sorted((v for v in self.newest if v.not_judged), key=lambda v: v.passed)


def outcome(result: StoredResult) -> str:
    """Return `pass`, `warn`, `error` or `unjudged`."""
    if result.not_judged:
        return "unjudged"
    if result.passed:
        return "pass"
    return "error" if result.severity is Severity.ERROR else "warn"


def collect(lake: Lake, now: datetime, days: int = 30, *, remember: bool = False) -> Status:
    """Collect the check results and sync runs of the last `days` days.

    `remember`: keep them in one object of the lake, so that the next time only what changed is read.
    """
    shown = [str(now.date() - timedelta(days=back)) for back in range(days, -1, -1)]
    results = result_store.newest_remembered(lake.store, shown[0], remember=remember)
    by_day = [result for result in results if result.partition != ALL_PARTITIONS]
    newest = _newest_of_each(results)
    return Status(
        at=now,
        days=shown,
        newest=newest,
        freshness=sorted(
            (v for v in newest if v.check in RECENCY),
            key=lambda v: (not v.failed, -float(v.numbers.get("hours_behind", 1e9)), v.asset),
        ),
        strips=_strips(by_day),
        volumes=_numbers_by_asset(by_day, "volume_as_usual", "rows")
        | _numbers_by_asset((v for v in by_day if not is_event_table(v.asset)), "not_shrunk", "rows"),
        duplicates=_duplicates(by_day),
        matches=_prefixed(by_day, "matched_as_before", "matched_"),
        identity=_lines(
            by_day,
            {
                "conflicts": ("conflicts_as_usual", "conflicts"),
                "shared values": ("shared_as_usual", "shared_values"),
            },
        ),
        cluster_sizes=_cluster_sizes(by_day),
        figures=_figures(by_day),
        syncs=_sync_runs(lake.store, shown[0]),
        results=_charts(lake, shown[0]),
    )


def _charts(lake: Lake, since: str) -> dict[str, Mapping[str, Any]]:
    """Return the charts that were stored with the newest results of analytics."""
    newest: dict[str, str] = {}
    for info in lake.store.list(ANALYTICS.rstrip("/")):
        asset, _, key = info.key.removesuffix(".parquet").rpartition("/")
        if key >= max(since, newest.get(asset, "")):
            newest[asset] = key
    partitions = {asset: lake.find(asset, key) for asset, key in sorted(newest.items())}
    charts = {asset: partition.notes.get("chart") for asset, partition in partitions.items() if partition is not None}
    return {asset.removeprefix(ANALYTICS): chart for asset, chart in charts.items() if isinstance(chart, Mapping)}


def _newest_of_each(results: Iterable[StoredResult]) -> list[StoredResult]:
    newest: dict[tuple[str, str], StoredResult] = {}
    for result in results:
        other = newest.get((result.asset, result.check))
        if other is None or result.partition > other.partition:
            newest[result.asset, result.check] = result
    worst_first = {"error": 0, "warn": 1, "unjudged": 2, "pass": 3}
    return sorted(
        newest.values(), key=lambda v: (worst_first[outcome(v)], not v.blocking, _rank(v.asset), v.asset, v.check)
    )


def _rank(asset: str) -> int:
    group = WAREHOUSE_SOURCE if is_warehouse_table(asset) else asset.partition("/")[0]
    return GROUP_ORDER.index(group) if group in GROUP_ORDER else len(GROUP_ORDER)


def _strips(by_day: Iterable[StoredResult]) -> dict[str, dict[str, str]]:
    strips: dict[str, dict[str, str]] = defaultdict(dict)
    rank = {"unjudged": 0, "pass": 1, "warn": 2, "error": 3}
    for result in by_day:
        worst = strips[result.asset].get(result.partition, "unjudged")
        strips[result.asset][result.partition] = max(worst, outcome(result), key=rank.__getitem__)
    return dict(sorted(strips.items(), key=lambda item: (_rank(item[0]), item[0])))


def _numbers_by_asset(by_day: Iterable[StoredResult], check: str, number: str) -> dict[str, dict[str, float]]:
    series: dict[str, dict[str, float]] = defaultdict(dict)
    for result in by_day:
        if result.check == check and number in result.numbers:
            series[result.asset][result.partition] = float(result.numbers[number])
    return dict(series)


def _lines(by_day: Sequence[StoredResult], figures: Mapping[str, tuple[str, str]]) -> dict[str, dict[str, float]]:
    lines = {}
    for name, (check, number) in figures.items():
        line = {v.partition: float(v.numbers[number]) for v in by_day if v.check == check and number in v.numbers}
        if line:
            lines[name] = line
    return lines


def _prefixed(by_day: Iterable[StoredResult], check: str, prefix: str) -> dict[str, dict[str, float]]:
    lines: dict[str, dict[str, float]] = defaultdict(dict)
    for result in by_day:
        if result.check == check:
            for name, value in result.numbers.items():
                if name.startswith(prefix):
                    lines[name.removeprefix(prefix)][result.partition] = float(value)
    return dict(lines)


def _duplicates(by_day: Sequence[StoredResult]) -> dict[str, dict[str, float]]:
    lines = _lines(
        by_day,
        {
            "people on several Heap identities": ("one_identity_per_profile", "profiles_on_several_identities"),
            "identities on several profiles": ("one_profile_per_identity", "identities_on_several_profiles"),
            "people with an anonymous twin": ("no_anonymous_twins", "profiles_with_anonymous_twin"),
        },
    )
    split: dict[str, float] = defaultdict(float)
    for result in by_day:
        if "keys_on_several_profiles" in result.numbers:
            split[result.partition] += result.numbers["keys_on_several_profiles"]
    return lines | ({"warehouse keys on several profiles": dict(split)} if split else {})


def _cluster_sizes(by_day: Iterable[StoredResult]) -> dict[str, int]:
    sized = [v for v in by_day if v.check == "not_over_merged" and v.memory.get("sizes")]
    newest = max(sized, key=lambda v: v.partition, default=None)
    return {} if newest is None else {str(k): int(n) for k, n in newest.memory["sizes"].items()}


def _figures(by_day: Sequence[StoredResult]) -> dict[str, float]:
    figures = {
        "profiles": ("one_identity_per_profile", "profiles"),
        "identified": ("one_identity_per_profile", "identified_profiles"),
        "duplicated": ("one_identity_per_profile", "profiles_on_several_identities"),
        "largest": ("not_over_merged", "largest_profile"),
        "conflicts": ("conflicts_as_usual", "conflicts"),
        "shared": ("shared_as_usual", "shared_values"),
    }
    return {name: line[max(line)] for name, line in _lines(by_day, figures).items()}


def _sync_runs(store: Store, since: str) -> list[SyncRun]:
    """Read the runs of all syncs (`_sync/<sync>/runs/<day of sending>/…`), newest first."""
    keys = [
        info.key
        for info in store.list(state_keys.SYNC)
        if info.key.count("/") == 4 and info.key.split("/")[2] == "runs" and info.key.split("/")[3] >= since
    ]
    rows = [row for key in keys for row in store.scan(key).collect().iter_rows(named=True)]
    runs = [
        SyncRun(
            sync=str(row["sync"]),
            day=str(row["day"]),
            status=str(row["status"]),
            finished_at=row.get("finished_at"),
            counts={name: value for name, value in row.items() if isinstance(value, int) and name != "fence"},
            reason=str(row.get("reason") or ""),
        )
        for row in rows
    ]
    return sorted(runs, key=lambda run: str(run.finished_at), reverse=True)
