"""What definitions can say beside the plain form: held against a reading row by row, and against the SQL of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import combinations
from typing import Any
from unittest.mock import patch

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from heap_assets.analytics import AudienceTables, Relation, audience_sql
from heap_assets.errors import SettingsError
from heap_assets.profiles import Accounts, Facts, chains, in_order, members, parse_audience, rows_of, with_audiences
from heap_assets_tests.examples import examples

AS_OF = datetime(2026, 11, 21, tzinfo=UTC)
PEOPLE = pl.Schema(
    {
        "profile_id": pl.String, "plan": pl.String, "seats": pl.Int64, "tags": pl.List(pl.String),
        "signed": pl.Datetime("us", "UTC"), "account_id": pl.String, "other": pl.Boolean,
    }
)  # fmt: skip
EVENTS = pl.Schema(
    {"profile_id": pl.String, "time": pl.Datetime("us", "UTC"), "event_id": pl.Int64, "value": pl.String}
)
ACCOUNTS = pl.Schema({"id": pl.Int64, "industry": pl.String})
ROWS = [
    {"profile_id": "ann", "plan": "pro max", "seats": 5, "tags": ["a", "b"], "signed": AS_OF - timedelta(days=2),
     "account_id": "1", "other": True},
    {"profile_id": "bob", "plan": "free", "seats": 0, "tags": [], "signed": AS_OF - timedelta(days=9),
     "account_id": "2", "other": False},
    {"profile_id": "cid", "plan": None, "seats": None, "tags": None, "signed": None, "account_id": None,
     "other": False},
]  # fmt: skip
COMPANIES = [{"id": 1, "industry": "retail"}, {"id": 2, "industry": None}]

user_conditions = st.fixed_dictionaries(
    {},
    optional={
        "plan": st.sampled_from(
            [
                {"contains": "ro"},
                {"starts_with": "pro"},
                {"ends_with": "e"},
                {"matches": "^f.*e$"},
                {"not_in": ["free"]},
            ]
        ),
        "seats": st.sampled_from([{"between": [0, 4]}, {"between": [1, 9]}, {"not_in": [5, 6]}]),
        "tags": st.sampled_from([{"contains": "a"}, {"contains_any": ["b", "z"]}, {"contains_all": ["a", "z"]}]),
        "signed": st.sampled_from([{"within_days": 2}, {"within_days": 5}, {"older_than_days": 5}]),
    },
)
steps = st.lists(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["e", "f"])},
        optional={"count": st.integers(1, 2), "properties": st.just({"value": {"gte": 5}})},
    ),
    min_size=1,
    max_size=3,
)
sequences = st.fixed_dictionaries(
    {"steps": steps}, optional={"span_minutes": st.sampled_from([30, 60, 90]), "within_hours": st.sampled_from([2, 3])}
)
plain = st.fixed_dictionaries(
    {},
    optional={
        "events": st.lists(
            st.fixed_dictionaries(
                {"type": st.sampled_from(["e", "f"])},
                optional={"within_minutes": st.sampled_from([60, 90]), "count": st.sampled_from([2, {"lt": 2}])},
            ),
            max_size=1,
        ),
        "user_properties": user_conditions,
        "account_properties": st.sampled_from([{"industry": "retail"}, {"industry": {"exists": False}}]),
        "sequences": st.lists(sequences, max_size=1),
        "audiences": st.just(["other"]),
    },
).filter(lambda d: any(d.values()))
nested = st.recursive(
    plain,
    lambda inner: st.fixed_dictionaries(
        {}, optional={name: st.lists(inner, min_size=1, max_size=2) for name in ("any", "all", "none")}
    ).filter(any),
    max_leaves=4,
)
event_rows = st.lists(
    st.tuples(
        st.sampled_from(["ann", "bob", "cid"]), st.sampled_from([0, 30, 60, 61, 90, 120, 150]), st.sampled_from("19")
    ),
    max_size=8,
)


def frame(rows: list[tuple[str, int, str]], first_id: int) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {"profile_id": person, "time": AS_OF - timedelta(minutes=ago), "event_id": first_id + i, "value": value}
            for i, (person, ago, value) in enumerate(rows)
        ],
        schema=EVENTS,
    )


def fits(definition: dict[str, Any], person: dict[str, Any], tables: dict[str, pl.DataFrame]) -> bool:
    """A definition, read by its letter for one person."""
    own = {
        name: sorted(
            (row["time"], name, row["event_id"], float(row["value"]))
            for row in table.filter(pl.col("profile_id") == person["profile_id"]).to_dicts()
            if row["time"] < AS_OF
        )
        for name, table in tables.items()
    }
    company = next((c for c in COMPANIES if str(c["id"]) == person["account_id"]), {"industry": None})

    def times(criterion: dict[str, Any]) -> bool:
        since = AS_OF - timedelta(minutes=criterion.get("within_minutes", 10**6))
        n = sum(row[0] >= since for row in own[criterion["type"]])
        count = criterion.get("count", {"gte": 1})
        return n == count if isinstance(count, int) else n >= count["gte"] if "gte" in count else n < count["lt"]

    def happens(sequence: dict[str, Any]) -> bool:
        wanted_steps = [step for step in sequence["steps"] for _ in range(step.get("count", 1))]
        since = AS_OF - timedelta(hours=sequence.get("within_hours", 10**5))
        rows = sorted(row for table in own.values() for row in table if row[0] >= since)
        span = timedelta(minutes=sequence.get("span_minutes", 10**6))
        return any(
            chosen[-1][0] - chosen[0][0] <= span
            and all(
                row[1] == step["type"] and (row[3] >= 5 or "properties" not in step)
                for row, step in zip(chosen, wanted_steps, strict=True)
            )
            for chosen in combinations(rows, len(wanted_steps))
        )

    return (
        all(trait(condition, person[name]) for name, condition in definition.get("user_properties", {}).items())
        and all(
            company["industry"] == c if isinstance(c, str) else company["industry"] is None
            for c in definition.get("account_properties", {}).values()
        )
        and all(person[name] for name in definition.get("audiences", []))
        and all(map(times, definition.get("events", [])))
        and all(map(happens, definition.get("sequences", [])))
        and all(fits(part, person, tables) for part in definition.get("all", []))
        and (not definition.get("any") or any(fits(part, person, tables) for part in definition["any"]))
        and not any(fits(part, person, tables) for part in definition.get("none", []))
    )


def trait(condition: dict[str, Any], value: Any) -> bool:
    import re

    ((name, operand),) = condition.items()
    if value is None:
        return False
    tests = {
        "contains": lambda: operand in value,
        "starts_with": lambda: value.startswith(operand),
        "ends_with": lambda: value.endswith(operand),
        "matches": lambda: re.search(operand, value) is not None,
        "not_in": lambda: value not in operand,
        "between": lambda: operand[0] <= value <= operand[1],
        "contains_any": lambda: bool({*operand} & {*value}),
        "contains_all": lambda: {*operand} <= {*value},
        "within_days": lambda: AS_OF - timedelta(days=operand) <= value < AS_OF,
        "older_than_days": lambda: value < AS_OF - timedelta(days=operand),
    }
    return bool(tests[name]())


@settings(max_examples=examples(60), deadline=None)
@given(sequences, event_rows, event_rows)
def test_people_whose_ids_share_a_hash_are_different_people(
    definition: dict[str, Any], e: list[Any], f: list[Any]
) -> None:
    facts = Facts({"e": frame(e, 0).lazy(), "f": frame(f, 100).lazy()}, AS_OF)
    (sequence,) = parse_audience("a", {"sequences": [definition]}).sequences

    def ends() -> pl.DataFrame:
        rows = chains(sequence.steps, partial(rows_of, facts=facts))
        return rows.collect().sort("profile_id", maintain_order=True)

    by_their_hashes = ends()
    with patch("heap_assets.profiles.sequences._hashed", lambda profile_id: profile_id.str.len_chars()):
        assert_frame_equal(ends(), by_their_hashes)


@settings(max_examples=examples(200), deadline=None)
@given(nested, event_rows, event_rows)
def test_members_are_those_of_a_reading_row_by_row_and_those_of_the_sql(
    definition: dict[str, Any], e: list[Any], f: list[Any]
) -> None:
    tables = {"e": frame(e, 0), "f": frame(f, 100)}
    people, companies = pl.DataFrame(ROWS, schema=PEOPLE), pl.DataFrame(COMPANIES, schema=ACCOUNTS)
    expected = [row["profile_id"] for row in ROWS if fits(definition, row, tables)]
    audience = parse_audience("a", definition)
    lazy = {name: table.lazy() for name, table in tables.items()}
    accounts = Accounts(companies.lazy(), "id", "account_id")
    assert members(audience, people.lazy(), lazy, AS_OF, accounts).collect()["profile_id"].to_list() == expected

    relations = {name: Relation(name, EVENTS) for name in tables}
    company = (Relation("companies", ACCOUNTS), "id", "account_id")
    by_column = AudienceTables(Relation("people", PEOPLE), relations, AS_OF, company)
    by_definition = replace(by_column, audiences={"other": parse_audience("other", {"user_properties": {"seats": 5}})})
    statement, inlined = audience_sql(audience, by_column), audience_sql(audience, by_definition)
    with duckdb.connect() as sql:
        sql.execute("SET TimeZone = 'UTC'")
        for name, table in {"people": people, "companies": companies, **tables}.items():
            sql.register(name, table.to_arrow())
        for one in (statement, inlined):
            assert [row[0] for row in sql.execute(one.text(), one.parameters).fetchall()] == expected
    assert "@p1" in statement.text("bigquery") or not statement.parameters


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        ({"events": [{"type": "e", "within_days": 1, "within_hours": 2}]}, "within_days and within_hours"),
        ({"events": [{"type": "e", "within_hours": -1}]}, r"within_hours is -1, expected a number of hours above 0"),
        ({"events": [{"type": "e", "signal": "s"}]}, r"events\[0\] has type and signal, expected one"),
        ({"sequences": [{"steps": []}]}, r"sequences\[0\]\.steps has 0 events"),
        ({"sequences": [{"steps": [{"type": "e", "count": 0}]}]}, r"steps\[0\]\.count is 0, expected a whole"),
        ({"any": [{"events": [{"type": "e", "when": 1}]}]}, r"x\.any\[0\]\.events\[0\]\.when is unknown"),
        ({"any": [{}]}, r"x\.any\[0\] has no condition"),
        ({"audiences": "a"}, r"x\.audiences is .*, expected a list of names"),
        ({"user_properties": {"a": {"matches": "("}}}, r"x\.user_properties\.a\.matches is '\(', which is no regular"),
        ({"user_properties": {"a": {"between": [1]}}}, r"between is \[1\], expected a list of two"),
        ({"user_properties": {"a": {"within_days": "x"}}}, r"within_days is 'x', expected a number of days"),
        ({"user_properties": {"a": {"starts_with": 1}}}, r"starts_with is 1, expected a text"),
    ],
)
def test_a_mistake_in_a_definition_names_its_path(definition: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse_audience("a", definition, "x")


@pytest.mark.parametrize(
    "conditions",
    [
        {"seats": {"contains": "a"}}, {"seats": {"within_days": 2}}, {"plan": {"contains_any": ["a"]}},
        {"tags": {"contains": 1}},
    ],
)  # fmt: skip
def test_an_operator_that_does_not_fit_its_column_is_a_mistake(conditions: dict[str, Any]) -> None:
    audience = parse_audience("a", {"user_properties": conditions})
    with pytest.raises(SettingsError, match=r"user_properties\."):
        members(audience, pl.LazyFrame(ROWS, schema=PEOPLE), {}, AS_OF)


def test_days_are_counted_on_dates_and_on_text_that_is_a_date_too() -> None:
    people = pl.LazyFrame(
        {"profile_id": ["a", "b"], "day": [date(2026, 11, 20), date(2026, 11, 1)], "text": ["2026-11-20", "no date"]}
    )
    for column in ("day", "text"):
        audience = parse_audience("a", {"user_properties": {column: {"within_days": 3}}})
        assert members(audience, people, {}, AS_OF).collect()["profile_id"].to_list() == ["a"]


def test_audiences_name_each_other_in_any_order_but_not_in_a_circle() -> None:
    first = parse_audience("first", {"audiences": ["second"], "user_properties": {"seats": {"gte": 1}}})
    second = parse_audience("second", {"user_properties": {"plan": {"exists": True}}})
    flagged = with_audiences(pl.LazyFrame(ROWS, schema=PEOPLE), [first, second], {}, AS_OF).collect()
    assert flagged.columns[-2:] == ["first", "second"]
    assert flagged.select("profile_id", "first", "second").rows() == [
        ("ann", True, True), ("bob", False, True), ("cid", False, False)
    ]  # fmt: skip
    circle = parse_audience("second", {"any": [{"audiences": ["first"]}]})
    with pytest.raises(SettingsError, match="first depends on itself: first > second > first"):
        in_order([first, circle])
    with pytest.raises(SettingsError, match="names the audience 'second', which there is not"):
        in_order([first])
