"""`heap.ingest`: dumps land at set times of a time zone, once where the clocks change; days of tables stay UTC's."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo, available_timezones

import dagster as dg
import pytest
from dagster._utils.schedules import schedule_execution_time_iterator
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_assets.config import IngestSchedule
from heap_assets.errors import SettingsError
from heap_assets.orchestration.ingest_schedule import last_tick
from heap_assets.orchestration.resources import DUMPS
from heap_assets_tests.examples import examples
from heap_assets_tests.orchestration.test_landing import Landing, rows

_HOUR = timedelta(hours=1)


def ticks(ingest: IngestSchedule, since: datetime, count: int) -> list[datetime]:
    """The times at which Dagster's daemon would tick, in the zone of the schedule."""
    iterator = schedule_execution_time_iterator(since.timestamp(), ingest.cron, ingest.time_zone)
    return [next(iterator).astimezone(ZoneInfo(ingest.time_zone)) for _ in range(count)]


@pytest.mark.parametrize(
    ("zone", "day", "expected"),
    [
        ("Europe/Berlin", "2026-03-29", ["03:00+0200", "08:30+0200", "14:30+0200", "20:30+0200"]),
        ("Europe/Berlin", "2026-10-25", ["02:30+0100", "08:30+0100", "14:30+0100", "20:30+0100"]),
        ("America/New_York", "2026-03-08", ["03:00-0400", "08:30-0400", "14:30-0400", "20:30-0400"]),
        ("America/New_York", "2026-11-01", ["02:30-0500", "08:30-0500", "14:30-0500", "20:30-0500"]),
    ],
)
def test_a_time_that_a_clock_change_skips_or_repeats_comes_once(zone: str, day: str, expected: list[str]) -> None:
    ingest = IngestSchedule(every_hours=6, begins_at="02:30", time_zone=zone)
    midnight = datetime.combine(date.fromisoformat(day), datetime.min.time(), ZoneInfo(zone))
    assert [f"{tick:%H:%M%z}" for tick in ticks(ingest, midnight, 4)] == expected


@cache
def changes(zone: str) -> list[datetime]:
    """The days of three years, to six hours, in which a zone's clock changes."""
    moments = [datetime(2024, 1, 1, tzinfo=UTC) + 6 * n * _HOUR for n in range(3 * 366 * 4)]
    offsets = [moment.astimezone(ZoneInfo(zone)).utcoffset() for moment in moments]
    return [moment for moment, (a, b) in zip(moments, pairwise(offsets), strict=False) if a != b]


ZONES = sorted(zone for zone in available_timezones() if "/" in zone and zone != "Antarctica/Troll")
"""All but the one whose clock changes by two hours: a tick every two hours may fall into them, and there is none."""


@given(
    zone=st.sampled_from(ZONES),
    every=st.sampled_from([1, 2, 3, 4, 6, 8, 12, 24]),
    minutes=st.integers(0, 24 * 60 - 1),
    data=st.data(),
)
@settings(max_examples=examples(60), deadline=None)
def test_every_local_day_has_its_times_once(zone: str, every: int, minutes: int, data: st.DataObject) -> None:
    ingest = IngestSchedule(every_hours=every, begins_at=f"{minutes // 60:02}:{minutes % 60:02}", time_zone=zone)
    moment = data.draw(st.sampled_from(changes(zone) or [datetime(2026, 5, 1, tzinfo=UTC)]))
    local = moment.astimezone(ZoneInfo(zone)).date()
    start = datetime.combine(local - timedelta(days=1), datetime.min.time(), ZoneInfo(zone))
    days = [local + timedelta(days=n) for n in (-1, 0, 1)]
    found = [tick for tick in ticks(ingest, start, 24 // every * 5 + 2) if tick.date() in days]
    utc = [tick.astimezone(UTC) for tick in found]
    assert all(abs(after - tick - every * _HOUR) <= _HOUR for tick, after in pairwise(utc)), found
    if every > 1:
        assert Counter(tick.date() for tick in found) == dict.fromkeys(days, 24 // every)
    # the sensor's bound is the schedule's own last tick, also right at it and just before the next
    near = [(tick, after) for tick, after in pairwise(utc) if abs(tick - moment) < every * _HOUR][:3]
    for tick, after in near:
        assert last_tick(ingest, tick) == last_tick(ingest, after - timedelta(seconds=1)) == tick


INGEST = "ingest: {every_hours: 12, begins_at: 04:00, time_zone: America/New_York}"


@pytest.fixture
def landing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Landing:
    monkeypatch.setenv("HEAP_ASSETS_NOW", "2026-05-03T12:00:00Z")
    landing = Landing(tmp_path, quota=f"{{}}\n  {INGEST}")
    (tmp_path / "dagster").mkdir()
    landing.instance = dg.DagsterInstance.local_temp(str(tmp_path / "dagster"))  # schedules open one by its reference
    return landing


def scheduled(landing: Landing, at: datetime) -> tuple[list[dg.RunRequest], str | None]:
    repository = landing.definitions().get_repository_def()
    context = dg.build_schedule_context(landing.instance, repository_def=repository, scheduled_execution_time=at)
    ticked = repository.get_schedule_def("ingest_heap").evaluate_tick(context)
    return list(ticked.run_requests or []), ticked.skip_message


def test_dumps_wait_for_the_next_time_and_the_sensor_says_so(landing: Landing, monkeypatch: pytest.MonkeyPatch) -> None:
    landing.bucket.dump(1, "2026-05-03T06:00:00", clicks=rows("2026-05-02", 5))  # 04:00 there is 08:00 UTC
    landing.bucket.dump(2, "2026-05-03T09:00:00", clicks=rows("2026-05-02", 5, first=10))
    assert [request.partition_key for request in landing.tick().run_requests or []] == ["1"]
    landing.land(1)
    tick = landing.tick()
    assert not tick.run_requests
    assert tick.skip_reason is not None
    said = tick.skip_reason.skip_message
    assert said == "1 dumps have come since and wait for 2026-05-03 20:00 UTC, as heap.ingest says"

    monkeypatch.setenv("HEAP_ASSETS_NOW", "2026-05-03T20:00:01Z")
    [request], _ = scheduled(landing, datetime(2026, 5, 3, 20, tzinfo=UTC))
    assert request.partition_key == "2"
    assert landing.instance.has_dynamic_partition(str(DUMPS.name), "2")
    landing.land(2)
    assert scheduled(landing, datetime(2026, 5, 4, 8, tzinfo=UTC)) == ([], "every dump that Heap delivered has landed")


def test_several_dumps_land_in_one_scheduled_run(landing: Landing) -> None:
    for dump in (1, 2, 3):
        landing.bucket.dump(dump, "2026-05-03T07:00:00", clicks=rows("2026-05-02", 2, first=10 * dump))
    [request], _ = scheduled(landing, datetime(2026, 5, 3, 8, tzinfo=UTC))
    assert request.tags["heap/dump_ids"] == "1,2,3"
    landing.land_range(request)
    assert scheduled(landing, datetime(2026, 5, 3, 20, tzinfo=UTC))[0] == []


def test_days_of_tables_stay_those_of_utc(landing: Landing) -> None:
    landing.bucket.dump(1, "2026-05-03T07:00:00", clicks=rows("2026-05-02", 5))  # 21:00 of May 1 in New York
    landing.land(1)
    landing.accept_news()
    assert landing.build("clicks", "2026-05-02")["dagster/partition_row_count"] == 5


def test_without_an_interval_there_is_no_schedule(tmp_path: Path) -> None:
    names = [schedule.name for schedule in Landing(tmp_path).definitions().schedules or []]
    assert "ingest_heap" not in names


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("{every_hours: 5}", "heap.ingest.every_hours is 5; expected: hours that divide a day: 1, 2, 3, 4, 6, 8, 12"),
        ("{every_hours: 0}", "heap.ingest.every_hours is 0"),
        ("{begins_at: 24:00}", "heap.ingest.begins_at is '24:00'; expected: a time of day such as 02:30"),
        ("{begins_at: noon}", "expected: a time of day such as 02:30"),
        ("{time_zone: Europe/Berlina}", "heap.ingest.time_zone is 'Europe/Berlina'; expected: a name of the time zone"),
        ("{every: 6}", "heap.ingest.every"),
    ],
)
def test_a_wrong_interval_is_refused(tmp_path: Path, setting: str, message: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Landing(tmp_path, quota=f"{{}}\n  ingest: {setting}").project()
    assert message in str(refused.value)


def test_freshness_expects_no_more_than_the_interval(tmp_path: Path) -> None:
    project = Landing(tmp_path, quota="{}\n  ingest: {every_hours: 12}\n  cadence_hours: 24").project()
    assert project.settings.heap.cadence == timedelta(hours=24)
    daily = Landing(tmp_path, quota="{}\n  ingest: {every_hours: 24}\n  cadence_hours: 24").project()
    assert daily.settings.heap.cadence == timedelta(hours=24)
