"""Entered, stayed, left and since when: against a day-by-day reading, merges and splits included."""

from __future__ import annotations

from datetime import date, timedelta

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_assets.profiles import current_members, membership

DAY = date(2026, 11, 1)
people = st.sets(st.sampled_from("abcd"))


def inside(members: set[str]) -> pl.LazyFrame:
    rows = [("x", one) for one in sorted(members)]
    return pl.LazyFrame(rows, schema={"audience": pl.String, "profile_id": pl.String}, orient="row")


def table(days: list[set[str]]) -> pl.LazyFrame:
    result = None
    for number, members in enumerate(days):
        result = membership(inside(members), DAY + timedelta(days=number), result)
    assert result is not None
    return result


@settings(max_examples=60, deadline=None)
@given(st.lists(people, min_size=1, max_size=4))
def test_every_member_entered_or_stayed_since_the_first_day_of_an_unbroken_row(days: list[set[str]]) -> None:
    expected = []
    for person in "abcd":
        last = len(days) - 1
        began = last
        while began >= 0 and person in days[began]:
            began -= 1
        began += 1
        if began <= last:
            change = "entered" if began == last else "stayed"
            expected.append(("x", person, change, DAY + timedelta(days=began)))
        elif last and person in days[last - 1]:
            expected.append(("x", person, "left", DAY + timedelta(days=last)))
    assert table(days).collect().rows() == expected


def changes(*pairs: tuple[str | None, str | None]) -> pl.LazyFrame:
    return pl.LazyFrame(pairs, schema={"old_profile_id": pl.String, "new_profile_id": pl.String}, orient="row")


def test_who_merges_into_another_profile_stays_since_the_earlier_of_both() -> None:
    first, second = table([{"a"}]), DAY + timedelta(days=1)
    both = membership(inside({"a", "b"}), second, first)
    merged = membership(inside({"c"}), DAY + timedelta(days=2), both, [changes(("a", "c"), ("b", "c"))])
    assert merged.collect().rows() == [("x", "c", "stayed", DAY)]
    twice = membership(
        inside({"d"}), DAY + timedelta(days=2), both, [changes(("a", "c"), ("b", "c")), changes(("c", "d"))]
    )
    assert twice.collect().rows() == [("x", "d", "stayed", DAY)]


def test_who_is_split_off_stays_and_who_is_removed_leaves() -> None:
    split = membership(
        inside({"a", "n"}), DAY + timedelta(days=1), table([{"a", "z"}]), [changes(("a", "a"), ("a", "n"), ("z", None))]
    )
    assert split.collect().rows() == [
        ("x", "a", "stayed", DAY), ("x", "n", "stayed", DAY), ("x", "z", "left", DAY + timedelta(days=1))
    ]  # fmt: skip


def test_a_table_of_an_older_release_has_members_only() -> None:
    old = inside({"a"})
    assert current_members(old).collect()["profile_id"].to_list() == ["a"]
    assert membership(inside({"a"}), DAY, old).collect().rows() == [("x", "a", "stayed", None)]
