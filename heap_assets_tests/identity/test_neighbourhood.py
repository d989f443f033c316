"""Links that come in piece by piece: resolving their neighbourhoods gives what resolving all links at once gives."""

from __future__ import annotations

from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_assets.identity import IdentifierRule, LinkIndex, Rules, identifier_hashes, resolve
from heap_assets.identity.schemas import as_links
from heap_assets_tests.examples import examples
from heap_assets_tests.identity.builders import Book, Row, books, links_frame, rows, rules_of

Graph = dict[tuple[str, str], tuple[Any, ...]]


def _graph(frame: pl.DataFrame) -> Graph:
    columns = ("profile_id", "shared", "first_seen", "last_seen")
    return {(row["identifier_type"], row["identifier"]): tuple(row[c] for c in columns) for row in frame.to_dicts()}


def _conflicts(frame: pl.DataFrame) -> set[tuple[Any, ...]]:
    return set(frame.select("type_a", "value_a", "type_b", "value_b", "limited_type", "count_a", "count_b").iter_rows())


class _Live:
    """A graph that follows links as the live loop does."""

    def __init__(self, links: pl.DataFrame, rules: Rules) -> None:
        self.rules = rules
        resolution = resolve(links.lazy(), rules, "reference")
        graph = resolution.graph.collect()
        self.index = LinkIndex(links, graph.filter("shared"), rules)
        self.graph = _graph(graph)
        self.conflicts = _conflicts(resolution.conflicts.collect())

    def add(self, links: pl.DataFrame) -> int:
        near = self.index.neighbourhood(self.index.add(links))
        resolution = resolve(near.links.lazy(), self.rules, "reference")
        graph = resolution.graph.collect()
        hashes = identifier_hashes(graph["identifier_type"], graph["identifier"])
        within = graph.filter(pl.Series([one in near.inside for one in hashes.tolist()], dtype=pl.Boolean))
        shared = within.filter("shared")
        self.index.mark_shared(near.inside, identifier_hashes(shared["identifier_type"], shared["identifier"]).tolist())
        self.graph |= _graph(within)
        resolved = set(_graph(within))
        kept = {one for one in self.conflicts if not {(one[0], one[1]), (one[2], one[3])} & resolved}
        added = _conflicts(resolution.conflicts.collect())
        self.conflicts = kept | {one for one in added if {(one[0], one[1]), (one[2], one[3])} <= resolved}
        return len(near.inside)


@settings(max_examples=examples(400), deadline=None)
@given(books(), st.lists(rows(), max_size=14), st.integers(0, 100), st.integers(1, 4))
def test_neighbourhoods_resolved_one_after_the_other_equal_all_links_resolved_at_once(
    book: Book, links: list[Row], share: int, size: int
) -> None:
    cut = len(links) * share // 100
    live = _Live(links_frame(links[:cut]).collect(), rules_of(book))
    for start in range(cut, len(links), size):
        live.add(links_frame(links[start : start + size]).collect())
    whole = resolve(links_frame(links), rules_of(book), "reference")
    expected = _graph(whole.graph.collect())
    unshared = {key: row for key, row in expected.items() if not row[1]}
    assert {key: row for key, row in live.graph.items() if not row[1]} == unshared
    assert {key: row[:2] for key, row in live.graph.items()} == {key: row[:2] for key, row in expected.items()}
    assert live.conflicts == _conflicts(whole.conflicts.collect())


def test_a_kiosk_of_thousands_is_not_resolved_again_for_one_more_visitor() -> None:
    rules = Rules((IdentifierRule("email"), IdentifierRule("device_id", shared_above=1)))
    people = 3000
    links = pl.DataFrame(
        {
            "type_a": ["email"] * people,
            "value_a": [f"p{n}@x.example" for n in range(people)],
            "type_b": ["device_id"] * people,
            "value_b": ["kiosk"] * people,
        }
    )
    live = _Live(as_links(links.lazy()).collect(), rules)
    assert live.graph["device_id", "kiosk"][1]
    one_more = links.head(1).with_columns(value_a=pl.lit("new@x.example"))
    assert live.add(as_links(one_more.lazy()).collect()) <= 2
    assert live.graph["email", "new@x.example"][0] is not None
