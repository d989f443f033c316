"""One hourly check per table: how new is its newest row, whatever has been built since?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from heap_assets import clock
from heap_assets.checks import recency
from heap_assets.checks.check import Check, Subject
from heap_assets.checks.thresholds import Cadence
from heap_assets.checks.verdict import Verdict


def recency_checks(
    event_tables: Mapping[str, Cadence], snapshots: Mapping[str, Cadence], time_column: str = "time"
) -> list[Check]:
    """Return one hourly check per table on how new its newest row is; they belong to the asset, not to a day."""
    events = [
        _recency(asset, cadence, lambda s, now: recency.newest_event_time(s.lake, s.asset, now, time_column))
        for asset, cadence in event_tables.items()
    ]
    return events + [
        _recency(asset, cadence, lambda s, now: recency.newest_observation(s.lake, s.asset, now))
        for asset, cadence in snapshots.items()
    ]


def _recency(asset: str, cadence: Cadence, newest: Callable[[Subject, datetime], datetime | None]) -> Check:
    hours = cadence.fail_after / timedelta(hours=1)

    def judge(s: Subject) -> Verdict:
        now = clock.now()
        return recency.newest_row_is_recent(newest(s, now), now, cadence)

    return Check(
        asset,
        "newest_row_is_recent",
        f"The newest row is at most {hours:g} hours old, whatever has been built since.",
        judge,
        partitioned=False,
        mend="see whether dumps still arrive (`heap-assets doctor`) and whether the sensor runs.",
    )
