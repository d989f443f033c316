"""Files written page by page: whole for every reader, or for none."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from heap_assets.parquet import AS_IS, Chunk, Packer, Packing, ParquetFile, can_hold, levels

SCHEMA = pl.Schema({"number": pl.Int64(), "flag": pl.Boolean()})
PACKINGS = [AS_IS, Packing("zstd", 1), Packing("lz4_raw")]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parquet") / "file.parquet"


def column(values: pl.Series, packing: Packing) -> Chunk:
    rows, known = len(values), values.drop_nulls()
    bits = np.packbits(values.is_not_null().to_numpy(), bitorder="little")
    spelled = np.packbits(known.to_numpy(), bitorder="little") if values.dtype == pl.Boolean else known.to_numpy()
    head = levels(rows, len(known), bits)
    bounds = {}
    if values.dtype == pl.Int64 and len(known):
        bounds = {"least": known.to_numpy().min().tobytes(), "most": known.to_numpy().max().tobytes()}
    return Packer(packing).chunk(rows, len(known), [head, spelled.tobytes()], **bounds)


def write(path: Path, groups: list[pl.DataFrame], packing: Packing) -> None:
    with ParquetFile(path, SCHEMA) as file:
        for group in groups:
            file.append(group.height, {name: column(group[name], packing) for name in SCHEMA})
        file.finish({"about": "us"})


ROWS = st.lists(st.tuples(st.none() | st.integers(-(2**63), 2**63 - 1), st.none() | st.booleans()), max_size=40)


@settings(deadline=None, max_examples=80)
@given(groups=st.lists(ROWS, max_size=4), packing=st.sampled_from(PACKINGS))
def test_every_reader_reads_what_was_written(
    path: Path, groups: list[list[tuple[object, ...]]], packing: Packing
) -> None:
    frames = [pl.DataFrame(rows, SCHEMA, orient="row") for rows in groups if rows]
    expected = pl.concat([pl.DataFrame(schema=SCHEMA), *frames])
    write(path, frames, packing)
    assert_frame_equal(pl.read_parquet(path), expected)
    assert pl.read_parquet_metadata(path)["about"] == "us"
    table = pq.read_table(path)
    table.validate(full=True)
    assert_frame_equal(pl.DataFrame(table), expected)
    assert duckdb.sql(f"select number, flag from '{path}'").fetchall() == expected.rows()
    assert pq.ParquetFile(path).num_row_groups == len(frames)


def test_bounds_let_a_reader_pass_over_row_groups(path: Path) -> None:
    groups = [pl.DataFrame({"number": [1, 2, None], "flag": True}), pl.DataFrame({"number": [7, 9, 8], "flag": None})]
    write(path, [group.cast(dict(SCHEMA)) for group in groups], AS_IS)
    told = pq.ParquetFile(path).metadata
    bounds = [told.row_group(group).column(0).statistics for group in range(2)]
    assert [(one.min, one.max, one.null_count) for one in bounds] == [(1, 2, 1), (7, 9, 0)]
    assert pl.scan_parquet(path).filter(pl.col("number") > 8).collect().rows() == [(9, None)]


def test_a_file_that_was_not_finished_is_no_file_to_any_reader(path: Path) -> None:
    group = pl.DataFrame({"number": [1, 2], "flag": [True, False]})

    def stopped() -> None:
        with ParquetFile(path, SCHEMA) as file:
            file.append(2, {name: column(group[name], AS_IS) for name in SCHEMA})
            raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        stopped()
    with pytest.raises(pa.ArrowInvalid):
        pq.ParquetFile(path)
    with pytest.raises(pl.exceptions.ComputeError):
        pl.read_parquet(path)


def test_types_that_cannot_be_written_are_known_beforehand() -> None:
    assert can_hold(SCHEMA.values())
    assert not can_hold([pl.List(pl.Int64()), pl.Int64()])
