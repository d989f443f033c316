"""Which key a profile is sent to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_assets.activation import Addressed, AddressPolicy, addressed
from heap_assets.errors import DeliveryError

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def profiles(**identities: list[str]) -> pl.LazyFrame:
    frame = pl.DataFrame(
        {"profile_id": list(identities), "heap_identities": list(identities.values())},
        schema={"profile_id": pl.String, "heap_identities": pl.List(pl.String)},
    )
    return frame.with_columns(plan=pl.lit("pro")).lazy()


def users(*known: str, migrated: tuple[str, ...] = ()) -> pl.LazyFrame:
    every = [*known, *migrated]
    return pl.LazyFrame(
        {
            "identity": every,
            "migrated_to": [None] * len(known) + [9] * len(migrated),
            "last_modified": [NOON + timedelta(hours=n) for n in range(len(every))],
        },
        schema={"identity": pl.String, "migrated_to": pl.Int64, "last_modified": pl.Datetime("us", "UTC")},
    )


def keys(result: Addressed) -> list[str]:
    return result.rows.collect()["key"].to_list()


def reasons(frame: pl.LazyFrame) -> dict[str | None, str]:
    return dict(frame.select("key", "reason").collect().iter_rows())


def test_only_identities_that_heap_knows_and_that_did_not_migrate_are_written_to() -> None:
    result = addressed(profiles(a=["ann"], b=["bob"], c=["cat"]), users("ann", migrated=("bob",)))
    assert keys(result) == ["ann"]
    assert reasons(result.held) == {
        "bob": "not in heap/users, or migrated away",
        "cat": "not in heap/users, or migrated away",
    }
    assert result.rows.collect().columns == ["profile_id", "key", "heap_identities", "plan"]


def test_new_identities_go_out_only_if_somebody_asked_for_it() -> None:
    result = addressed(profiles(a=["ann"]), users(), AddressPolicy(allow_new=True))
    assert keys(result) == ["ann"]
    assert result.counts["would_create"] == 1


def test_suppressed_people_are_never_written_to() -> None:
    policy = AddressPolicy(suppressed=frozenset({"ann"}), allow_new=True)
    result = addressed(profiles(a=["ann"], b=["bob"]), users("ann", "bob"), policy)
    assert keys(result) == ["bob"]
    assert reasons(result.held) == {"ann": "suppressed"}


@pytest.mark.parametrize(("choice", "expected"), [("all", ["a1", "a2"]), ("one", ["a2"]), ("none", [])])
def test_a_profile_with_several_identities_goes_to_all_one_or_none(choice: str, expected: list[str]) -> None:
    result = addressed(profiles(a=["a1", "a2"]), users("a1", "a2"), AddressPolicy(identities=choice))  # type: ignore[arg-type]
    assert keys(result) == expected
    assert result.counts["several_identities"] == 1


def test_the_one_identity_is_the_profiles_own_if_heap_knows_it() -> None:
    one = AddressPolicy(identities="one")
    chosen = profiles(a=["a1", "a2"]).with_columns(heap_identity=pl.lit("a1"))
    assert keys(addressed(chosen, users("a1", "a2"), one)) == ["a1"]
    assert keys(addressed(chosen, users("a2"), one)) == ["a2"]


def test_two_profiles_on_one_identity_are_both_invalid() -> None:
    result = addressed(profiles(a=["ann", "x"], b=["ann"]), users("ann", "x"))
    assert keys(result) == ["x"]
    invalid = result.invalid.collect()
    assert invalid["profile_id"].sort().to_list() == ["a", "b"]


def test_a_profile_without_identity_is_held_and_counted() -> None:
    result = addressed(profiles(a=[]), users("ann"))
    assert reasons(result.held) == {None: "the profile has no Heap identity yet"}
    assert result.counts["without_identity"] == 1


def test_a_hold_names_the_key_of_its_own_sync() -> None:
    result = addressed(profiles(a=[]), users(), AddressPolicy(missing="the profile has no crm_id yet"))
    assert reasons(result.held) == {None: "the profile has no crm_id yet"}


def test_a_profile_whose_identity_was_refused_is_held_for_that() -> None:
    refused = pl.LazyFrame({"profile_id": ["b", "z"], "reason": ["its Heap identity is no identifier: …", "…"]})
    result = addressed(profiles(a=[], b=[], c=["ann"]), users("ann"), refused=refused)
    assert dict(result.held.select("profile_id", "reason").collect().iter_rows()) == {
        "a": "the profile has no Heap identity yet",
        "b": "its Heap identity is no identifier: …",
    }
    assert keys(result) == ["ann"]


def test_a_users_table_older_than_two_exports_stops_the_sync() -> None:
    fresh = AddressPolicy(users_as_of=NOON, now=NOON + timedelta(hours=47))
    assert keys(addressed(profiles(a=["ann"]), users("ann"), fresh)) == ["ann"]
    stale = AddressPolicy(users_as_of=NOON, now=NOON + timedelta(hours=49))
    with pytest.raises(DeliveryError, match="49 hours old"):
        addressed(profiles(a=["ann"]), users("ann"), stale)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcd"), st.lists(st.sampled_from("uvwxyz"), max_size=3, unique=True)),
    st.sets(st.sampled_from("uvwxyz")),
    st.sampled_from(["all", "one", "none"]),
)
def test_every_identity_ends_in_exactly_one_place_and_never_on_two_people(
    identities: dict[str, list[str]], known: set[str], choice: str
) -> None:
    result = addressed(profiles(**identities), users(*sorted(known)), AddressPolicy(identities=choice))  # type: ignore[arg-type]
    sent = keys(result)
    assert len(sent) == len(set(sent))
    assert set(sent) <= known
    owners = [key for listed in identities.values() for key in listed]
    assert all(owners.count(key) == 1 for key in sent)
    if choice == "all":
        aside = [*result.held.collect()["key"].drop_nulls(), *result.invalid.collect()["key"]]
        assert sorted([*sent, *aside]) == sorted(owners)
