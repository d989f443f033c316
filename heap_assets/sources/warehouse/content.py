"""Digests of rows that are stored and compared later: of every version of Polars the same.

Polars' own `hash` and `hash_rows` may change with any release; then everything would look changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import polars as pl

CONTENT_SCHEME = "c2"
"""Marks what :func:`content_digest` returns; digests without it are older and compare with nothing."""
FINGERPRINT_SCHEME = 2
"""Of :func:`row_fingerprints`."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_ABSENT = np.uint64(0xD6E8FEB86659FD93)


def row_fingerprints(rows: pl.Series) -> pl.Series:
    """Fingerprint structs of integers and times: UInt64, by the finaliser of splitmix64 over the fields in order."""
    state = np.full(len(rows), _GOLDEN, dtype=np.uint64)
    for name in rows.struct.fields:
        column = rows.struct.field(name).to_physical().cast(pl.Int64)
        numbers = column.fill_null(0).to_numpy().view(np.uint64)
        state = _mixed(state ^ np.where(column.is_null().to_numpy(), _ABSENT, _mixed(numbers + _GOLDEN)))
    return pl.Series(rows.name, state, dtype=pl.UInt64)


def content_digest(rows: pl.DataFrame) -> str:
    """Return a digest of names, types and values of rows in their order; equal content, equal digest."""
    names = [(name, dtype.base_type().__name__) for name, dtype in rows.schema.items()]
    digest = hashlib.sha256(repr(names).encode())
    for column in rows:
        for part in _bytes_of(column):
            digest.update(part)
    return f"{CONTENT_SCHEME}-{rows.height}-{digest.hexdigest()[:32]}"


def _mixed(state: np.ndarray) -> np.ndarray:
    state = (state ^ (state >> np.uint64(30))) * _FIRST
    state = (state ^ (state >> np.uint64(27))) * _SECOND
    return state ^ (state >> np.uint64(31))  # type: ignore[no-any-return]


def _bytes_of(column: pl.Series) -> Iterator[bytes]:
    """Which values there are, how long each is, and their bytes one after the other."""
    yield column.is_not_null().to_numpy().tobytes()
    present = column.drop_nulls()
    if not (present.dtype.is_integer() or present.dtype.is_temporal()):
        text = present.cast(pl.String)
        yield text.str.len_bytes().cast(pl.UInt32).to_numpy().tobytes()
        yield "".join(text.to_list()).encode()
        return
    yield present.to_physical().cast(pl.Int64).to_numpy().tobytes()
