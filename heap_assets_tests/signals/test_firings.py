"""Signals fire once: day by day, rebuilt, with late events and merges, held against a reading event by event."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_assets.errors import SettingsError
from heap_assets.profiles import Facts
from heap_assets.signals import (
    FIRINGS,
    TEMPLATES,
    Signal,
    SignalDay,
    candidates,
    due_steps,
    new_firings,
    parse_signal,
)
from heap_assets.yaml_core import read_yaml
from heap_assets_tests.examples import examples

START = datetime(2026, 11, 1, tzinfo=UTC)
EVENTS = pl.Schema(
    {"profile_id": pl.String, "time": pl.Datetime("us", "UTC"), "event_id": pl.Int64, "user_id": pl.Int64}
)
Rows = list[tuple[str, str, float]]
"""Event, person, hours after START."""


def tables(rows: Rows, names: str = "pu") -> dict[str, pl.LazyFrame]:
    frames = {}
    for name in names:
        own = [
            {"profile_id": person, "time": START + timedelta(hours=hours), "event_id": i, "user_id": ord(person[0])}
            for i, (event, person, hours) in enumerate(rows)
            if event == name
        ]
        frames[name] = pl.LazyFrame(own, schema=EVENTS)
    return frames


def people(ids: str = "ab", **traits: Any) -> pl.LazyFrame:
    return pl.LazyFrame(
        [
            {
                "profile_id": one, "heap_identity": f"{one}@x.example", "heap_user_ids": [ord(one)],
                "identifiers": [{"type": "heap_identity", "value": one}],
                **{name: values.get(one) for name, values in traits.items()},
            }
            for one in ids
        ]
    )  # fmt: skip


class Register:
    """What a lake keeps of a signal: the firings of each day."""

    def __init__(self, signal: Signal) -> None:
        self.signal = signal
        self.days: dict[int, pl.DataFrame] = {}

    def build(
        self, number: int, rows: Rows, before: pl.LazyFrame | None = None, now: pl.LazyFrame | None = None,
        ids: dict[str, str] | None = None,
    ) -> pl.DataFrame:  # fmt: skip
        """Build a day from the events that are known by now; `ids`: what became of profiles."""
        end = START + timedelta(days=number + 1)
        profiles = people() if now is None else now
        day = SignalDay(profiles, Facts(tables(rows), end), before)
        fired = pl.concat(list(self.days.values()) or [pl.DataFrame(schema=FIRINGS)], how="vertical")
        fired = fired.with_columns(pl.col("profile_id").replace(ids or {}))
        firings = new_firings(self.signal, candidates(self.signal, day), fired, profiles, end)
        own = self.days.get(number, pl.DataFrame(schema=FIRINGS))
        self.days[number] = pl.concat([own, firings.select(*FIRINGS)]).sort("time")
        return firings

    def times(self) -> list[tuple[str, float]]:
        rows = pl.concat(list(self.days.values())).sort("time", "profile_id")
        return [(p, (t - START) / timedelta(hours=1)) for p, t in rows.select("profile_id", "time").rows()]


INTENT = parse_signal(
    "intent",
    {"sequence": {"steps": [{"type": "p", "count": 2}, {"type": "u"}], "span_hours": 3}, "cool_down_hours": 30},
)
rows_of_people = st.lists(
    st.tuples(st.sampled_from("pu"), st.sampled_from("ab"), st.integers(0, 95).map(lambda n: n / 2 * 1.5)), max_size=14
)


def expected_firings(rows: Rows) -> list[tuple[str, float]]:
    """Take each person's events in order; fire at the end of a chain unless it is within the cool-down."""
    result = []
    for person in "ab":
        own = sorted((hours, event, i) for i, (event, one, hours) in enumerate(rows) if one == person)
        last = None
        for position, (hours, event, _) in enumerate(own):
            chain = event == "u" and any(
                x[1] == y[1] == "p" and hours - x[0] <= 3 for x, y in combinations(own[:position], 2)
            )
            if chain and (last is None or hours - last >= 30):
                last = hours
                result.append((person, hours))
    return sorted(result, key=lambda one: (one[1], one[0]))


@settings(max_examples=examples(150), deadline=None)
@given(rows_of_people, st.data())
def test_day_by_day_each_chain_fires_once_outside_the_cool_down(rows: Rows, data: st.DataObject) -> None:
    register = Register(INTENT)
    for number in range(3):
        register.build(number, rows)
        for again in data.draw(st.lists(st.integers(0, number), max_size=2)):
            assert register.build(again, rows).height == 0
    assert register.times() == expected_firings(rows)


@settings(max_examples=examples(100), deadline=None)
@given(rows_of_people, rows_of_people, st.permutations([0, 1, 2]))
def test_late_events_add_firings_but_never_within_the_cool_down_of_one(
    rows: Rows, late: Rows, order: list[int]
) -> None:
    register = Register(INTENT)
    for number in range(3):
        register.build(number, rows)
    first = register.times()
    for number in order:
        register.build(number, rows + late)
    times = register.times()
    assert set(first) <= set(times)
    for one, other in combinations(times, 2):
        assert one[0] != other[0] or abs(one[1] - other[1]) >= 30


def test_a_cool_down_holds_for_people_that_became_one() -> None:
    register = Register(INTENT)
    rows: Rows = [("p", "a", 1), ("p", "a", 1.5), ("u", "a", 2), ("p", "b", 25), ("p", "b", 25.5), ("u", "b", 26)]
    register.build(0, rows)
    merged = [(event, "b", hours) for event, _, hours in rows]
    assert register.build(1, merged, now=people("b"), ids={"a": "b"}).height == 0
    apart = Register(INTENT)
    apart.build(0, rows)
    assert apart.build(1, rows).height == 1


ONBOARDING = parse_signal(
    "late", {"missing": {"start": {"type": "p"}, "completion": {"type": "u"}, "within_hours": 20}}
)


def test_a_start_without_completion_fires_once_when_it_is_overdue() -> None:
    register = Register(ONBOARDING)
    rows: Rows = [("p", "a", 1), ("p", "a", 5), ("p", "b", 2), ("u", "b", 10)]
    for number in (0, 1, 0, 1):
        register.build(number, rows)
    assert register.times() == [("a", 21)]


def test_a_completion_that_comes_late_stops_the_attempt() -> None:
    rows: Rows = [("p", "a", 1), ("u", "a", 23)]
    day = SignalDay(people(), Facts(tables(rows), START + timedelta(days=1)), None)
    [stopped] = due_steps(ONBOARDING, day).collect()["stopped"]
    assert stopped
    assert candidates(ONBOARDING, day).height == 0


def test_the_next_attempt_fires_of_its_own_unless_a_cool_down_says_otherwise() -> None:
    rows: Rows = [("p", "a", 1), ("p", "a", 40)]
    once = Register(ONBOARDING)
    for number in range(3):
        once.build(number, rows)
    assert once.times() == [("a", 21)]
    definition = {"missing": {"start": {"type": "p"}, "completion": {"type": "u"}, "within_hours": 20}}
    again = Register(parse_signal("late", {**definition, "cool_down_hours": 24}))
    for number in range(3):
        again.build(number, rows)
    assert again.times() == [("a", 21), ("a", 60)]


TRIAL = parse_signal(
    "trial",
    {
        "campaign": {
            "anchor": {"type": "p"},
            "steps": [{"name": "two", "after_days": 2}, {"name": "one", "after_days": 1}],
            "stop": {"type": "u"},
        }
    },
)


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(st.tuples(st.sampled_from("pu"), st.sampled_from("ab"), st.integers(0, 60)), max_size=6))
def test_each_step_of_a_campaign_fires_once_a_person_and_none_after_the_stop(rows: Rows) -> None:
    register = Register(TRIAL)
    for number in (0, 1, 2, 3, 4, 2, 3):
        register.build(number, rows)
    fired = pl.concat(list(register.days.values()))
    assert fired.select("profile_id", "step").is_unique().all()
    for person, step, time in fired.select("profile_id", "step", "time").rows():
        start = time - timedelta(days={"one": 1, "two": 2}[step])
        end = datetime(time.year, time.month, time.day, tzinfo=UTC) + timedelta(days=1)
        own = [(event, START + timedelta(hours=hours)) for event, one, hours in rows if one == person]
        assert ("p", start) in own
        assert not [at for event, at in own if event == "u" and start < at < end]


def test_a_threshold_fires_when_it_is_crossed_and_not_while_it_is_met() -> None:
    signal = parse_signal("usage", {"threshold": {"type": "p", "count": {"gte": 2}, "within_days": 1}})
    register = Register(signal)
    rows: Rows = [("p", "a", 3), ("p", "a", 25), ("p", "a", 26), ("p", "a", 30), ("p", "a", 50), ("p", "a", 51)]
    assert register.build(0, rows).height == 0
    assert register.build(1, rows, before=people()).height == 1
    assert register.build(2, rows, before=people()).height == 0


def test_a_change_is_from_one_value_to_another_of_everyone_that_became_the_person() -> None:
    definition = {
        "changed": {"trait": "plan", "from": ["free", "trial"], "to": {"in": ["pro"]}},
        "properties": {"to": "plan"},
    }
    signal = parse_signal("upgrade", definition)
    now = people(plan={"a": "pro", "b": "pro"})
    register = Register(signal)
    fired = register.build(0, [], before=people(plan={"a": "free", "b": "pro"}), now=now)
    assert fired.select("profile_id", "to", "live").rows() == [("a", "pro", True)]
    merged = pl.concat([people("a", plan={"a": "free"}), people("a", plan={"a": "pro"})])
    assert Register(signal).build(0, [], before=merged, now=now).height == 0
    assert Register(signal).build(0, [], before=None, now=now).height == 0


def test_inactivity_fires_on_the_day_that_it_is_long_enough() -> None:
    signal = parse_signal("quiet", {"inactive": {"days": 2}})
    register = Register(signal)
    seen = people(last_active={"a": "2026-11-01", "b": "2026-11-03"})
    counts = [register.build(number, [], before=seen, now=seen).height for number in range(4)]
    assert counts == [0, 0, 1, 0]


def test_what_is_computed_long_after_its_time_is_not_live() -> None:
    rows: Rows = [("p", "a", 1), ("p", "a", 1.5), ("u", "a", 2)]
    day = SignalDay(people(), Facts(tables(rows), START + timedelta(days=1)), None)
    empty = pl.DataFrame(schema=FIRINGS)
    found = candidates(INTENT, day)
    later = START + timedelta(days=90)
    assert new_firings(INTENT, found, empty, people(), later)["live"].to_list() == [False]
    asked = parse_signal("intent", {**read_yaml(TEMPLATES["high_intent"], "x")["high_intent"], "backfill": True})
    assert asked.backfill


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_is_a_rule(name: str) -> None:
    [(key, definition)] = read_yaml(TEMPLATES[name], name).items()
    assert parse_signal(key, definition).name == name


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        ({}, "signals.s has no rule, expected one of sequence"),
        ({"sequence": {"steps": [{"type": "p"}]}}, "signals.s.sequence has no span"),
        ({"inactive": {"days": 0}}, "signals.s.inactive.days is 0, expected a number"),
        ({"inactive": {"days": 1}, "changed": {}}, "signals.s has inactive and changed, expected one"),
        ({"changed": {"trait": "plan"}}, "signals.s.changed: expected trait and to"),
        ({"missing": {"start": {"type": "p"}, "completion": {"type": "u"}}}, "signals.s.missing has no time"),
        ({"campaign": {"anchor": {"type": "p"}, "steps": []}}, "signals.s.campaign.steps: expected a list"),
        ({"campaign": {"anchor": {}, "steps": [{"name": "a", "after_days": 1}]}}, "campaign.anchor.type is missing"),
        ({"inactive": {"days": 1}, "when": 1}, "signals.s.when is unknown"),
        ({"inactive": {"days": 1}, "properties": {"time": "plan"}}, "every firing has this column"),
    ],
)
def test_a_mistake_in_a_rule_names_its_path(definition: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse_signal("s", definition)
