"""Many partitions are read by few nodes of a plan, with the rows that a node for each would give."""

from __future__ import annotations

import tempfile

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_assets.errors import MissingInputError
from heap_assets.storage import Lake
from heap_assets_tests.examples import examples

_VALUES = {
    "integer": pl.col("row"),
    "text": pl.col("row").cast(pl.String),
    "decimal": pl.col("row") / 2,
    "nothing": pl.lit(None),
    "object": pl.struct(a="row"),
    "list": pl.concat_list(pl.col("row").cast(pl.String)),
}
_PARTITION = st.dictionaries(st.sampled_from("abc"), st.sampled_from(sorted(_VALUES)), min_size=1)


def nodes(frame: pl.LazyFrame) -> int:
    """Count the nodes of a plan that read files."""
    return frame.explain(optimized=False).count("Parquet SCAN")


def values_of(frames: list[pl.LazyFrame]) -> list[dict[str, object]]:
    """Return the values of each row that are not null."""
    rows = [row for frame in frames for row in frame.collect().to_dicts()]
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


@settings(max_examples=examples(40), deadline=None)
@given(st.lists(_PARTITION, min_size=1, max_size=8))
def test_parts_together_have_the_rows_of_each(kinds: list[dict[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.open(folder)
        keys = [f"2026-11-{number:02d}" for number in range(1, len(kinds) + 1)]
        for number, (key, columns) in enumerate(zip(keys, kinds, strict=True)):
            rows = pl.DataFrame({"row": [10 * number, 10 * number + 1]})
            lake.write("t", key, rows.with_columns(_VALUES[kind].alias(name) for name, kind in columns.items()))
        together = lake.scans("t", keys)
        found = sorted(values_of(together), key=lambda row: row["row"])  # type: ignore[arg-type, return-value]
        assert found == values_of([lake.scan("t", key) for key in keys])
    assert len(together) <= len({tuple(sorted(columns.items())) for columns in kinds})


def test_partitions_of_one_schema_are_one_node_in_their_order(tmp_path: object) -> None:
    lake = Lake.open(str(tmp_path))
    days = [f"2026-11-{day:02d}" for day in range(1, 31)]
    for number, day in enumerate(days):
        more = {"sent_by": pl.lit("x")} if number % 2 else {}
        lake.write("t", day, pl.DataFrame({"n": [2 * number, 2 * number + 1]}).with_columns(**more))
    assert nodes(lake.scan("t", days)) == 1
    assert lake.scan("t", days).collect()["n"].to_list() == list(range(60))
    assert lake.scan("t", days[::-1]).collect()["n"].to_list()[:2] == [58, 59]
    assert lake.scan("t", days).collect()["sent_by"].null_count() == 30
    schema = pl.Schema({"sent_by": pl.String(), "other": pl.Int64(), "n": pl.Float64()})
    asked = lake.scan("t", days, schema=schema)
    assert (nodes(asked), asked.collect_schema()) == (1, schema)
    with pytest.raises(MissingInputError, match="t has no partition 2026-12-01: materialize"):
        lake.scan("t", [*days, "2026-12-01"])
