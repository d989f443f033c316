"""Every engine gives the reference's answer, whatever the order, direction, batching or path."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from heap_assets.identity import IdentifierRule, LinksError, Rules, resolve
from heap_assets.identity.engine import ENGINES, EngineName
from heap_assets.identity.engine.native.engine import as_resolution
from heap_assets.identity.engine.native.tables import resolved
from heap_assets.identity.engine.reference import Row
from heap_assets_tests.examples import examples
from heap_assets_tests.identity.builders import (
    TYPES,
    Book,
    answer,
    assert_agrees,
    books,
    flipped,
    links_frame,
    rows,
    rules_of,
    world,
)

every_engine = pytest.mark.parametrize("engine", ENGINES)
FREE = Rules(tuple(IdentifierRule(kind, shared_above="never") for kind in TYPES))


@settings(max_examples=examples(300), deadline=None)
@given(st.lists(rows(), max_size=25), books())
def test_the_engine_does_what_the_rules_say(made: list[Row], book: Book) -> None:
    assert_agrees(resolve(links_frame(made), rules_of(book)), answer(made, book))


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(rows(), max_size=25), books())
def test_engines_give_the_same_rows_in_the_same_order(made: list[Row], book: Book) -> None:
    one, other = (resolve(links_frame(made), rules_of(book), engine) for engine in ENGINES)
    assert (one.profiles, one.identifiers) == (other.profiles, other.identifiers)
    for table in ("graph", "conflicts", "shared"):
        assert_frame_equal(getattr(one, table).collect(), getattr(other, table).collect())


@every_engine
@settings(max_examples=examples(60), deadline=None)
@given(made=st.lists(rows(), max_size=25), book=books(), dice=st.randoms(use_true_random=False))
def test_order_direction_and_repetition_of_links_never_matter(
    engine: EngineName, made: list[Row], book: Book, dice: random.Random
) -> None:
    again = [flipped(row) if dice.random() < 0.5 else row for row in made + made[:3]]
    dice.shuffle(again)
    one, other = (resolve(links_frame(given), rules_of(book), engine) for given in (made, again))
    for table in ("graph", "conflicts", "shared"):
        assert_frame_equal(getattr(one, table).collect(), getattr(other, table).collect())


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(rows(), max_size=40), books())
def test_two_paths_give_what_one_path_gives(made: list[Row], book: Book) -> None:
    links, rules = links_frame(made), rules_of(book)
    two, one = resolve(links, rules), as_resolution(resolved(links, rules, everywhere=True))
    for table in ("graph", "conflicts", "shared"):
        assert_frame_equal(getattr(one, table).collect(), getattr(two, table).collect())


@every_engine
@settings(max_examples=examples(100), deadline=None)
@given(made=st.lists(rows(), max_size=40), book=books())
def test_no_profile_exceeds_a_limit_except_by_authoritative_links(
    engine: EngineName, made: list[Row], book: Book
) -> None:
    undecided = [Row(row.a, row.b, row.source, row.first, row.last) for row in made]
    graph = resolve(links_frame(undecided), rules_of(book), engine).graph.collect()
    held = graph.drop_nulls("profile_id").group_by("profile_id", "identifier_type").len()
    assert all(count <= book.limits.get(kind, count) for _, kind, count in held.rows())


@pytest.mark.parametrize("seed", [1, 2])
def test_a_world_of_people_agrees_with_the_judge(seed: int) -> None:
    made = world(seed, 60)
    book = Book(TYPES, {"account": 1, "email": 3, "device": 4}, {"device": {None: 1}, "cookie": {None: 1}})
    assert_agrees(resolve(links_frame(made), rules_of(book)), answer(made, book))


@every_engine
def test_without_rules_profiles_are_connected_components(engine: EngineName) -> None:
    made = world(3, 500 if engine == "native" else 60)
    nodes = {end: n for n, end in enumerate(dict.fromkeys(e for row in made for e in (row.a, row.b) if e))}
    pairs = np.array([(nodes[row.a], nodes[row.b]) for row in made if row.b])
    shape = (len(nodes), len(nodes))
    count, labels = connected_components(coo_array((np.ones(len(pairs)), pairs.T), shape=shape), directed=False)
    graph = resolve(links_frame(made), FREE, engine).graph.collect()
    label = [int(labels[nodes[row[:2]]]) for row in graph.select("identifier_type", "identifier").rows()]
    together = graph.with_columns(label=pl.Series(label)).select("label", "profile_id").unique()
    assert together.height == count == graph["profile_id"].n_unique()


@every_engine
def test_many_files_give_what_one_file_gives(engine: EngineName, tmp_path: Path) -> None:
    made = world(4, 80)
    for number in range(5):
        links_frame(made[number::5]).sink_parquet(tmp_path / f"{number}.parquet")
    rules = rules_of(Book(TYPES, {"account": 1, "email": 3}, {"device": {None: 1}}))
    one, many = (
        resolve(links, rules, engine) for links in (links_frame(made), pl.scan_parquet(tmp_path / "*.parquet"))
    )
    assert_frame_equal(one.graph.collect(), many.graph.collect())


@every_engine
class TestBadInput:
    """Nothing crashes, and nothing is dropped in silence."""

    def test_no_links_at_all(self, engine: EngineName) -> None:
        assert resolve(links_frame([]), FREE, engine).graph.collect().is_empty()

    def test_an_unknown_type_is_named(self, engine: EngineName) -> None:
        with pytest.raises(LinksError, match="'emial'"):
            resolve(links_frame([Row(("emial", "a"), ("device", "d"))]), FREE, engine)

    @pytest.mark.parametrize("value", [None, ""])
    @pytest.mark.parametrize("end", ["value_a", "value_b"])
    def test_a_null_or_empty_value_is_an_error(self, engine: EngineName, end: str, value: str | None) -> None:
        links = links_frame([Row(("email", "a"), ("device", "d"))]).with_columns(pl.lit(value, pl.String).alias(end))
        with pytest.raises(LinksError, match="null or empty"):
            resolve(links, FREE, engine)

    def test_a_missing_column_is_named(self, engine: EngineName) -> None:
        with pytest.raises(LinksError, match="value_b"):
            resolve(links_frame([]).drop("value_b"), FREE, engine)

    def test_a_link_to_itself_is_a_sighting(self, engine: EngineName) -> None:
        made = [Row(("email", "a"), ("email", "a"))]
        assert_agrees(resolve(links_frame(made), FREE, engine), answer(made, Book(TYPES)))

    def test_a_cycle_of_migrations_is_one_profile(self, engine: EngineName) -> None:
        made = [Row(("device", str(n)), ("device", str((n + 1) % 5)), authoritative=True) for n in range(5)]
        graph = resolve(links_frame(made), rules_of(Book(TYPES, {"device": 1})), engine).graph.collect()
        assert graph["profile_id"].n_unique() == 1


def test_an_enormous_value_is_carried() -> None:
    made = [Row(("email", "x" * 3_000_000), ("device", "d"))]
    assert_agrees(resolve(links_frame(made), FREE), answer(made, Book(TYPES)))


def test_a_giant_component_that_breaks_every_limit() -> None:
    made = [Row(("email", f"e{n:06d}"), ("device", f"d{n // 2 + (n % 2):06d}")) for n in range(60_000)]
    made += [Row(("account", f"a{n:06d}"), ("email", f"e{n:06d}")) for n in range(60_000)]
    graph = resolve(links_frame(made), rules_of(Book(TYPES, {"account": 2, "email": 3, "device": 2}))).graph.collect()
    held = graph.group_by("profile_id", "identifier_type").len()
    assert held.filter(pl.col("identifier_type") == "account")["len"].max() == 2
    assert graph["profile_id"].null_count() == 0
