from __future__ import annotations

from datetime import UTC, datetime, timedelta

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_assets.profiles.behaviour import Stage, activity, engagement, lifecycle, transitions

AS_OF = datetime(2026, 11, 21, tzinfo=UTC)
SCHEMA = {"profile_id": pl.String, "time": pl.Datetime("us", "UTC"), "session_id": pl.Int64, "event_type": pl.String}
Event = tuple[str, datetime, int | None, str | None]


def frame(rows: list[Event]) -> pl.LazyFrame:
    return pl.LazyFrame(rows, schema=SCHEMA, orient="row")


moments = st.integers(-40 * 24, 30).map(lambda hours: AS_OF + timedelta(hours=hours))
rows_of = st.lists(
    st.tuples(
        st.sampled_from(["ann", "bob", "cid"]),
        moments,
        st.sampled_from([None, 1, 2, 3]),
        st.sampled_from([None, "a", "b", "c"]),
    ),
    max_size=30,
)


@settings(max_examples=100, deadline=None)
@given(rows_of)
def test_the_score_is_what_counting_by_hand_gives(rows: list[Event]) -> None:
    start = AS_OF - timedelta(days=30)
    expected = {}
    for who in {row[0] for row in rows if row[1] < AS_OF}:
        recent = [row for row in rows if row[0] == who and start <= row[1] < AS_OF]
        days = {row[1].date() for row in recent}
        sessions = {row[2] for row in recent} - {None}
        kinds = {row[3] for row in recent} - {None}
        expected[who] = 5 * len(days) + 2 * len(sessions) + 10 * len(kinds)
    result = engagement(activity(frame(rows), AS_OF)).collect().rows()
    assert dict(result) == expected
    assert result == sorted(result, key=lambda row: (-row[1], row[0]))


def test_the_score_equals_the_documented_sql() -> None:
    rows: list[Event] = [
        (f"p{i % 17:02}", AS_OF - timedelta(hours=i * 7 % 900 + 1), i % 23, "abcde"[i % 5]) for i in range(600)
    ]
    with duckdb.connect() as sql:
        sql.execute("SET TimeZone = 'UTC'")
        sql.register("events", frame(rows).collect().to_arrow())
        expected = sql.execute(
            """SELECT profile_id, count(DISTINCT time::DATE) * 5 + count(DISTINCT session_id) * 2
                      + count(DISTINCT event_type) * 10 AS score
               FROM events WHERE time >= $at - INTERVAL 30 DAY AND time < $at GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 10""",
            {"at": AS_OF},
        ).fetchall()
    assert engagement(activity(frame(rows), AS_OF), top=10).collect().rows() == expected


def stage(first: int | None, last: int | None, sessions: int = 0, active_days: int = 0) -> str:
    """Stage of a person first and last seen so many days ago (plus an hour)."""
    ago = [None if days is None else AS_OF - timedelta(days=days, hours=1) for days in (first, last)]
    facts = pl.LazyFrame(
        [("p", *ago, sessions, active_days)],
        schema={
            "profile_id": pl.String,
            "first_seen": SCHEMA["time"],
            "last_seen": SCHEMA["time"],
            "sessions": pl.Int64,
            "active_days": pl.Int64,
        },
        orient="row",
    )
    return str(lifecycle(facts, AS_OF).collect()["lifecycle_stage"].item())


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ((400, 31), Stage.CHURNED),
        ((400, 31, 9, 20), Stage.CHURNED),
        ((400, 30), Stage.AT_RISK),
        ((400, 14), Stage.AT_RISK),
        ((400, 14, 5, 16), Stage.AT_RISK),
        ((400, 13, 2, 14), Stage.DORMANT),
        ((400, 13, 3, 14), Stage.ACTIVE),
        ((400, 0, 3, 15), Stage.POWER_USER),
        ((7, 0, 1, 1), Stage.NEW_USER),
        ((7, 0, 9, 8), Stage.NEW_USER),
        ((8, 0, 2, 2), Stage.DORMANT),
        ((8, 0, 3, 3), Stage.ACTIVE),
        ((0, 0, 0, 0), Stage.NEW_USER),
        ((None, None), Stage.UNCLASSIFIED),
    ],
)
def test_lifecycle_cell_by_cell(facts: tuple[int, ...], expected: Stage) -> None:
    assert stage(*facts) == expected


@settings(max_examples=50, deadline=None)
@given(rows_of)
def test_everybody_has_exactly_one_stage(rows: list[Event]) -> None:
    stages = lifecycle(activity(frame(rows), AS_OF), AS_OF).collect()
    assert stages["profile_id"].to_list() == sorted({row[0] for row in rows if row[1] < AS_OF})
    assert set(stages["lifecycle_stage"]) <= set(Stage)


def test_when_seen_can_come_from_elsewhere() -> None:
    seen = pl.LazyFrame(
        {"profile_id": ["ann", "bob"], "first_seen": [AS_OF - timedelta(days=90), None], "last_seen": [AS_OF, None]},
        schema_overrides={"first_seen": SCHEMA["time"], "last_seen": SCHEMA["time"]},
    )
    facts = activity(frame([("ann", AS_OF - timedelta(days=1), 1, "a")]), AS_OF, dates=seen)
    assert facts.select("profile_id", "sessions").collect().rows() == [("ann", 1), ("bob", 0)]
    assert dict(lifecycle(facts, AS_OF).collect().rows()) == {"ann": Stage.DORMANT, "bob": Stage.UNCLASSIFIED}


def test_transitions_are_the_changes_only() -> None:
    before = pl.LazyFrame({"profile_id": ["a", "b", "c"], "lifecycle_stage": ["Active", "Active", "Dormant"]})
    after = pl.LazyFrame({"profile_id": ["a", "b", "d"], "lifecycle_stage": ["Active", "At Risk", "New User"]})
    assert transitions(before, after).collect().rows() == [
        ("b", "Active", "At Risk"),
        ("c", "Dormant", None),
        ("d", None, "New User"),
    ]
