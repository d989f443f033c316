from __future__ import annotations

from collections import defaultdict
from itertools import combinations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_assets.identity.quality import Quality, QualityError, quality

Grouping = list[tuple[str | None, str | None]]


def measured(grouping: Grouping) -> Quality:
    """`grouping`: (profile, person) per record."""
    frame = pl.DataFrame(
        {
            "identifier_type": "email",
            "identifier": [str(i) for i in range(len(grouping))],
            "profile_id": [found for found, _ in grouping],
            "person": [person for _, person in grouping],
        },
        schema_overrides={"profile_id": pl.String, "person": pl.String},
    ).lazy()
    return quality(frame.drop("person"), frame.drop("profile_id"))


def by_hand(grouping: Grouping) -> dict[str, float]:
    """Every pair and every record looked at, one by one."""
    known = [(found or f"alone {i}", person) for i, (found, person) in enumerate(grouping) if person is not None]
    clusters: dict[str, list[int]] = defaultdict(list)
    people: dict[str, list[int]] = defaultdict(list)
    for i, (found, person) in enumerate(known):
        clusters[found].append(i)
        people[person].append(i)
    found_pairs = {pair for members in clusters.values() for pair in combinations(members, 2)}
    true_pairs = {pair for members in people.values() for pair in combinations(members, 2)}
    both = len(found_pairs & true_pairs)
    shares = [
        (
            len(set(clusters[found]) & set(people[person])) / len(clusters[found]),
            len(set(clusters[found]) & set(people[person])) / len(people[person]),
        )
        for found, person in known
    ]
    return {
        "records": len(known),
        "clusters": len(clusters),
        "people": len(people),
        "precision": both / len(found_pairs) if found_pairs else 1.0,
        "recall": both / len(true_pairs) if true_pairs else 1.0,
        "bcubed_precision": sum(p for p, _ in shares) / len(known),
        "bcubed_recall": sum(r for _, r in shares) / len(known),
        "over_merged": sum(len({known[i][1] for i in m}) > 1 for m in clusters.values()),
        "under_merged": sum(len({known[i][0] for i in m}) > 1 for m in people.values()),
        "exact": len({frozenset(m) for m in clusters.values()} & {frozenset(m) for m in people.values()}),
        "largest_cluster": max(len(m) for m in clusters.values()),
    }


names = st.sampled_from(["a", "b", "c", "d"])


@settings(deadline=None)
@given(st.lists(st.tuples(st.one_of(st.none(), names), st.one_of(st.none(), names)), min_size=1, max_size=25))
def test_equals_counting_every_pair_and_every_record(grouping: Grouping) -> None:
    if all(person is None for _, person in grouping):
        with pytest.raises(QualityError, match="nothing to measure"):
            measured(grouping)
        return
    result = measured(grouping)
    for name, expected in by_hand(grouping).items():
        assert getattr(result, name) == pytest.approx(expected), name


def test_a_perfect_result_is_perfect_in_every_figure() -> None:
    result = measured([("p", "ann"), ("p", "ann"), ("q", "bob")])
    assert (result.precision, result.recall, result.bcubed_f1, result.exact_precision, result.exact_recall) == (1,) * 5
    assert (result.over_merge_rate, result.under_merge_rate, result.unresolved) == (0, 0, 0)


def test_leaving_everything_alone_has_no_recall_but_no_wrong_pair() -> None:
    result = measured([(None, "ann"), (None, "ann"), (None, "bob")])
    assert (result.precision, result.recall, result.unresolved, result.clusters) == (1, 0, 3, 3)


def test_a_record_the_result_never_saw_costs_recall() -> None:
    truth = pl.LazyFrame({"identifier_type": "email", "identifier": ["a", "b"], "person": "ann"})
    found = pl.LazyFrame({"identifier_type": ["email"], "identifier": ["a"], "profile_id": ["p"]})
    assert quality(found, truth).recall == 0


def test_one_giant_cluster_shows_in_pairs_and_hardly_in_bcubed() -> None:
    people = [(f"p{i}", f"p{i}") for i in range(1000) for _ in range(2)]
    glued = [("giant", f"g{i}") for i in range(50)]
    result = measured(people + glued)
    assert result.precision < 0.5 < 0.95 < result.bcubed_precision


def test_a_record_that_stands_twice_is_an_error_that_names_the_side() -> None:
    once = pl.LazyFrame({"identifier_type": ["email"], "identifier": ["a"], "profile_id": ["p"], "person": ["ann"]})
    with pytest.raises(QualityError, match="1 records stand more than once in the result"):
        quality(pl.concat([once, once]), once)
    with pytest.raises(QualityError, match="in the truth"):
        quality(once, pl.concat([once, once]))


def test_reads_as_three_lines_and_as_a_table() -> None:
    result = measured([("p", "ann"), ("p", "bob"), ("q", "bob")])
    assert result.text().splitlines()[2] == "clusters   0 of 2 exact   1 over-merged   1 of 2 people split"
    assert dict(result.frame().iter_rows())["over_merged"] == 1
