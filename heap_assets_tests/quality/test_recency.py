"""How new the newest row is, judged by the table's cadence; thresholds by name."""

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from check_toys import events

from heap_assets.errors import SettingsError
from heap_assets.quality import recency
from heap_assets.quality.thresholds import Cadence, Thresholds
from heap_assets.storage import Lake

DAY = date(2026, 11, 1)


class TestRecency:
    now = datetime(2026, 11, 21, 12, tzinfo=UTC)
    daily = Cadence(every=timedelta(days=1), lag=timedelta(hours=12))

    def test_backfilling_an_old_day_does_not_make_a_stale_table_fresh(self, lake: Lake) -> None:
        for day in ("2026-11-10", "2026-11-11"):
            lake.write("heap/pageviews", day, events(day))
        stale = recency.newest_event_time(lake, "heap/pageviews", self.now)
        assert not recency.newest_row_is_recent(stale, self.now, self.daily).passed
        lake.write("heap/pageviews", "2026-11-01", events("2026-11-01", 50))
        assert recency.newest_event_time(lake, "heap/pageviews", self.now) == stale

    def test_an_empty_newest_day_is_not_news(self, lake: Lake) -> None:
        lake.write("heap/pageviews", "2026-11-10", events("2026-11-10"))
        lake.write("heap/pageviews", "2026-11-20", events("2026-11-20", 0))
        newest = recency.newest_event_time(lake, "heap/pageviews", self.now)
        assert newest == datetime(2026, 11, 10, 12, tzinfo=UTC)

    def test_rows_from_the_future_are_not_news(self, lake: Lake) -> None:
        lake.write("heap/pageviews", "2026-11-10", events("2026-11-10"))
        lake.write("heap/pageviews", "2026-11-22", events("2026-11-22"))
        newest = recency.newest_event_time(lake, "heap/pageviews", self.now)
        assert newest == datetime(2026, 11, 10, 12, tzinfo=UTC)

    def test_a_snapshot_carried_forward_is_not_news(self, lake: Lake) -> None:
        frame = pl.DataFrame({"id": [1]})
        observed = {"observed_at": "2026-11-10T03:00:00+00:00"}
        lake.write("warehouse/crm", "2026-11-10", frame, notes={"observed": True, **observed})
        lake.write("warehouse/crm", "2026-11-20", frame, notes={"observed": False, **observed})
        assert recency.newest_observation(lake, "warehouse/crm", self.now) == datetime(2026, 11, 10, 3, tzinfo=UTC)

    @pytest.mark.parametrize("kind", [pl.Datetime("us"), pl.Datetime("ns"), pl.Datetime("us", "Asia/Tokyo"), pl.Date])
    def test_a_time_without_zone_is_utc_and_a_date_its_midnight(self, lake: Lake, kind: pl.DataType) -> None:
        moment = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)
        column = pl.Series("updated_at", [None, moment, moment + timedelta(days=3)], pl.Datetime("us", "UTC"))
        zoned = isinstance(kind, pl.Datetime) and kind.time_zone
        rows = pl.DataFrame([column if zoned else column.dt.replace_time_zone(None)]).cast({"updated_at": kind})
        lake.write("warehouse/crm", "2026-11-20", rows)
        newest = recency.newest_event_time(lake, "warehouse/crm", self.now, "updated_at")
        assert newest == (moment.replace(hour=0, minute=0) if kind == pl.Date else moment)

    @pytest.mark.parametrize(
        ("texts", "newest", "days"),
        [
            (["2026-11-20T09:30:00Z", "2026-11-25", "soon", None], datetime(2026, 11, 20, 9, 30, tzinfo=UTC), 0),
            (["2026-11-20 18:30:00+09:00", "2026/11/20 3:00"], datetime(2026, 11, 20, 9, 30, tzinfo=UTC), 0),
            (["2026-11-19", "2026-11-20", None], datetime(2026, 11, 20, tzinfo=UTC), 1),
        ],
    )
    def test_text_that_holds_times_tells_them(
        self, lake: Lake, texts: list[str | None], newest: datetime, days: int
    ) -> None:
        lake.write("warehouse/crm", "2026-11-20", pl.DataFrame({"updated_at": texts}))
        assert recency.newest_event_time(lake, "warehouse/crm", self.now, "updated_at") == newest
        assert recency.grain(lake, "warehouse/crm", self.now, "updated_at") == timedelta(days=days)

    @pytest.mark.parametrize(
        ("kind", "told"),
        [
            (pl.String, "is text, and none of its 1 values is a time"),
            (pl.Int64, "is of type Int64: only timestamps, dates and text times"),
        ],
    )
    def test_what_tells_no_age_is_named(self, lake: Lake, kind: pl.DataType, told: str) -> None:
        lake.write("warehouse/crm", "2026-11-20", pl.DataFrame({"updated_at": ["1"]}).cast(kind))
        with pytest.raises(recency.NoTimeError, match=f"the column updated_at of warehouse/crm {told}"):
            recency.newest_event_time(lake, "warehouse/crm", self.now, "updated_at")

    def test_a_missing_table_is_stale(self, lake: Lake) -> None:
        assert not recency.newest_row_is_recent(
            recency.newest_event_time(lake, "x", self.now), self.now, self.daily
        ).passed

    def test_an_event_that_rests_at_weekends_is_not_stale_on_monday_and_a_daily_one_is(self) -> None:
        workdays = [DAY + timedelta(days=n) for n in range(14) if (DAY + timedelta(days=n)).weekday() < 5]
        assert recency.usual_quiet(dict.fromkeys(workdays, 100)) == timedelta(days=3)
        assert recency.usual_quiet({DAY + timedelta(days=n): 100 for n in range(14)}) == timedelta(0)
        assert recency.usual_quiet(dict.fromkeys(workdays[:3], 100)) is None

    def test_three_rows_a_day_may_be_away_for_three_days_by_chance(self) -> None:
        daily = {DAY + timedelta(days=n): 3 for n in range(28)}
        quiet = recency.usual_quiet(daily)
        assert quiet is not None
        assert timedelta(days=2) < quiet < timedelta(days=2.1)
        old = self.now - timedelta(hours=100)
        assert recency.newest_row_is_recent(old, self.now, self.daily, timedelta(days=3)).passed
        assert not recency.newest_row_is_recent(old, self.now, self.daily).passed
        assert recency.newest_row_is_recent(old, self.now, self.daily, None).passed

    def test_deliveries(self) -> None:
        assert recency.newest_complete_day_delivered("2026-11-20", self.now, self.daily).passed
        assert not recency.newest_complete_day_delivered("2026-11-16", self.now, self.daily).passed
        assert not recency.newest_complete_day_delivered(None, self.now, self.daily).passed


def test_thresholds_from_settings_name_what_they_do_not_know() -> None:
    assert Thresholds.from_settings({"max_shrink": 0.2, "volume_weeks": 4.0}).volume_weeks == 4
    with pytest.raises(SettingsError, match="Did you mean 'max_shrink'"):
        Thresholds.from_settings({"max_shrnk": 0.2})
    with pytest.raises(SettingsError, match="whole number"):
        Thresholds.from_settings({"volume_weeks": 0.5})
