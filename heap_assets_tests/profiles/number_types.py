"""Types of numbers and times that the lake holds, each with values up to its edges."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import polars as pl
from hypothesis import strategies as st

NUMBERS: dict[pl.DataType, st.SearchStrategy[Any]] = {
    pl.Int8(): st.integers(-128, 127),
    pl.Int64(): st.integers(-(2**63), 2**63 - 1) | st.integers(-(2**54), 2**54) | st.integers(-3, 3),
    pl.UInt64(): st.integers(0, 2**64 - 1) | st.integers(0, 3),
    pl.Float32(): st.floats(allow_nan=False, width=32),
    pl.Float64(): st.floats(allow_nan=False) | st.integers(-(2**54), 2**54).map(float),
    pl.Decimal(10, 2): st.integers(-(10**10) + 1, 10**10 - 1).map(lambda n: Decimal(f"{n}e-2")),
    pl.Decimal(38, 0): st.integers(-(10**38) + 1, 10**38 - 1).map(Decimal) | st.integers(-3, 3).map(Decimal),
    pl.Decimal(38, 9): st.integers(-(10**38) + 1, 10**38 - 1).map(lambda n: Decimal(f"{n}e-9")),
}
MOMENTS = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999))
NANOSECONDS = st.integers(-(2**63) + 1, 2**63 - 1)
TIMES: dict[pl.DataType, st.SearchStrategy[Any]] = {
    pl.Date(): st.dates(),
    pl.Datetime("us"): MOMENTS,
    pl.Datetime("us", "UTC"): MOMENTS.map(lambda moment: moment.replace(tzinfo=UTC)),
    pl.Datetime("ns"): NANOSECONDS,
    pl.Datetime("ns", "UTC"): NANOSECONDS,
}
