"""What holds of the engine on Spark; `test_spark.py` runs this file by pytest where pyspark and Java are installed.

A job of Spark takes a second however small it is, so one resolution takes many little worlds at once, which have no
value in common.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from pyspark.sql import SparkSession

from heap_assets.identity import Decision, LinksError, MemoryLimitError, Rules, SparkTuning, Timeline, resolve
from heap_assets.identity.engine.reference import Identifier, Row
from heap_assets.identity.engine.spark.components import component_labels
from heap_assets.identity.engine.spark.groups import complete_groups
from heap_assets.identity.engine.spark.scratch import Scratch
from heap_assets.storage import Store
from heap_assets_tests.identity.builders import TYPES, Book, books, links_frame, rows, rules_of, world
from heap_assets_tests.identity.test_decisions import decisions
from heap_assets_tests.identity.test_timeline import RULES, company, day, known_on, tables

EXAMPLES = int(os.environ.get("HEAP_ASSETS_SPARK_EXAMPLES", "3"))
WORLDS = 15
ALWAYS = SparkTuning(above_links=0, parts=2, cores=2)
CORNERS = [
    ALWAYS,
    replace(ALWAYS, hash_bits=6),
    replace(ALWAYS, pairs_at_once=0),
    replace(ALWAYS, parts=5, pairs_at_once=10, rows_at_once=1, hash_bits=15),
]
few = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],
)


@pytest.fixture(scope="module", autouse=True)
def spark() -> Iterator[SparkSession]:
    """A session whose Java does not compile code that is run once."""
    os.environ["PYSPARK_PYTHON"] = sys.executable
    session = (
        SparkSession.builder.master("local[2]")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.memory", "1g")
        .config("spark.driver.extraJavaOptions", "-XX:TieredStopAtLevel=1")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.codegen.wholeStage", "false")
        .config("spark.sql.codegen.factoryMode", "NO_CODEGEN")
        .config("spark.log.level", "ERROR")
        .getOrCreate()
    )
    yield session
    session.stop()


def in_world(end: Identifier, number: int) -> Identifier:
    return end[0], f"{number}:{end[1]}"


def together(worlds: list[list[Row]]) -> list[Row]:
    return [
        replace(row, a=in_world(row.a, number), b=row.b and in_world(row.b, number))
        for number, made in enumerate(worlds)
        for row in made
    ]


def assert_same_rows(links: pl.LazyFrame, rules: Rules, tuning: SparkTuning, engine: Any = "reference") -> None:
    expected, resolution = resolve(links, rules, engine), resolve(links, rules, tuning)
    assert (resolution.profiles, resolution.identifiers) == (expected.profiles, expected.identifiers)
    for table in ("graph", "conflicts", "shared"):
        assert_frame_equal(getattr(resolution, table).collect(), getattr(expected, table).collect())


worlds = st.lists(st.lists(rows(), max_size=25), min_size=WORLDS, max_size=WORLDS)
_ENDS = st.tuples(st.sampled_from(TYPES), st.sampled_from([f"{n}:{v}" for n in range(WORLDS) for v in "abcd"]))


@few
@given(worlds, books(), decisions(_ENDS, most=8), st.sampled_from(CORNERS))
def test_spark_gives_the_rows_of_the_reference_in_its_order(
    made: list[list[Row]], book: Book, settled: tuple[Decision, ...], tuning: SparkTuning
) -> None:
    assert_same_rows(links_frame(together(made)), replace(rules_of(book), decisions=settled), tuning)


@pytest.mark.parametrize("tuning", CORNERS[:: 1 if EXAMPLES > 3 else 3])
def test_a_company_with_kiosks_and_shared_laptops(tuning: SparkTuning) -> None:
    rules = rules_of(Book(TYPES, {"account": 1, "email": 3}, {"device": {None: 1}}))
    accounts = (("account", "a3"), ("account", "a4")), (("email", "p7.0@x.io"), ("email", "p8.0@x.io"))
    settled = tuple(Decision(kind, pairs) for kind, pairs in zip(("same", "apart"), accounts, strict=True))
    rules = replace(rules, decisions=settled)
    assert_same_rows(links_frame(world(4, 2000)), rules, replace(tuning, hash_bits=max(tuning.hash_bits, 12)), "native")


def test_rounds_of_spark_find_the_components_of_long_chains(spark: SparkSession, tmp_path: Path) -> None:
    chains = [
        (chain * 1000 + step * 37 % 101, chain * 1000 + (step + 1) * 37 % 101)
        for chain in range(3)
        for step in range(100)
    ]
    pairs = spark.createDataFrame(chains, "u long, v long")
    labels, rounds = component_labels(pairs, Scratch(spark, Store(str(tmp_path))), 20)
    assert rounds > 1
    assert {tuple(row) for row in labels.collect()} == {
        (c * 1000 + n, c * 1000) for c in range(3) for n in range(1, 101)
    }


@given(st.lists(st.integers(0, 5), max_size=40), st.integers(1, 7), st.integers(1, 12))
def test_no_component_is_cut(labels: list[int], batch: int, at_once: int) -> None:
    labels.sort()
    batches = pa.table({"label": pa.array(labels, pa.int64())}).to_batches(batch)
    groups = [frame["label"].to_list() for frame in complete_groups(iter(batches), at_once)]
    assert [label for group in groups for label in group] == labels
    assert all(group and other and group[-1] != other[0] for group, other in pairwise(groups))


def test_a_component_above_the_limit_is_an_error_that_says_what_to_do() -> None:
    links = links_frame([Row(("email", "hub"), ("device", str(n))) for n in range(9)])
    book = Book(TYPES)
    assert_same_rows(links, rules_of(book), replace(ALWAYS, largest_component=10))
    with pytest.raises(MemoryLimitError, match=r"10 identifiers.*largest_component \(9\)") as error:
        resolve(links, rules_of(book), replace(ALWAYS, largest_component=9))
    assert "hub" not in str(error.value)


class TestBadInput:
    """As of the other engines (`test_resolve.py`)."""

    def test_no_links_at_all(self) -> None:
        assert_same_rows(links_frame([]), rules_of(Book(TYPES)), ALWAYS)

    def test_an_unknown_type_is_named(self) -> None:
        with pytest.raises(LinksError, match="'emial'"):
            resolve(links_frame([Row(("email", "a"), ("emial", "a"))]), rules_of(Book(TYPES)), ALWAYS)

    @pytest.mark.parametrize("value", [None, ""])
    @pytest.mark.parametrize("end", ["value_a", "value_b"])
    def test_a_null_or_empty_value_is_an_error(self, end: str, value: str | None) -> None:
        links = links_frame([Row(("email", "a"), ("device", "d"))]).with_columns(pl.lit(value, pl.String).alias(end))
        with pytest.raises(LinksError, match="null or empty"):
            resolve(links, rules_of(Book(TYPES)), ALWAYS)


def test_a_day_on_spark_is_a_day_of_the_native_engine(tmp_path: Path) -> None:
    history = company(60, 2)
    settled = replace(RULES, decisions=(Decision("same", (("heap_identity", "L1"), ("heap_identity", "L2"))),))
    spark_day = Timeline(Store(str(tmp_path / "spark")), settled, ALWAYS).advance(day(1), known_on(history, 1))
    native_day = Timeline(Store(str(tmp_path / "native")), settled).advance(day(1), known_on(history, 1))
    for (_, left), (_, right) in zip(tables(spark_day), tables(native_day), strict=True):
        assert_frame_equal(left, right)
    assert spark_day.notes["why"] == "the spark engine keeps no state"


def test_up_to_the_threshold_the_native_engine_and_its_state_are_used(tmp_path: Path) -> None:
    history, tuning = company(30, 2), SparkTuning()
    store = Store(str(tmp_path))
    Timeline(store, RULES, tuning).advance(day(0), known_on(history, 0))
    again = Timeline(store, RULES, tuning).advance(day(0), known_on(history, 0))
    assert again.notes["mode"] == "unchanged"
