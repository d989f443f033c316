"""Results of queries against plain Python over random events."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any

import duckdb
import polars as pl
import pytest
import sqlglot
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_assets.analytics import QUERIES, chart_of, parse_query
from heap_assets.errors import SettingsError
from heap_assets_tests.examples import examples

END = datetime(2026, 11, 21, tzinfo=UTC)
EVENTS = pl.Schema(
    {
        "profile_id": pl.String, "user_id": pl.Int64, "session_id": pl.Int64, "event_id": pl.Int64,
        "time": pl.Datetime("us", "UTC"), "event_type": pl.String, "utm_source": pl.String, "variant": pl.String,
    }
)  # fmt: skip
PEOPLE = [
    {"profile_id": one, "plan": plan, "lifecycle_stage": stage, "first_seen": END - timedelta(days=ago),
     "account": account}
    for one, plan, stage, ago, account in (
        ("a", "pro", "Active", 20, "x"), ("b", None, "New User", 3, "x"), ("c", "pro", "Active", 90, None)
    )
]  # fmt: skip
Event = tuple[str, int, str, int, str | None]
event_rows = st.lists(
    st.tuples(
        st.sampled_from("ab"), st.sampled_from([1, 2]), st.sampled_from("pqr"), st.integers(1, 100),
        st.sampled_from([None, "ads", "mail"]),
    ),
    max_size=12,
)  # fmt: skip


def frame(rows: list[Event]) -> pl.DataFrame:
    """Each row: person, session, event, hours before END, channel."""
    records = [
        {
            "profile_id": person, "user_id": ord(person), "session_id": session, "event_id": i,
            "time": END - timedelta(hours=hours), "event_type": event, "utm_source": channel, "variant": channel,
        }
        for i, (person, session, event, hours, channel) in enumerate(rows)
    ]  # fmt: skip
    return pl.DataFrame(records, schema=EVENTS)


def answer(rows: list[Event], **definition: Any) -> pl.DataFrame:
    return answer_of(frame(rows), **definition)


def answer_of(events: pl.DataFrame, **definition: Any) -> pl.DataFrame:
    statement = parse_query(definition, "q").statement(END)
    with duckdb.connect() as sql:
        sql.execute("SET TimeZone = 'UTC'")
        sql.register("events", events.to_arrow())
        people = pl.DataFrame(PEOPLE).to_arrow()
        sql.register("people", people)
        sql.register("people_before", people)
        result: pl.DataFrame = sql.sql(statement.text(), params=dict(statement.parameters)).pl()
    assert sqlglot.parse_one(statement.text("bigquery"), dialect="bigquery")
    return result


def in_order(rows: list[Event], unit: tuple[int, ...]) -> dict[tuple[Any, ...], list[tuple[float, int, str]]]:
    """Events by unit, each as (hours since the begin, event_id, event), in the order of time."""
    result: dict[tuple[Any, ...], list[tuple[float, int, str]]] = defaultdict(list)
    for i, row in enumerate(rows):
        result[tuple(row[part] for part in unit)].append((1000 - row[3], i, row[2]))
    return {key: sorted(events) for key, events in result.items()}


@settings(max_examples=examples(120), deadline=None)
@given(event_rows, st.sampled_from(["person", "session"]), st.sampled_from([None, 10]))
def test_an_ordered_funnel_counts_units_with_a_chain_in_time(rows: list[Event], per: str, span: int | None) -> None:
    steps = ["p", "q", "p"]
    units = in_order(rows, (0, 1) if per == "session" else (0,))

    def reaches(events: list[tuple[float, int, str]], count: int) -> bool:
        return any(
            [event for *_, event in chain] == steps[:count] and (span is None or chain[-1][0] - chain[0][0] <= span)
            for chain in combinations(events, count)
        )

    expected = [sum(reaches(events, count) for events in units.values()) for count in (1, 2, 3)]
    more = {} if span is None else {"span_hours": span}
    table = answer(rows, kind="funnel", steps=steps, per=per, **more)
    assert (table["reached"].to_list() or [0, 0, 0]) == expected
    for reached, of_first in table.select("reached", "percent_of_first").rows():
        assert of_first == pytest.approx(round(100 * reached / expected[0], 2), abs=0.011)


@settings(max_examples=examples(60), deadline=None)
@given(event_rows)
def test_an_unordered_funnel_is_that_of_the_guide(rows: list[Event]) -> None:
    sessions = defaultdict(set)
    for person, session, event, *_ in rows:
        sessions[person, session].add(event)
    started = [events for events in sessions.values() if "p" in events]
    table = answer(rows, kind="funnel", steps="p,q,r", per="session", ordered="false")
    expected = [sum(step in events for events in started) for step in "pqr"]
    assert (table["reached"].to_list() or [0, 0, 0]) == expected
    if expected[0] and not expected[1]:
        assert table["percent_of_previous"].to_list()[2] is None


@settings(max_examples=examples(80), deadline=None)
@given(event_rows, st.sampled_from(["person", "session"]), st.sampled_from([1, 3, 40]))
def test_paths_are_the_events_up_to_each_goal(rows: list[Event], per: str, longest: int) -> None:
    paths = Counter[str]()
    for events in in_order(rows, (0, 1) if per == "session" else (0,)).values():
        way: list[str] = []
        for *_, event in events:
            way.append(event)
            if event == "r":
                paths[" > ".join(way[-longest:])] += 1
                way = []
    table = answer(rows, kind="paths", goal="r", per=per, longest=longest)
    assert dict(table.select("path", "frequency").rows()) == paths
    if paths:
        assert sum(table["percent"]) == pytest.approx(100, abs=0.1)


@settings(max_examples=examples(60), deadline=None)
@given(event_rows)
def test_attribution_gives_each_conversion_once_in_every_model(rows: list[Event]) -> None:
    expected: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for person, _, event, hours, _ in rows:
        if event != "r":
            continue
        touches = sorted(
            (-other[3], j, other[4])
            for j, other in enumerate(rows)
            if other[0] == person and other[2] == "p" and other[4] and hours <= other[3] <= hours + 48
        )
        channels = [str(channel) for *_, channel in touches] or ["(none)"]
        n = len(channels)
        for place, channel in enumerate(channels):
            expected["first_touch"][channel] += place == 0
            expected["last_touch"][channel] += place == n - 1
            expected["linear"][channel] += 1 / n
            ends = {1: [1.0], 2: [0.5, 0.5]}.get(n)
            expected["position"][channel] += ends[place] if ends else 0.4 if place in (0, n - 1) else 0.2 / (n - 2)
    table = answer(rows, kind="attribution", conversion="r", touch="p", window_days=2)
    for model in ("first_touch", "last_touch", "linear", "position"):
        credits = dict(table.select("channel", model).rows())
        assert credits == pytest.approx(dict(expected[model]), abs=0.001)
        assert sum(credits.values()) == pytest.approx(sum(row[2] == "r" for row in rows), abs=0.01)


@settings(max_examples=examples(40), deadline=None)
@given(event_rows)
def test_adoption_engagement_and_experiments_count_people_once(rows: list[Event]) -> None:
    plans = {person["profile_id"]: person["plan"] for person in PEOPLE}
    users = defaultdict(set)
    for person, _, event, *_ in rows:
        users[plans[person], event].add(person)
    table = answer(rows, kind="adoption", by="plan")
    assert {(s, e): n for s, e, n in table.select("segment", "event_type", "users").rows()} == {
        key: len(people) for key, people in users.items()
    }
    scores = {}
    for person in "ab":
        own = [row for row in rows if row[0] == person]
        days = {(END - timedelta(hours=row[3])).date() for row in own}
        scores[person] = len(days) * 5 + len({row[1] for row in own}) * 2 + len({row[2] for row in own}) * 10
    top = answer(rows, kind="engagement")
    assert top.select("profile_id", "score").rows() == sorted(
        ((person, score) for person, score in scores.items() if score), key=lambda one: (-one[1], one[0])
    )
    variants = answer(rows, kind="experiment", exposure="p", variant="variant", conversion="q")
    assert variants["people"].sum() == len({row[0] for row in rows if row[2] == "p" and row[4]})
    for low, percent, high in variants.select("percent_low", "percent", "percent_high").rows():
        assert -0.01 <= low <= percent <= high <= 100.01


def test_retention_starts_with_everyone_that_did_something_in_their_first_period() -> None:
    rows: list[Event] = [("a", 1, "p", 24 * 19, None), ("a", 1, "p", 24 * 12, None), ("b", 1, "p", 50, None)]
    table = answer(rows, kind="retention", days=28)
    assert table.rows() == [(1, 0, 1, 100.0), (1, 1, 1, 100.0), (3, 0, 1, 100.0)]


def test_recommendations_are_what_others_use_most() -> None:
    rows: list[Event] = [("a", 1, "p", 5, None), ("a", 1, "p", 6, None), ("b", 1, "q", 5, None), ("b", 1, "r", 4, None)]
    table = answer(rows, kind="recommendations", recommended=1)
    assert table.filter(list="recommended").select("profile_id", "event_type").rows() == [("a", "q"), ("b", "p")]
    assert table.filter(list="used", profile_id="a").select("event_type", "total_events").rows() == [("p", 2)]


def test_lifecycle_accounts_and_features_have_a_row_for_everyone() -> None:
    rows: list[Event] = [("a", 1, "p", 5, None), ("b", 2, "q", 30, None)]
    assert answer(rows, kind="lifecycle")["people"].sum() == len(PEOPLE)
    [account] = answer(rows, kind="accounts", account="account").to_dicts()
    assert (account["people"], account["active_people"], account["sessions"]) == (2, 2, 2)
    features = answer(rows, kind="features", only=["p", "q"])
    assert features.select("profile_id", "count_p", "count_q").rows() == [("a", 1, 0), ("b", 0, 1), ("c", 0, 0)]


@pytest.mark.parametrize("kind", QUERIES)
def test_every_kind_draws_bars_of_nobody_alone(kind: str) -> None:
    needed = {
        "funnel": {"steps": ["p", "q"]}, "paths": {"goal": "q"}, "attribution": {"conversion": "q", "touch": "p"},
        "experiment": {"exposure": "p", "variant": "variant", "conversion": "q"}, "accounts": {"account": "account"},
    }  # fmt: skip
    rows: list[Event] = [
        ("a", 1, "p", 9, "ads"),
        ("a", 1, "q", 8, None),
        ("b", 2, "p", 7, "mail"),
        ("b", 2, "r", 6, None),
    ]
    definition = {"kind": kind, **needed.get(kind, {})}
    chart = chart_of(parse_query(definition, "q"), answer(rows, **definition))
    assert chart.bars or kind == "retention"
    assert not {"a", "b", "c"} & chart.bars.keys()
    assert chart.markdown().startswith(f"| {kind} |")


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        ({"kind": "funel"}, "q.kind is 'funel', expected one of adoption, funnel"),
        ({"kind": "funnel"}, "q.steps is missing: funnel needs it"),
        ({"kind": "funnel", "steps": ["p"]}, "q.steps has 1 steps, expected two"),
        ({"kind": "funnel", "steps": "p,q", "per": "day"}, "q.per is 'day', expected one of session, person"),
        ({"kind": "funnel", "steps": "p,q", "span_hour": 3}, "q.span_hour is unknown; funnel knows days"),
        ({"kind": "adoption", "days": "-3"}, "q.days is '-3', expected a whole number above 0"),
        ({"kind": "adoption", "only": [1]}, r"q.only is \[1\], expected a list of events"),
    ],
)
def test_a_mistake_names_its_path(definition: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse_query(definition, "q")


def test_attribution_by_outcome_and_account_credits_touches_of_colleagues() -> None:
    rows: list[Event] = [
        ("a", 1, "p", 20, "ads"),
        ("b", 2, "p", 10, "mail"),
        ("b", 2, "r", 5, None),
        ("c", 3, "r", 4, None),
    ]
    events = frame(rows).with_columns(variant=pl.Series(["x", "y", "won", "lost"]), value=pl.lit("10"))
    definition = {"kind": "attribution", "conversion": "r", "touch": "p", "value": "value", "outcome": "variant"}
    alone = [("lost", "(none)", 1, 10.0, 10.0), ("won", "mail", 1, 10.0, 10.0)]
    assert (
        answer_of(events, **definition).select("outcome", "channel", "conversions", "first_touch", "linear").rows()
        == alone
    )
    together = answer_of(events, **definition, account="account")
    assert together.select("outcome", "channel", "conversions", "first_touch", "linear").rows() == [
        ("lost", "(none)", 1, 10.0, 10.0), ("won", "ads", 1, 10.0, 5.0), ("won", "mail", 1, 0.0, 5.0),
    ]  # fmt: skip
