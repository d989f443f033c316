"""identity/graph as a file: every reader reads, row by row, what the lazy frame has."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import duckdb
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from heap_assets.identity import GRAPH, IdentifierRule, Resolution, Rules, resolve
from heap_assets.identity.engine.native import tables
from heap_assets.identity.engine.reference import Row
from heap_assets_tests.examples import examples
from heap_assets_tests.identity.builders import TYPES, Book, books, links_frame, rows, rules_of, world

LIMITS = Rules(
    (
        IdentifierRule("account", 1),
        IdentifierRule("email", 3),
        IdentifierRule("device", 10, shared_above=1),
        IdentifierRule("cookie"),
    )
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("graph") / "graph.parquet"


def assert_reads_the_same(resolution: Resolution, file: Path) -> None:
    expected = resolution.graph.collect()
    resolution.write_graph(file, {"about": "us"})
    assert pl.read_parquet_schema(file) == GRAPH
    assert pl.read_parquet_metadata(file)["about"] == "us"
    assert_frame_equal(pl.read_parquet(file), expected)
    table = pq.read_table(file)
    table.validate(full=True)
    assert_frame_equal(pl.DataFrame(table), expected)
    kept = ("identifier_type", "identifier", "profile_id", "shared")
    epochs = "epoch_us(first_seen) as first_seen, epoch_us(last_seen) as last_seen"
    told = duckdb.sql(f"select {', '.join(kept)}, {epochs} from '{file}'").fetchall()
    spelled = expected.select(*kept, pl.col("first_seen", "last_seen").dt.epoch("us"))
    assert told == spelled.rows()


@settings(deadline=None, max_examples=examples(120))
@given(made=st.lists(rows(), max_size=25), book=books())
def test_every_reader_reads_what_was_resolved(file: Path, made: list[Row], book: Book) -> None:
    assert_reads_the_same(resolve(links_frame(made), rules_of(book)), file)


@pytest.mark.parametrize("group", [1, 7, 100, 1 << 17])
def test_row_groups_of_any_size_stand_in_order(file: Path, monkeypatch: pytest.MonkeyPatch, group: int) -> None:
    monkeypatch.setattr(tables, "_ROWS", group)
    resolution = resolve(links_frame(world(5, 400)), LIMITS)
    assert_reads_the_same(resolution, file)
    assert pq.ParquetFile(file).num_row_groups >= resolution.identifiers // (group + 50)


@settings(deadline=None, max_examples=examples(60))
@given(made=st.lists(st.tuples(st.sampled_from(TYPES), st.text(min_size=1, max_size=70)), max_size=30))
def test_texts_of_every_length_and_script_survive(file: Path, made: list[tuple[str, str]]) -> None:
    when = datetime.fromisoformat("2026-01-01T00:00:00+00:00")
    sightings = [Row(one, None, "crm", when, when) for one in made]
    assert_reads_the_same(resolve(links_frame(sightings), LIMITS), file)


def test_the_footer_says_between_which_profiles_a_row_group_lies(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_ROWS", 200)
    resolution = resolve(links_frame(world(6, 400)), LIMITS)
    resolution.write_graph(file)
    told = pq.ParquetFile(file)
    column = told.schema_arrow.get_field_index("profile_id")
    for group in range(told.num_row_groups):
        ids = told.read_row_group(group, columns=["profile_id"])["profile_id"].drop_null().to_pylist()
        bounds = told.metadata.row_group(group).column(column).statistics
        if ids:
            assert (bounds.min, bounds.max) == (min(ids), max(ids))
    wanted = pl.scan_parquet(file).select("profile_id").first().collect().item()
    assert (
        pl.scan_parquet(file)
        .filter(profile_id=wanted)
        .collect()
        .equals(pl.read_parquet(file).filter(profile_id=wanted))
    )


def test_a_writer_that_fails_half_way_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_ROWS", 50)
    resolution = resolve(links_frame(world(7, 400)), LIMITS)
    make, calls = tables.batch, iter(range(1000))

    def failing(result: object, places: object) -> object:
        if next(calls) == 5:
            raise OSError("No space left on device")
        return make(result, places)  # type: ignore[arg-type]

    monkeypatch.setattr(tables, "batch", failing)
    with pytest.raises(OSError, match="No space left"):
        resolution.write_graph(tmp_path / "graph.parquet")
    assert not list(tmp_path.iterdir())


def test_readers_get_text_and_no_dictionaries(file: Path) -> None:
    resolve(links_frame(world(5, 100)), LIMITS).write_graph(file)
    schema = pq.read_schema(file)
    assert [str(schema.field(name).type) for name in ("identifier_type", "identifier", "profile_id")] == ["string"] * 3
