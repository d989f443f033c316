from __future__ import annotations

import json
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_assets.identity.explain.what_if import INEXACT, KINDS, NO_PROFILE, SweepError, case_counts, variants, what_if
from heap_assets.identity.rules import IdentifierRule, Rules
from heap_assets.identity.schemas import LINKS
from heap_assets.identity.timeline import resolve
from heap_assets_tests.examples import examples

RULES = Rules(
    (
        IdentifierRule("crm_id", max_per_profile=1),
        IdentifierRule("email", max_per_profile=2),
        IdentifierRule("device_id", shared_above=1),
    )
)


def links(*rows: tuple[str, str | None]) -> pl.LazyFrame:
    ends = [(*a.split(":", 1), *(b.split(":", 1) if b else (None, None))) for a, b in rows]
    now = datetime(2026, 11, 1, tzinfo=UTC)
    return pl.LazyFrame([(*e, "s", now, now, 1, False) for e in ends], schema=LINKS, orient="row")


HOUSEHOLD = links(
    ("crm_id:1", "email:ann@x.io"),
    ("crm_id:1", "email:home@x.io"),
    ("crm_id:2", "email:home@x.io"),
    ("crm_id:2", "email:bob@x.io"),
    ("email:ann@x.io", "device_id:tv"),
    ("email:cid@x.io", "device_id:tv"),
    ("email:cid@x.io", "device_id:phone"),
)


def counts(*sweeps: str, of: pl.LazyFrame = HOUSEHOLD) -> dict[str, dict[str, Any]]:
    frame = what_if(of, RULES, sweeps).frame
    return {f"{row['setting']}={row['value']}": row for row in frame.iter_rows(named=True)}


def test_a_looser_limit_merges_and_a_tighter_one_splits() -> None:
    found = counts("crm_id=1,2,none", "email=1..3")
    today = found["today="]
    assert (today["profiles"], today["unchanged"], today["conflicts"], today["shared"]) == (3, 3, 1, 1)
    assert found["crm_id.max_per_profile=1"]["today"]
    assert (found["email.max_per_profile=1"]["split"], found["email.max_per_profile=1"]["unchanged"]) == (1, 2)
    looser = found["crm_id.max_per_profile=2"]
    assert (looser["merged"], looser["conflicts"]) == (0, 1), "three emails are still one too many"
    assert found["email.max_per_profile=3"]["unchanged"] == 3


def test_a_shared_value_that_is_one_no_more_merges_its_people() -> None:
    found = counts("device_id.shared_above=2,never", "email=5")
    freed = found["device_id.shared_above=2"]
    assert (freed["shared"], freed["merged"] + freed["resized"] + freed["overlapping"] > 0) == (0, True)
    assert freed["exact"]
    assert not found["device_id.shared_above=never"]["exact"]


def test_blocking_a_value_takes_it_and_its_links_away() -> None:
    found = counts("block=email: HOME@x.io,crm_id:nobody")
    without = found["block=email: HOME@x.io"]
    assert (without["profiles"], without["conflicts"], without["resized"], without["unchanged"]) == (3, 0, 1, 2)
    assert found["block=crm_id:nobody"]["unchanged"] == 3


def test_a_profile_of_which_nothing_is_left_is_removed() -> None:
    assert counts("block=email:lone@x.io", of=links(("email:lone@x.io", None)))["block=email:lone@x.io"]["removed"] == 1


labels = st.lists(
    st.tuples(st.sampled_from([0, 1, 2, 3, NO_PROFILE]), st.sampled_from([0, 1, 2, 3, NO_PROFILE])), max_size=14
)


def by_hand(pairs: list[tuple[Any, Any]], nobody: Any) -> dict[str, int]:
    """Every profile looked at as a set of identifiers."""
    old: dict[Any, set[int]] = defaultdict(set)
    new: dict[Any, set[int]] = defaultdict(set)
    for i, (a, b) in enumerate(pairs):
        old[a].add(i)
        new[b].add(i)
    known_old = {i for a, ids in old.items() if a != nobody for i in ids}
    known_new = {i for b, ids in new.items() if b != nobody for i in ids}
    result = dict.fromkeys(KINDS, 0)
    for profile, whole in old.items():
        if profile == nobody:
            continue
        own = whole & known_new
        parts = [ids for b, ids in new.items() if b != nobody and ids & own]
        others = [ids for a, ids in old.items() if a != nobody and any(ids & part for part in parts)]
        if not parts:
            kind = "removed"
        elif len(parts) == 1 and parts[0] & known_old == own:
            kind = "unchanged" if parts[0] == whole else "resized"
        elif len(parts) == 1 and all(ids & known_new <= parts[0] for ids in others):
            kind = "merged"
        elif all(part & known_old <= own for part in parts):
            kind = "split"
        else:
            kind = "overlapping"
        result[kind] += 1
    return result


@settings(max_examples=examples(200), deadline=None)
@given(labels)
def test_what_became_of_profiles_is_what_comparing_sets_says(pairs: list[tuple[int, int]]) -> None:
    before, after = (np.array([pair[side] for pair in pairs], np.uint32) for side in (0, 1))
    assert case_counts(before, after) == by_hand(pairs, NO_PROFILE)


random_links = st.lists(
    st.tuples(
        st.sampled_from(["crm_id:1", "crm_id:2", "crm_id:3", "email:a@x.io", "email:b@x.io"]),
        st.sampled_from(["email:a@x.io", "email:b@x.io", "email:c@x.io", "device_id:d", "device_id:e", None]),
    ).filter(lambda ends: ends[0] != ends[1]),
    min_size=1,
    max_size=12,
)


@settings(max_examples=15, deadline=None)
@given(random_links)
def test_a_variant_is_what_a_whole_run_with_its_rules_gives(rows: list[tuple[str, str | None]]) -> None:
    of = links(*rows)
    sweeps = ["crm_id=2", "email=1", "order=first_seen", "device_id.shared_above=2", "block=email:a@x.io"]
    result = what_if(of, RULES, sweeps).frame.rows(named=True)[1:]
    before = profiles_of(of, RULES)
    for variant, row in zip(variants(sweeps, RULES), result, strict=True):
        kept = of
        if variant.blocked:
            kept = links(*alone_without("email:a@x.io", rows))
        after = profiles_of(kept, variant.rules)
        pairs = [(before.get(name), after.get(name)) for name in sorted(before | after)]
        assert {kind: row[kind] for kind in KINDS} == by_hand(pairs, None)
        assert row["conflicts"] == resolve(kept, variant.rules).conflicts.collect().height
        assert row["profiles"] == len(set(after.values()) - {None})


def profiles_of(of: pl.LazyFrame, rules: Rules) -> dict[str, str | None]:
    return {f"{t}:{v}": p for t, v, p, *_ in resolve(of, rules).graph.collect().iter_rows()}


def alone_without(blocked: str, rows: list[tuple[str, str | None]]) -> list[tuple[str, str | None]]:
    """Links to a blocked value leave their other end as a sighting."""
    cut = [[end for end in ends if end is not None and end != blocked] for ends in rows]
    return [(left[0], left[1] if len(left) > 1 else None) for left in cut if left]


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ("email", "'email' is no sweep; ask for email=1..5"),
        ("phone=1..3", "unknown setting 'phone'; types are crm_id, email, device_id"),
        ("email.priority=1", "unknown setting 'email.priority'"),
        ("email=few", "'few' is neither a number nor 'none'"),
        ("email=²", "'²' is neither a number nor 'none'"),
        (f"email={'1' * 5000}", "is neither a number nor 'none'"),
        (f"email=1..{'1' * 5000}", "is neither a number nor 'none'"),
        ("email.shared_above=none", "'none' is neither a number nor 'never'"),
        ("order=newest", "order is priority or first_seen"),
        ("block=info@acme.io", "expected type:value"),
        ("email=1..999", "at most 50"),
        ("email=3..2", "nothing to vary"),
    ],
)
def test_a_sweep_that_cannot_be_read_says_what_can_be_asked(sweep: str, message: str) -> None:
    with pytest.raises(SweepError, match=message):
        variants([sweep], RULES)


def test_reads_as_a_table_and_as_json() -> None:
    result = what_if(HOUSEHOLD, RULES, ["crm_id=1..2", "block=email:home@x.io"])
    lines = result.text().splitlines()
    assert lines[0].split() == ["profiles", *KINDS, "conflicts", "shared", "biggest"]
    assert lines[1].split()[:3] == ["today", "3", "3"]
    assert lines[2].startswith("crm_id=1 (today)")
    assert lines[4].startswith("block=email:home@x.io ~")
    assert result.text().endswith(INEXACT)
    assert [row["setting"] for row in json.loads(result.json())][:2] == ["today", "crm_id.max_per_profile"]


def test_without_links_nothing_changes_and_nothing_breaks() -> None:
    result = what_if(pl.LazyFrame(schema=LINKS), RULES, ["email=1"])
    assert result.frame["profiles"].to_list() == [0, 0]
