"""Times that come as text: each spelling by itself, and what is no time is none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_assets.values import TIME, read_times


def read(*texts: str | None) -> list[datetime | None]:
    frame = pl.DataFrame({"t": pl.Series(texts, dtype=pl.String)}).select(read_times(pl.col("t")))
    assert frame.schema["t"] == TIME
    return frame["t"].to_list()


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-01", datetime(2026, 11, 1)),
        ("20261101", datetime(2026, 11, 1)),
        ("2026/1/5 7:05", datetime(2026, 1, 5, 7, 5)),
        ("2026-11-01T10:00Z", datetime(2026, 11, 1, 10)),
        (" 2026-11-01t10:00:01z ", datetime(2026, 11, 1, 10, 0, 1)),
        ("20261101T100001Z", datetime(2026, 11, 1, 10, 0, 1)),
        ("2026-11-01 10:00:00 UTC", datetime(2026, 11, 1, 10)),
        ("2026-11-01 10:00:00 +02", datetime(2026, 11, 1, 8)),
        ("2026-11-01T10:00:00-0530", datetime(2026, 11, 1, 15, 30)),
        ("2026-11-01T10:00:00,5+00:00", datetime(2026, 11, 1, 10, 0, 0, 500_000)),
        ("2026-11-01 10:00:00.123456789", datetime(2026, 11, 1, 10, 0, 0, 123_456)),
        ("0001-01-01", datetime(1, 1, 1)),
        ("9999-12-31 23:59:59.999999", datetime(9999, 12, 31, 23, 59, 59, 999_999)),
    ],
)
def test_iso_8601_and_what_warehouses_write_are_times(text: str, moment: datetime) -> None:
    assert read(text) == [moment.replace(tzinfo=UTC)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "01/02/2026",
        "1.2.2026",
        "2026-13-01",
        "2026-02-30",
        "2026-11-01T24:00:00",
        "0000-01-01",
        "1764000000",
        "2026-11-01 10",
        "2026-11-01T10:00:00+99:00",
        "0001-01-01T00:00:00+05:00",
        "9999-12-31T23:59:59-05:00",
    ],
)
def test_what_is_no_time_or_must_be_guessed_is_none(text: str) -> None:
    assert read(text) == [None]


zones = st.integers(-12 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=st.one_of(st.just(UTC), zones))
spellings = st.sampled_from(["%Y-%m-%dT%H:%M:%S.%f%z", "%Y-%m-%d %H:%M:%S.%f%z", "%Y/%m/%d %H:%M:%S.%f %z"])


@settings(deadline=None)
@given(st.lists(st.tuples(moments, spellings), min_size=1, max_size=15), st.lists(st.text(max_size=8), max_size=3))
def test_every_value_is_read_by_itself(given: list[tuple[datetime, str]], noise: list[str]) -> None:
    """Whatever stands before it: nothing is guessed from the first value."""
    texts = [spelt(moment, form) for moment, form in given]
    expected = [moment.astimezone(UTC) for moment, _ in given]
    assert read(*noise, *texts)[len(noise) :] == expected
    assert read(*reversed(texts)) == expected[::-1]


def spelt(moment: datetime, form: str) -> str:
    """C libraries do not fill a year up to four digits."""
    return moment.strftime(form.replace("%Y", f"{moment.year:04d}"))
