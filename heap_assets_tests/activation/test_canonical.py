"""A value of the lake is in a request exactly, or as text that says the same; never another value."""

from __future__ import annotations

import base64
import math
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_assets.activation.engine.canonical import json_values, sendable
from heap_assets.activation.engine.hashing import hashed_values

MOMENTS = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999))
DTYPES: list[tuple[pl.DataType, st.SearchStrategy[Any]]] = [
    (pl.Int64(), st.integers(-(2**63), 2**63 - 1)),
    (pl.UInt64(), st.integers(0, 2**64 - 1)),
    (pl.Int128(), st.integers(-(2**127), 2**127 - 1)),
    (pl.Float32(), st.floats(width=32, allow_nan=False, allow_infinity=False)),
    (pl.Float64(), st.floats(allow_nan=False, allow_infinity=False)),
    (pl.Decimal(38, 0), st.integers(-(10**38) + 1, 10**38 - 1).map(Decimal)),
    (pl.Decimal(20, 2), st.integers(-(10**20) + 1, 10**20 - 1).map(lambda n: Decimal(f"{n}e-2"))),
    (pl.Decimal(38, 20), st.integers(-(10**30), 10**30).map(lambda n: Decimal(f"{n}e-20"))),
    (pl.Datetime("us", "UTC"), MOMENTS.map(lambda moment: moment.replace(tzinfo=UTC))),
    (pl.Datetime("us"), MOMENTS),
    (pl.Date(), st.dates()),
    (pl.Time(), st.times()),
    (pl.Binary(), st.binary(max_size=6)),
    (pl.Boolean(), st.booleans()),
    (pl.String(), st.text(st.characters(exclude_categories=["Cs"]), max_size=6)),
]


def sent(values: pl.Series) -> list[Any]:
    """What a server reads from the request: every number as the digits that stand there."""
    shown = values.to_frame("v").select(sendable(pl.col("v"), values.dtype, "v"))["v"]
    texts = [orjson.dumps(value).decode() for value in json_values(shown)]
    return [orjson.loads(text) if text[0] in '"tfn' else Decimal(text) for text in texts]


def says(told: Any, value: Any, dtype: pl.DataType) -> bool:
    if value is None or isinstance(value, bool | str):
        return bool(told == value)
    if isinstance(value, bytes):
        return base64.b64decode(told) == value
    if isinstance(value, datetime):
        return datetime.fromisoformat(told) == (value if value.tzinfo else value.replace(tzinfo=UTC))
    if isinstance(value, date | time):
        return type(value).fromisoformat(told) == value
    if dtype == pl.Float32:
        return pl.Series([float(told)], dtype=pl.Float32).item() == value
    if isinstance(value, float):
        return float(told) == value
    return Decimal(told) == value


@settings(deadline=None, max_examples=200)
@given(data=st.data(), kind=st.sampled_from(DTYPES))
def test_every_type(data: st.DataObject, kind: tuple[pl.DataType, st.SearchStrategy[Any]]) -> None:
    dtype, values = kind
    drawn = data.draw(st.lists(st.none() | values, min_size=1, max_size=4))
    column = pl.Series("v", drawn, dtype, strict=False)
    for told, value in zip(sent(column), drawn, strict=True):
        assert says(told, value, dtype)
        if isinstance(told, Decimal) and not isinstance(value, float):
            assert Decimal(repr(float(told))) == told, "a reader that makes it a float has the same digits"


@given(numbers=st.lists(st.integers(-(10**20) + 1, 10**20 - 1), min_size=2, max_size=4, unique=True))
def test_decimals_that_arrive_as_different_values_are_told_apart(numbers: list[int]) -> None:
    column = pl.Series("v", [Decimal(f"{n}e-2") for n in numbers], pl.Decimal(20, 2))
    assert hashed_values(column, bytes(16)).n_unique() == len(numbers)


def test_a_decimal_that_is_a_number_has_the_hash_of_the_number() -> None:
    decimals = pl.Series("v", [Decimal("2.50"), None, Decimal("0.10")], pl.Decimal(20, 2))
    assert hashed_values(decimals, bytes(16)).equals(hashed_values(pl.Series("v", [2.5, None, 0.1]), bytes(16)))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (pl.Series([Decimal("123456789012345678.99")]), "123456789012345678.99"),
        (pl.Series([Decimal(12345678901234567890)], dtype=pl.Decimal(38, 0)), "12345678901234567890"),
        (pl.Series([Decimal(9007199254740993)], dtype=pl.Decimal(38, 0)), "9007199254740993"),
        (pl.Series([Decimal(42)], dtype=pl.Decimal(38, 0)), Decimal(42)),
        (pl.Series([Decimal("2.500000000")], dtype=pl.Decimal(38, 9)), Decimal("2.5")),
        (pl.Series([0.1], dtype=pl.Float32), Decimal("0.1")),
        (pl.Series([time(23, 59, 59, 999999)]), "23:59:59.999999"),
        (pl.Series([time(23, 59, 59)]), "23:59:59"),
        (pl.Series([datetime(2026, 1, 1, 0, 0, 0, 120000)]), "2026-01-01T00:00:00.120Z"),
        (pl.Series([datetime(2026, 1, 1, 0, 0, 0, 123456)]), "2026-01-01T00:00:00.123456Z"),
        (pl.Series([1], dtype=pl.Int64).cast(pl.Datetime("ns", "UTC")), "1970-01-01T00:00:00.000000001Z"),
        (pl.Series([timedelta(hours=1, microseconds=5)]), "PT1H0.000005S"),
        (pl.Series([[time(1, 2, 3, 4), None]]), "01:02:03.000004"),
        (pl.Series([[1.5, math.pi]]), "1.5||3.141592653589793"),
        (pl.Series([[[1, 2], [3]]]), "[[1,2],[3]]"),
        (pl.Series([[{"a": Decimal("1.10"), "t": time(1, 2, 3, 4)}]]), '[{"a":"1.10","t":"01:02:03.000004"}]'),
        (pl.Series([[1, 2]], dtype=pl.Array(pl.Int64, 2)), "1||2"),
        (pl.Series([[1.5, math.nan]]), "1.5||NaN"),
        (
            pl.Series([[{"x": math.nan, "y": 2**60}, {"x": -math.inf}]]),
            '[{"x":"nan","y":1152921504606846976},{"x":"-inf","y":null}]',
        ),
        (pl.Series([[[0.1], [math.inf]]]), '[[0.1],["inf"]]'),
    ],
)
def test_what_is_sent(values: pl.Series, told: Any) -> None:
    assert sent(values.alias("v")) == [told]
