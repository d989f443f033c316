from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_assets.errors import SettingsError
from heap_assets.profiles import audience_schema, event_table, parse_audience
from heap_assets.profiles.audiences import (
    Facts,
    events_by_user,
    events_needed,
    events_of_profiles,
    meeting,
    members,
    users_of_graph,
    with_audiences,
)
from heap_assets.yaml_core import read_yaml
from heap_assets_tests.examples import examples

AS_OF = datetime(2026, 11, 21, tzinfo=UTC)
UTC_TIME = pl.Datetime("us", "UTC")

CART_ABANDONERS = json.loads("""
{"name": "High-Value Cart Abandoners",
 "definition": {
  "events": [{"type": "Add to Cart", "properties": {"cart_value": {"gt": 100}}, "within_days": 7}],
  "exclude_events": [{"type": "Purchase", "within_days": 7}]}}
""")
POWER_USERS = json.loads("""
{"name": "Power Users - Upsell Ready",
 "definition": {
  "user_properties": {"plan_type": "free", "monthly_active_days": {"gte": 20}},
  "events": [{"type": "Feature Used", "count": {"gte": 50}, "within_days": 30}]}}
""")


def profiles(rows: Mapping[str, Mapping[str, Any]]) -> pl.LazyFrame:
    return pl.LazyFrame(
        [{"profile_id": name, **values} for name, values in rows.items()],
        schema={"profile_id": pl.String, "plan_type": pl.String, "monthly_active_days": pl.Int64},
    )


def events(rows: list[tuple[str, timedelta, str | None]], column: str = "cart_value") -> pl.LazyFrame:
    """Each row: profile, how long before AS_OF, the property as Heap exports it: text."""
    return pl.LazyFrame(
        [(profile, AS_OF - ago, value) for profile, ago, value in rows],
        schema={"profile_id": pl.String, "time": UTC_TIME, column: pl.String},
        orient="row",
    )


def found(definition: dict[str, Any], people: pl.LazyFrame, tables: dict[str, pl.LazyFrame]) -> list[str]:
    return members(parse_audience("a", definition), people, tables, AS_OF).collect()["profile_id"].to_list()


def days(n: float) -> timedelta:
    return timedelta(days=n)


def test_high_value_cart_abandoners_are_those_who_did_not_buy() -> None:
    people = profiles({name: {} for name in ("ann", "bob", "cid", "dan")})
    carts = events(
        [("ann", days(1), "150"), ("bob", days(1), "150.50"), ("cid", days(1), "99"), ("dan", days(8), "500")]
    )
    bought = events([("bob", days(2), None)])
    assert found(CART_ABANDONERS, people, {"add_to_cart": carts, "purchase": bought}) == ["ann"]


def test_power_users_are_counted_over_the_window_and_filtered_by_traits() -> None:
    used = events([(name, days(3), None) for name in ("ann", "bob", "cid") for _ in range(50)])
    people = profiles(
        {
            "ann": {"plan_type": "free", "monthly_active_days": 20},
            "bob": {"plan_type": "pro", "monthly_active_days": 25},
            "cid": {"plan_type": "free", "monthly_active_days": 19},
            "dan": {"plan_type": "free", "monthly_active_days": 30},
        }
    )
    assert found(POWER_USERS, people, {"feature_used": used}) == ["ann"]


@pytest.mark.parametrize(
    ("ago", "inside"),
    [
        (days(7), True),
        (days(7) + timedelta(microseconds=1), False),
        (timedelta(microseconds=1), True),
        (days(0), False),
    ],
)
def test_within_days_is_so_many_times_24_hours_up_to_and_without_as_of(ago: timedelta, inside: bool) -> None:
    definition = {"events": [{"type": "e", "within_days": 7}]}
    assert bool(found(definition, profiles({"ann": {}}), {"e": events([("ann", ago, None)])})) is inside


def test_a_count_with_an_upper_bound_holds_those_who_never_did_it() -> None:
    definition = {"events": [{"type": "e", "count": {"lt": 2}}]}
    table = events([("ann", days(1), None), ("ann", days(2), None), ("bob", days(1), None)])
    assert found(definition, profiles({"ann": {}, "bob": {}, "cid": {}}), {"e": table}) == ["bob", "cid"]


numbers = st.sampled_from([-1, 0, 99, 100, 100.5, 101])
conditions = st.one_of(
    numbers,
    st.sampled_from(["x", "y"]),
    st.dictionaries(st.sampled_from(["eq", "ne", "gt", "gte", "lt", "lte"]), numbers, min_size=1, max_size=2),
    st.fixed_dictionaries({"in": st.lists(st.sampled_from(["x", "100", "y"]), min_size=1, max_size=2)}),
    st.fixed_dictionaries({"exists": st.booleans()}),
)
criteria = st.fixed_dictionaries(
    {"type": st.sampled_from(["e", "f"])},
    optional={
        "properties": st.dictionaries(st.just("cart_value"), conditions, max_size=1),
        "within_days": st.sampled_from([1, 7, 0.5]),
        "count": st.one_of(
            st.integers(0, 3), st.dictionaries(st.sampled_from(["gte", "lt", "ne"]), st.integers(0, 3), min_size=1)
        ),
    },
)
definitions = st.fixed_dictionaries(
    {"events": st.lists(criteria, max_size=2), "exclude_events": st.lists(criteria, max_size=1)},
    optional={
        "user_properties": st.fixed_dictionaries(
            {}, optional={"plan_type": st.sampled_from(["x", {"ne": "x"}]), "monthly_active_days": numbers}
        )
    },
).filter(lambda d: any(d.values()))
event_rows = st.lists(
    st.tuples(
        st.sampled_from(["ann", "bob", "cid", "nobody"]),
        st.sampled_from([days(0), days(0.5), days(1), days(3), days(7), days(9)]),
        st.sampled_from([None, "x", "y", "100", "100.0", " 101 ", "-1", "1e2"]),
    ),
    max_size=12,
)

TESTS = {
    "eq": lambda v, o: v == o,
    "ne": lambda v, o: v != o,
    "gt": lambda v, o: v > o,
    "gte": lambda v, o: v >= o,
    "lt": lambda v, o: v < o,
    "lte": lambda v, o: v <= o,
}


def met(definition: Any, value: Any) -> bool:
    """One condition, by the letter of the docstrings and with no expression engine."""
    for name, operand in (definition if isinstance(definition, dict) else {"eq": definition}).items():
        if name == "exists":
            if (value is not None) is not operand:
                return False
        elif name == "in":
            if not any(met({"eq": choice}, value) for choice in operand):
                return False
        else:
            given_value: Any = value
            if isinstance(operand, int | float) and isinstance(value, str):
                try:
                    given_value = float(value)
                except ValueError:
                    given_value = None
            if given_value is None or not TESTS[name](given_value, operand):
                return False
    return True


def in_audience(definition: dict[str, Any], person: dict[str, Any], tables: dict[str, list[Any]]) -> bool:
    def times(criterion: dict[str, Any]) -> bool:
        n = sum(
            who == person["profile_id"]
            and ago > days(0)
            and ago <= days(criterion.get("within_days", 10_000))
            and all(met(c, value) for c in criterion.get("properties", {}).values())
            for who, ago, value in tables[criterion["type"]]
        )
        return met(criterion.get("count", {"gte": 1}), n)

    return (
        all(met(c, person[name]) for name, c in definition.get("user_properties", {}).items())
        and all(times(c) for c in definition.get("events", []))
        and not any(times(c) for c in definition.get("exclude_events", []))
    )


@settings(max_examples=examples(150), deadline=None)
@given(definitions, event_rows, event_rows)
def test_members_are_those_whom_reading_the_definition_row_by_row_finds(
    definition: dict[str, Any], e: list[Any], f: list[Any]
) -> None:
    people = [
        {"profile_id": "ann", "plan_type": "x", "monthly_active_days": 100},
        {"profile_id": "bob", "plan_type": "y", "monthly_active_days": 0},
        {"profile_id": "cid", "plan_type": None, "monthly_active_days": None},
    ]
    expected = [p["profile_id"] for p in people if in_audience(definition, p, {"e": e, "f": f})]
    frame = profiles({p["profile_id"]: p for p in people})
    assert found(definition, frame, {"e": events(e), "f": events(f)}) == expected


def test_the_two_named_audiences_equal_sql() -> None:
    people = profiles(
        {f"p{i:02}": {"plan_type": "free" if i % 3 else "pro", "monthly_active_days": 10 + i} for i in range(40)}
    )
    carts = events([(f"p{i % 40:02}", days(i % 11 + 0.25), str(60 + i * 7 % 90)) for i in range(90)])
    bought = events([(f"p{i * 3 % 40:02}", days(i % 10 + 0.25), None) for i in range(25)])
    used = events([(f"p{i % 25 + 10:02}", days(i % 40), None) for i in range(2000)])
    tables = {"add_to_cart": carts, "purchase": bought, "feature_used": used}
    with duckdb.connect() as sql:
        sql.execute("SET TimeZone = 'UTC'")
        for name, frame in {"people": people, **tables}.items():
            sql.register(name, frame.collect().to_arrow())
        abandoned = sql.execute(
            """SELECT DISTINCT profile_id FROM add_to_cart
               WHERE cart_value::DOUBLE > 100 AND time >= $at - INTERVAL 7 DAY AND time < $at AND profile_id NOT IN
                 (SELECT profile_id FROM purchase WHERE time >= $at - INTERVAL 7 DAY AND time < $at) ORDER BY 1""",
            {"at": AS_OF},
        ).fetchall()
        power = sql.execute(
            """SELECT profile_id FROM people JOIN feature_used USING (profile_id)
               WHERE plan_type = 'free' AND monthly_active_days >= 20 AND time >= $at - INTERVAL 30 DAY AND time < $at
               GROUP BY 1 HAVING count(*) >= 50 ORDER BY 1""",
            {"at": AS_OF},
        ).fetchall()
    assert abandoned
    assert power
    assert [(p,) for p in found(CART_ABANDONERS, people, tables)] == abandoned
    assert [(p,) for p in found(POWER_USERS, people, tables)] == power


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        (
            {"events": [{"type": "e", "properties": {"v": {"above": 1}}}]},
            r"x\.events\[0\]\.properties\.v\.above: unknown",
        ),
        ({"event": []}, r"x\.event is unknown; known are events, exclude_events, user_properties"),
        ({"events": [{"within_days": 7}]}, r"x\.events\[0\]\.type is missing"),
        ({"events": [{"type": "e", "within_days": 0}]}, r"x\.events\[0\]\.within_days is 0, expected a number of days"),
        ({"events": [{"type": "e", "count": {"in": [1]}}]}, r"x\.events\[0\]\.count\.in is .*expected a comparison"),
        ({"user_properties": {"plan": {"in": "pro"}}}, r"x\.user_properties\.plan\.in is 'pro', expected a list"),
        (
            {"user_properties": {"plan": {"exists": 1}}},
            r"x\.user_properties\.plan\.exists is 1, expected true or false",
        ),
        ({"user_properties": {"plan": None}}, r"x\.user_properties\.plan\.eq is None"),
        ({}, r"x has no condition: it would hold everyone"),
    ],
)
def test_a_mistake_in_a_definition_names_its_path(definition: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse_audience("a", definition, "x")


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        (
            {"user_properties": {"plan": "free"}},
            r"user_properties\.plan\.eq: there is no column 'plan'. Columns: profile_id",
        ),
        ({"events": [{"type": "Sign Up"}]}, r"events\[0\]\.type is 'Sign Up', which is no event table. Tables: e"),
        (
            {"user_properties": {"monthly_active_days": "many"}},
            r"'many', which cannot be compared with a column of type I",
        ),
    ],
)
def test_a_definition_that_does_not_fit_the_tables_says_so(definition: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        found(definition, profiles({"ann": {}}), {"e": events([])})


def test_dates_and_truth_values_compare_as_such() -> None:
    people = pl.LazyFrame(
        {
            "profile_id": ["ann", "bob"],
            "trial_end": [AS_OF, AS_OF + days(3)],
            "signed": [AS_OF.date(), AS_OF.date() - days(1)],
            "invited": ["TRUE", "false"],
            "paying": [True, False],
        },
        schema_overrides={"trial_end": UTC_TIME},
    )
    for definition in (
        {"trial_end": {"lt": "2026-11-22"}},
        {"trial_end": {"lt": "2026-11-22T01:00:00+01:00"}},
        {"signed": "2026-11-21"},
        {"signed": AS_OF.date()},
        {"invited": True},
        {"paying": True},
    ):
        assert found({"user_properties": definition}, people, {}) == ["ann"], definition


def test_an_event_is_found_by_the_name_that_spells_its_table() -> None:
    assert event_table("Add to Cart", {"add_to_cart": 0}) == "add_to_cart"
    assert event_table("Add to Cart", {"Add to Cart": 0, "add_to_cart": 0}) == "Add to Cart"
    assert event_table("Add", {"add_to_cart": 0}) is None


def test_which_events_to_read_and_how_far_back_is_known_beforehand() -> None:
    audiences = [parse_audience("a", CART_ABANDONERS), parse_audience("b", POWER_USERS)]
    forever = parse_audience("c", {"events": [{"type": "Purchase"}, {"type": "Add to Cart", "within_days": 2}]})
    assert events_needed(audiences) == {"Add to Cart": 7, "Purchase": 7, "Feature Used": 30}
    assert events_needed([*audiences, forever]) == {"Add to Cart": 7, "Purchase": None, "Feature Used": 30}


def test_events_of_a_shared_user_belong_to_nobody() -> None:
    graph = pl.LazyFrame(
        {
            "identifier_type": ["heap_user_id"] * 3 + ["email"],
            "identifier": ["1", "2", "3", "a@x.io"],
            "profile_id": ["ann", "ann", None, "ann"],
            "shared": [False, False, True, False],
        }
    )
    rows = pl.LazyFrame({"user_id": [1, 2, 3, 4]}, schema={"user_id": pl.Int64})
    assert events_of_profiles(rows, graph).sort("user_id").collect().rows() == [(1, "ann"), (2, "ann")]


def test_membership_reads_as_a_table_and_as_a_trait() -> None:
    people = profiles({"ann": {"plan_type": "pro"}, "bob": {"plan_type": "free"}})
    paying = parse_audience("paying", {"user_properties": {"plan_type": {"ne": "free"}}})
    nobody = parse_audience("nobody", {"user_properties": {"plan_type": "gold"}})
    assert members(paying, people, {}, AS_OF).collect().rows() == [("ann",)]
    assert members(nobody, people, {}, AS_OF).collect().rows() == []
    flagged = with_audiences(people, [paying, nobody], {}, AS_OF).select("profile_id", "paying", "nobody")
    assert flagged.collect().rows() == [("ann", True, False), ("bob", False, False)]
    assert with_audiences(people, [], {}, AS_OF).collect().equals(people.collect())


def test_each_further_audience_costs_the_same() -> None:
    people = profiles({"ann": {"plan_type": "pro"}, "bob": {"plan_type": "free"}})
    logins = pl.LazyFrame(
        {"profile_id": ["ann"], "time": [AS_OF - timedelta(days=1)]}, {"profile_id": pl.String, "time": UTC_TIME}
    )
    asked = {"user_properties": {"plan_type": "pro"}, "events": [{"type": "login"}]}
    # a plan that names the plan before it twice has 2**40 nodes
    flagged = with_audiences(people, [parse_audience(f"a{n}", asked) for n in range(40)], {"login": logins}, AS_OF)
    assert [row[3:] for row in flagged.collect().rows()] == [(True,) * 40, (False,) * 40]


def test_the_schema_knows_every_key_and_operator() -> None:
    schema = audience_schema()
    event = schema["properties"]["events"]["items"]["properties"]
    assert set(event) == {
        "type", "signal", "properties", "within_days", "within_hours", "within_minutes", "count",
    }  # fmt: skip
    assert set(schema["properties"]["user_properties"]["additionalProperties"]["anyOf"][1]["properties"]) == {
        "eq", "ne", "gt", "gte", "lt", "lte", "in", "not_in", "between", "exists", "contains", "starts_with",
        "ends_with", "matches", "contains_any", "contains_all", "within_days", "older_than_days",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("written", "members_"),
    [
        ("NO", ["norway"]), ("01234", ["zero"]), ("1234", ["plain", "float"]), ("1.10", ["version"]),
        ("1.1", ["version", "short"]), ('"1.1"', ["short"]), ("{gt: 1.05}", ["float", "plain", "short", "version"]),
        ("{in: [NO, 01234]}", ["norway", "zero"]), ("true", ["truth"]),
    ],
)  # fmt: skip
def test_unquoted_scalars_are_compared_as_they_are_written(written: str, members_: list[str]) -> None:
    values = {"norway": "NO", "zero": "01234", "plain": "1234", "float": "1234.0", "version": "1.10", "short": "1.1",
              "truth": "True", "false": "False"}  # fmt: skip
    profiles = pl.LazyFrame({"profile_id": list(values), "value": list(values.values())})
    definition = read_yaml(f"user_properties: {{value: {written}}}", "file")
    inside = members(parse_audience("a", definition), profiles, {}, datetime(2026, 1, 2, tzinfo=UTC))
    assert sorted(inside.collect()["profile_id"]) == sorted(members_)


def test_an_unquoted_number_is_a_number_for_a_column_of_numbers() -> None:
    profiles = pl.LazyFrame({"profile_id": ["a", "b"], "value": [1.1, 2.0]})
    definition = read_yaml("user_properties: {value: {gt: 1.10}}\n", "file")
    inside = members(parse_audience("a", definition), profiles, {}, datetime(2026, 1, 2, tzinfo=UTC))
    assert inside.collect()["profile_id"].to_list() == ["b"]


USERS_OF_EVENTS = st.lists(st.tuples(st.one_of(st.none(), st.integers(1, 6)), st.integers(-3, 3)), max_size=20)
OWNERS = st.dictionaries(st.integers(1, 7), st.sampled_from(["ann", "bob", "cyd"]), max_size=6)


@settings(deadline=None)
@given(USERS_OF_EVENTS, OWNERS, st.sampled_from([{"gte": 2}, {"lt": 2}, {"eq": 1}, {"gte": 1, "lt": 4}]))
def test_events_counted_by_user_are_those_of_profiles(
    events: list[tuple[int | None, int]], owners: dict[int, str], count: dict[str, Any]
) -> None:
    at = {"time": [AS_OF - timedelta(hours=hours + 0.5) for _, hours in events]}
    users = {"user_id": [user for user, _ in events]}
    rows = pl.LazyFrame({**users, **at}, schema={"user_id": pl.Int64, "time": pl.Datetime("us", "UTC")})
    graph = pl.LazyFrame(
        [("heap_user_id", str(user), name, False) for user, name in owners.items()],
        schema={"identifier_type": pl.String, "identifier": pl.String, "profile_id": pl.String, "shared": pl.Boolean},
        orient="row",
    )
    profiles = pl.LazyFrame({"profile_id": ["ann", "bob", "cyd", "dan"]})
    audience = parse_audience("a", {"events": [{"type": "e", "count": count, "within_days": 1}]})
    joined = Facts({"e": events_of_profiles(rows, graph)}, AS_OF)
    by_user = replace(joined, by_user={"e": events_by_user(rows)}, users=users_of_graph(graph).collect().lazy())
    sides = [meeting(audience, profiles, facts).collect()["profile_id"].to_list() for facts in (joined, by_user)]
    assert sides[0] == sides[1]
