from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_assets.errors import SettingsError
from heap_assets.profiles import behavioural_traits, event_stream, with_top_pages, with_trends
from heap_assets_tests.examples import examples

AS_OF = datetime(2026, 11, 21, tzinfo=UTC)


def events(*rows: tuple[str, float, int, str]) -> pl.LazyFrame:
    """Each row: profile, days before AS_OF, session, event type."""
    return pl.LazyFrame(
        [(who, AS_OF - timedelta(days=ago), session, kind) for who, ago, session, kind in rows],
        schema={
            "profile_id": pl.String,
            "time": pl.Datetime("us", "UTC"),
            "session_id": pl.Int64,
            "event_type": pl.String,
        },
        orient="row",
    )


def test_sessions_are_counted_dates_are_iso_and_flags_are_truth_values() -> None:
    rows = events(
        ("ann", 1, 1, "export_created"), ("ann", 1.2, 1, "pageview"), ("ann", 3, 2, "pageview"),
        ("bob", 45, 3, "export_created"), ("cid", 30, 4, "invited"), ("cid", 0, 5, "export_created"),
    )  # fmt: skip
    features = {"uses_exports": "export_created", "has_invited": "invited"}
    assert behavioural_traits(rows, AS_OF, features).collect().rows() == [
        ("ann", 2, 3, "2026-11-20", True, False),
        ("bob", 0, 0, "2026-10-07", False, False),
        ("cid", 1, 1, "2026-10-22", False, True),
    ]


def test_without_features_or_events_the_shape_stands() -> None:
    result = behavioural_traits(events(), AS_OF, {}).collect()
    assert result.columns == ["profile_id", "session_count", "active_days", "last_active"]


def test_a_flag_cannot_take_the_name_of_a_trait() -> None:
    with pytest.raises(SettingsError, match="feature flags last_active"):
        behavioural_traits(events(), AS_OF, {"last_active": "x"})


def test_event_tables_become_one_stream_of_profiles() -> None:
    graph = pl.LazyFrame(
        {
            "identifier_type": ["heap_user_id", "heap_user_id"],
            "identifier": ["1", "2"],
            "profile_id": ["ann", None],
            "shared": [False, True],
        }
    )
    times = {"user_id": [1, 2, 3], "time": [AS_OF] * 3, "session_id": [7, 8, 9]}
    rows = pl.LazyFrame(times, schema_overrides={"time": pl.Datetime("us", "UTC")})
    tables = [rows.with_columns(event_type=pl.lit(name)) for name in ("sign_up", "login")]
    stream = event_stream(tables, graph).sort("event_type").collect()
    assert stream.select("profile_id", "session_id", "event_type").rows() == [
        ("ann", 7, "login"),
        ("ann", 7, "sign_up"),
    ]
    assert event_stream([], graph).collect().height == 0


@settings(max_examples=examples(60), deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(-1, 33), st.integers(1, 4), st.sampled_from([None, "/", "/b"]))
    )
)
def test_trends_and_top_pages_are_those_of_a_count_by_hand(rows: list[tuple[str, int, int, str | None]]) -> None:
    frame = events(*((who, ago, session, "pageviews") for who, ago, session, _ in rows)).with_columns(
        path=pl.Series([page for *_, page in rows], dtype=pl.String)
    )
    people = pl.LazyFrame({"profile_id": ["a", "b", "c", "d"]}).with_columns(used=pl.col("profile_id") == "a")
    counted = frame.group_by("profile_id").agg(session_count=pl.col("session_id").n_unique())
    people = people.join(counted, on="profile_id", how="left", maintain_order="left")
    table = with_top_pages(with_trends(people, frame, AS_OF, ["used"]), frame, "path", AS_OF).collect()
    for person in table.to_dicts():
        own = [row for row in rows if row[0] == person["profile_id"] and 0 < row[1] <= 30]
        later = len({session for _, ago, session, _ in own if ago <= 15})
        earlier = len({session for _, ago, session, _ in own if ago > 15})
        expected = None if not own else "rising" if later > 1.5 * earlier else "falling"
        if own and earlier * 2 / 3 <= later <= 1.5 * earlier:
            expected = "steady"
        assert person["trend"] == expected
        assert person["sessions_per_week"] == round((person["session_count"] or 0) * 7 / 30, 2)
        assert person["features_used"] == (person["profile_id"] == "a")
        pages = Counter(page for *_, page in own if page)
        assert person["top_pages"] == (sorted(pages, key=lambda page: (-pages[page], page)) or None)
