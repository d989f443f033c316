"""Age of the newest row, a measure of freshness that backfilling an old day does not change; rules and checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise

import polars as pl

from heap_assets import clock
from heap_assets.errors import HeapAssetsError
from heap_assets.quality import result_store
from heap_assets.quality.engine import Check, CheckContext
from heap_assets.quality.results import CheckResult, Number, nothing_to_compare
from heap_assets.quality.thresholds import Cadence
from heap_assets.storage import Lake
from heap_assets.tables import is_event_table
from heap_assets.values import read_times

_LOOK_BACK = 45
_DAYS_TO_TELL = 6
_RARE = 9.2
"""-ln(1/10,000): a gap of this many times the mean distance between rows has a probability of 1 in 10,000."""


class NoTimeError(HeapAssetsError):
    """The time column of a table holds no times."""


def newest_row_is_recent(
    newest: datetime | None, now: datetime, cadence: Cadence, quiet: timedelta | None = timedelta(0)
) -> CheckResult:
    """Evaluate the age of the newest row by the asset's own cadence.

    `newest`: time of the newest row (event tables), or when the newest snapshot was observed; None if there is none.
    `quiet`: how long the table usually goes without rows (`usual_quiet`); None if there are too few days to say.

    `memory["late"]` is true from `cadence.warn_after` on.
    """
    limit = cadence.fail_after + (quiet or timedelta(0))
    allowed = limit / timedelta(hours=1)
    if newest is None:
        return CheckResult(passed=False, numbers={"allowed_hours": allowed}, notes={"newest_row": "there is none"})
    if quiet is None:
        return nothing_to_compare(f"fewer than {_DAYS_TO_TELL} days have rows: the event is too rare to tell")
    behind = (now - newest) / timedelta(hours=1)
    numbers: dict[str, Number] = {"hours_behind": round(behind, 2), "allowed_hours": allowed}
    return CheckResult(
        passed=now - newest <= limit,
        numbers=numbers,
        notes={"newest_row": newest.isoformat(timespec="seconds")},
        memory={"late": now - newest > cadence.warn_after},
    )


def usual_quiet(rows_by_day: Mapping[date, Number]) -> timedelta | None:
    """Return how much longer than a day a table may be without rows; None if too few days have rows.

    The larger of 1.5 times its longest gap so far (some events pause at weekends) and the gap that at its mean rows per
    day has a probability of 1 in 10,000. `rows_by_day` may leave out days without rows.
    """
    days = sorted(day for day, rows in rows_by_day.items() if rows)
    if len(days) < _DAYS_TO_TELL:
        return None
    longest = max(later - earlier for earlier, later in pairwise(days))
    a_day = sum(rows_by_day.values()) / ((days[-1] - days[0]).days + 1)
    return max((longest - timedelta(days=1)) * 1.5, timedelta(days=_RARE / a_day) - timedelta(days=1), timedelta(0))


def newest_event_time(lake: Lake, asset: str, now: datetime, time_column: str = "time") -> datetime | None:
    """Return the time of the newest row of an event table, not after `now`.

    Walks back from the newest partition over days without rows, so rewriting an older partition changes nothing. A time
    without zone is UTC, a date its midnight; text is parsed by :func:`heap_assets.values.read_times`.

    Raises NoTimeError if the column is a number or anything else, or text none of which is a time.
    """
    for partition in _newest_first(lake, asset, now):
        rows = lake.scan(asset, partition)
        dtype = rows.collect_schema().get(time_column)
        if dtype is None or not isinstance(dtype, pl.Datetime | pl.Date | pl.String):
            kind = "is not in the table" if dtype is None else f"is of type {dtype}"
            raise NoTimeError(
                f"the column {time_column} of {asset} {kind}: only timestamps, dates and text times tell how new it is"
            )
        moment = _in_utc(pl.col(time_column), dtype)
        newest = moment.filter(moment <= now).max().alias("newest")
        measured = rows.select(newest, values=pl.col(time_column).count(), times=moment.count())
        latest, values, times = measured.collect(engine="streaming").row(0)
        if values and not times:
            raise NoTimeError(
                f"the column {time_column} of {asset} is text, and none of its {values:,} values is a time"
            )
        if latest is not None:
            return _utc(latest)
    return None


def grain(lake: Lake, asset: str, now: datetime, time_column: str) -> timedelta:
    """Return the precision of the newest partition's times: a day if they are dates, also as text, else zero."""
    for partition in _newest_first(lake, asset, now):
        rows = lake.scan(asset, partition)
        dtype = rows.collect_schema().get(time_column)
        dated = dtype == pl.Date
        if dtype == pl.String:
            hours = _in_utc(pl.col(time_column), pl.String()).dt.time() != time(0)
            dated = not rows.select(hours.any()).collect(engine="streaming").item()
        return timedelta(days=1 if dated else 0)
    return timedelta(0)


def newest_observation(lake: Lake, asset: str, now: datetime) -> datetime | None:
    """Return the time that the newest snapshot of a table describes.

    That is `observed_at` of the newest partition that was read from the source, not carried forward from an older day
    (`observed: false`). Tables folded from dumps have `as_of`; without either it is the end of the partition's day,
    but never later than the time it was written.
    """
    for partition in _newest_first(lake, asset, now):
        partition_info = lake.find(asset, partition)
        if partition_info is None or partition_info.notes.get("observed") is False:
            continue
        observed_at = partition_info.notes.get("observed_at") or partition_info.notes.get("as_of")
        if observed_at:
            return min(_utc(datetime.fromisoformat(str(observed_at))), now)
        end_of_day = datetime.combine(datetime.fromisoformat(partition), time.min, UTC) + timedelta(days=1)
        return min(end_of_day, _utc(partition_info.written_at), now)
    return None


def newest_complete_day_delivered(delivered: str | None, now: datetime, cadence: Cadence) -> CheckResult:
    """Check the age of the newest day that a sync has delivered (`YYYY-MM-DD`), None if it never delivered one."""
    allowed = cadence.fail_after / timedelta(hours=1)
    if delivered is None:
        return CheckResult(passed=False, numbers={"allowed_hours": allowed}, notes={"newest_day_delivered": "none"})
    end = datetime.combine(datetime.fromisoformat(delivered), time.min, UTC) + timedelta(days=1)
    behind = max((now - end) / timedelta(hours=1), 0.0)
    return CheckResult(
        passed=now - end <= cadence.fail_after,
        numbers={"hours_behind": round(behind, 2), "allowed_hours": allowed},
        notes={"newest_day_delivered": delivered},
        memory={"late": now - end > cadence.warn_after},
    )


def _in_utc(moment: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if dtype == pl.String:
        return read_times(moment)
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        return moment.dt.convert_time_zone("UTC")
    return moment.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


def _newest_first(lake: Lake, asset: str, now: datetime) -> list[str]:
    days = [key for key in lake.partitions(asset) if key <= now.date().isoformat()]
    return sorted(days, reverse=True)[:_LOOK_BACK]


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


_REMEMBERED_DAYS = 60


def recency_checks(
    event_tables: Mapping[str, Cadence], snapshots: Mapping[str, Cadence], time_column: str = "time"
) -> list[Check]:
    """Return one hourly check per table on how new its newest row is; they belong to the asset, not to a day."""
    events = [
        _recency(
            asset,
            cadence,
            lambda s, now: newest_event_time(s.lake, s.asset, now, time_column),
            grain=lambda s, now: grain(s.lake, s.asset, now, time_column),
            quiet_by_nature=is_event_table(asset),
        )
        for asset, cadence in event_tables.items()
    ]
    return events + [
        _recency(asset, cadence, lambda s, now: newest_observation(s.lake, s.asset, now))
        for asset, cadence in snapshots.items()
    ]


def _rows_by_day(s: CheckContext, newest: datetime) -> dict[date, Number]:
    """Return the rows of the days up to the newest one, from what `volume_as_usual` counted of each."""
    days = [str(newest.date() - timedelta(days=back)) for back in range(_REMEMBERED_DAYS)]
    stored = result_store.read_many(s.lake.store, s.asset, "volume_as_usual", days)
    return {date.fromisoformat(v.partition): v.numbers["rows"] for v in stored if v.numbers.get("rows")}


def _recency(
    asset: str,
    cadence: Cadence,
    newest: Callable[[CheckContext, datetime], datetime | None],
    *,
    grain: Callable[[CheckContext, datetime], timedelta] = lambda _s, _now: timedelta(0),
    quiet_by_nature: bool = False,
) -> Check:
    hours = cadence.fail_after / timedelta(hours=1)
    rare = ", or as old as is usual for a rare event" if quiet_by_nature else ""

    def evaluate(s: CheckContext) -> CheckResult:
        now = clock.now()
        if not s.lake.partitions(s.asset):
            return nothing_to_compare("the table has not been built yet")
        newest_time = newest(s, now)
        if newest_time is None and quiet_by_nature:
            return nothing_to_compare(f"no row in its {_LOOK_BACK} newest days: nobody knows how often it comes")
        result = newest_row_is_recent(newest_time, now, cadence, grain(s, now))
        if result.passed or newest_time is None or not quiet_by_nature:
            return result
        # sixty small reads, so only for a table that seems late
        return newest_row_is_recent(newest_time, now, cadence, usual_quiet(_rows_by_day(s, newest_time)))

    return Check(
        asset,
        "newest_row_is_recent",
        f"The newest row is at most {hours:g} hours old{rare}, whatever has been built since.",
        evaluate,
        partitioned=False,
        remedy="see whether dumps still arrive (`heap-assets preflight`) and whether the sensor runs.",
    )
