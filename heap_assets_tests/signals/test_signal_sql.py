"""The SQL of signals gives who meets the rule on a day, as the engine does, for every kind on random events."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_assets.analytics import AudienceTables, Relation, SignalTables, signal_sql
from heap_assets.profiles import Facts
from heap_assets.signals import SignalDay, candidates, parse_signal
from heap_assets_tests.examples import examples

CONNECTION = duckdb.connect(config={"threads": 1})
CONNECTION.execute("SET GLOBAL TimeZone = 'UTC'")
END = datetime(2026, 11, 21, tzinfo=UTC)
EVENTS = pl.Schema(
    {"profile_id": pl.String, "time": pl.Datetime("us", "UTC"), "event_id": pl.Int64, "user_id": pl.Int64}
)
PEOPLE = pl.Schema({"profile_id": pl.String, "plan": pl.String, "seats": pl.Int64, "last_active": pl.String})
RULES: dict[str, dict[str, Any]] = {
    "sequence": {"sequence": {"steps": [{"type": "p", "count": 2}, {"type": "u"}], "span_hours": 20}},
    "of_some": {
        "sequence": {"steps": [{"type": "p"}, {"type": "u"}], "span_hours": 30},
        "where": {"user_properties": {"plan": {"in": ["free"]}}, "exclude_events": [{"type": "v"}]},
    },
    "missing": {"missing": {"start": {"type": "p"}, "completion": {"type": "u"}, "within_hours": 12}},
    "campaign": {
        "campaign": {
            "anchor": {"type": "p"},
            "steps": [{"name": "first", "after_hours": 6}, {"name": "second", "after_days": 1}],
            "stop": [{"type": "u"}, {"type": "v"}],
        }
    },
    "becomes": {"becomes": {"user_properties": {"plan": "pro"}, "none": [{"events": [{"type": "v"}]}]}},
    "often": {"threshold": {"type": "p", "count": {"gte": 2}, "within_days": 1}},
    "seats": {"threshold": {"trait": "seats", "gte": 5}},
    "inactive": {"inactive": {"days": 2}},
    "changed": {"changed": {"trait": "plan", "to": "pro"}},
    "upgraded": {"changed": {"trait": "plan", "from": "free", "to": "pro"}},
    "of_nothing": {"changed": {"trait": "region", "to": "eu"}},
}
rows_of_events = st.lists(
    st.tuples(
        st.sampled_from("ppuv"), st.sampled_from("ab"), st.integers(-4, 60).map(lambda n: n * 1.5), st.booleans()
    ),
    max_size=12,
)
person = st.tuples(
    st.sampled_from([None, "free", "pro"]),
    st.sampled_from([None, 1, 5]),
    st.sampled_from([None, "2026-11-17", "2026-11-18", "2026-11-19", "2026-11-20"]),
)
past_people = st.lists(st.tuples(st.sampled_from("ab"), person), max_size=3)


def people_frame(rows: list[tuple[str, tuple[Any, ...]]]) -> pl.DataFrame:
    return pl.DataFrame([(name, *values) for name, values in rows], schema=PEOPLE, orient="row")


@pytest.mark.parametrize("name", RULES)
@settings(max_examples=examples(15), deadline=None)
@given(rows=rows_of_events, now=st.tuples(person, person), past=past_people)
def test_candidates_are_those_of_the_sql(
    name: str, rows: list[tuple[str, str, float, bool]], now: tuple[Any, Any], past: list[Any]
) -> None:
    signal = parse_signal(name, RULES[name])
    events = {
        event: pl.DataFrame(
            [
                {"profile_id": who, "time": END - timedelta(hours=ago), "event_id": i if named else None, "user_id": i}
                for i, (one, who, ago, named) in enumerate(rows)
                if one == event
            ],
            schema=EVENTS,
        )
        for event in "puv"
    }
    today, before = people_frame(list(zip("ab", now, strict=True))), people_frame(past)
    day = SignalDay(today.lazy(), Facts({event: table.lazy() for event, table in events.items()}, END), before.lazy())
    columns = ["profile_id", "time", "step", "user_id"]
    expected = candidates(signal, day).select(columns).sort(columns).rows()

    tables = AudienceTables(Relation("people", PEOPLE), {event: Relation(event, EVENTS) for event in events}, END)
    statement = signal_sql(signal, SignalTables(tables, Relation("past", PEOPLE)))
    with CONNECTION.cursor() as sql:
        for table, frame in {"people": today, "past": before, **events}.items():
            sql.register(table, frame.to_arrow())
        result = sql.sql(statement.text(), params=dict(statement.parameters)).pl()
    assert result.with_columns(pl.col("time").cast(EVENTS["time"])).sort(columns).rows() == expected
    assert "EPOCH_US" not in statement.text("bigquery")
    assert "$" not in statement.text("bigquery")


def test_without_a_day_before_nobody_has_changed() -> None:
    tables = AudienceTables(Relation("people", PEOPLE), {}, END)
    statement = signal_sql(parse_signal("s", RULES["upgraded"]), SignalTables(tables, None))
    with duckdb.connect() as sql:
        assert sql.sql(statement.text(), params=dict(statement.parameters)).fetchall() == []
