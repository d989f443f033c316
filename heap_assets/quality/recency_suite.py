"""One hourly check per table: how new is its newest row, whatever has been built since?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta

from heap_assets import clock
from heap_assets.quality import recency, result_store
from heap_assets.quality.engine import Check, Subject
from heap_assets.quality.results import Number, Verdict, nothing_to_judge_by
from heap_assets.quality.thresholds import Cadence

_REMEMBERED_DAYS = 60


def recency_checks(
    event_tables: Mapping[str, Cadence], snapshots: Mapping[str, Cadence], time_column: str = "time"
) -> list[Check]:
    """Return one hourly check per table on how new its newest row is; they belong to the asset, not to a day."""
    events = [
        _recency(
            asset,
            cadence,
            lambda s, now: recency.newest_event_time(s.lake, s.asset, now, time_column),
            grain=lambda s, now: recency.grain(s.lake, s.asset, now, time_column),
            quiet_by_nature=asset.startswith("heap/events/"),
        )
        for asset, cadence in event_tables.items()
    ]
    return events + [
        _recency(asset, cadence, lambda s, now: recency.newest_observation(s.lake, s.asset, now))
        for asset, cadence in snapshots.items()
    ]


def _rows_by_day(s: Subject, newest: datetime) -> dict[date, Number]:
    """Return the rows of the days up to the newest one, from what `volume_as_usual` counted of each."""
    days = [str(newest.date() - timedelta(days=back)) for back in range(_REMEMBERED_DAYS)]
    found = result_store.read_many(s.lake.store, s.asset, "volume_as_usual", days)
    return {date.fromisoformat(v.partition): v.numbers["rows"] for v in found if v.numbers.get("rows")}


def _recency(
    asset: str,
    cadence: Cadence,
    newest: Callable[[Subject, datetime], datetime | None],
    *,
    grain: Callable[[Subject, datetime], timedelta] = lambda _s, _now: timedelta(0),
    quiet_by_nature: bool = False,
) -> Check:
    hours = cadence.fail_after / timedelta(hours=1)
    rare = ", or as old as is usual for a rare event" if quiet_by_nature else ""

    def judge(s: Subject) -> Verdict:
        now = clock.now()
        if not s.lake.partitions(s.asset):
            return nothing_to_judge_by("the table has not been built yet")
        found = newest(s, now)
        verdict = recency.newest_row_is_recent(found, now, cadence, grain(s, now))
        if verdict.passed or found is None or not quiet_by_nature:
            return verdict
        # only a table that seems late is asked how it has been: sixty small reads
        return recency.newest_row_is_recent(found, now, cadence, recency.usual_quiet(_rows_by_day(s, found)))

    return Check(
        asset,
        "newest_row_is_recent",
        f"The newest row is at most {hours:g} hours old{rare}, whatever has been built since.",
        judge,
        partitioned=False,
        mend="see whether dumps still arrive (`heap-assets preflight`) and whether the sensor runs.",
    )
