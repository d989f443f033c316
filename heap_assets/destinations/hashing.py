"""Keyed hashes: what the ledger remembers of a value instead of the value.

SipHash-2-4 with a 128-bit key is a keyed hash: without the key nobody can test guesses against the ledger. It is
computed over Arrow buffers in one compiled loop, because a difference of a million profiles hashes every field.
"""

from __future__ import annotations

import hashlib
import secrets

import numba
import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from heap_assets.errors import DeliveryError
from heap_assets.lake import Store

EMPTY = 0
"""Acknowledged as empty: sent as null, or withdrawn."""
UNKNOWN = 1
"""Something was sent and nobody knows whether it arrived: differs from every value."""
_FIRST_HASH = 2

_STRING, _INTEGER, _FLOAT, _BOOLEAN = 0x73, 0x69, 0x66, 0x62
_KEYS = np.uint64(0x6B6579)  # keys and values are hashed under different keys
_SALT_KEY = "_sync/salt"
_SALT_BYTES = 16


def salt(store: Store, given: bytes | None = None) -> bytes:
    """Return the 16 bytes that key every hash: those given, or the ones held in the store (drawn on first use).

    Raises
    ------
    DeliveryError
        If the salt in the store is damaged: with another one every row would look changed.
    """
    if given is not None:
        return hashlib.sha256(given).digest()[:_SALT_BYTES]
    if not store.exists(_SALT_KEY):
        store.create(_SALT_KEY, secrets.token_bytes(_SALT_BYTES))
    found = store.read(_SALT_KEY)
    if len(found) != _SALT_BYTES:
        raise DeliveryError(f"{store.uri(_SALT_KEY)} is damaged ({len(found)} bytes, not {_SALT_BYTES}): restore it")
    return found


def hashed_key(key: str, salt_bytes: bytes) -> str:
    """Return the form in which a key may stand in reports and open tables; see :func:`hashed_keys`."""
    return str(hashed_keys(pl.Series([key]), salt_bytes)[0])


def hashed_keys(keys: pl.Series, salt_bytes: bytes) -> pl.Series:
    """Return keys as 16 hex digits of their keyed hash: equal keys can be told, none can be read."""
    filled = keys.cast(pl.String).fill_null("")
    words = _hashed_strings(filled, np.frombuffer(salt_bytes, dtype="<u8") ^ _KEYS)
    digits = words.astype(">u8").tobytes().hex().encode()
    offsets = np.arange(len(filled) + 1, dtype=np.int64) * 16
    text = pa.LargeStringArray.from_buffers(len(filled), pa.py_buffer(offsets.tobytes()), pa.py_buffer(digits))
    return pl.Series("key_hash", text)


def hashed_values(values: pl.Series, salt_bytes: bytes) -> pl.Series:
    """Hash a column of strings, numbers or booleans.

    Returns
    -------
    Series
        UInt64; null where the value is null, otherwise at least 2 (0 and 1 are :data:`EMPTY` and :data:`UNKNOWN`).
        Equal texts of different kinds ("5" and 5) differ, because they arrive as different values.
    """
    key = np.frombuffer(salt_bytes, dtype="<u8")
    if values.dtype == pl.String:
        hashes = _hashed_strings(values, key)
    elif values.dtype == pl.Boolean:
        hashes = _hash_words(values.fill_null(value=False).cast(pl.UInt64).to_numpy(), key[0], key[1] ^ _BOOLEAN)
    elif values.dtype.is_integer():
        words = values.cast(pl.Int64, strict=False).fill_null(0).to_numpy().view(np.uint64)
        hashes = _hash_words(words, key[0], key[1] ^ _INTEGER)
    else:
        words = (values.cast(pl.Float64).fill_null(0.0).to_numpy() + 0.0).view(np.uint64)  # + 0.0: one zero, not two
        hashes = _hash_words(words, key[0], key[1] ^ _FLOAT)
    result = pl.Series(values.name, hashes)
    return result.set(values.is_null(), None) if values.null_count() else result


def combined(columns: list[pl.Series], rows: int) -> pl.Series:
    """Mix several columns of hashes of `rows` rows into one per row; null counts as a value of its own."""
    words = [column.fill_null(np.uint64(0xFFFF_FFFF_FFFF_FFFF)).to_numpy() for column in columns]
    mixed = np.full(rows, 0x9E3779B97F4A7C15, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for word in words:
            mixed = (mixed ^ word) * np.uint64(0xBF58476D1CE4E5B9)
            mixed ^= mixed >> np.uint64(29)
    return pl.Series("row_hash", mixed)


def _hashed_strings(values: pl.Series, key: NDArray[np.uint64]) -> NDArray[np.uint64]:
    arrow = values.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    _, offsets, data = arrow.buffers()
    starts = np.frombuffer(offsets, dtype=np.int64)[arrow.offset : arrow.offset + len(arrow) + 1]
    text = np.frombuffer(data, dtype=np.uint8) if data is not None and data.size else np.zeros(0, dtype=np.uint8)
    return _hash_texts(text, starts, key[0], key[1] ^ np.uint64(_STRING))  # type: ignore[no-any-return]


@numba.njit(cache=True)
def _rotated(x, bits):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    return (x << np.uint64(bits)) | (x >> np.uint64(64 - bits))


@numba.njit(cache=True)
def _round(v0, v1, v2, v3):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    v0 += v1
    v1 = _rotated(v1, 13) ^ v0
    v0 = _rotated(v0, 32)
    v2 += v3
    v3 = _rotated(v3, 16) ^ v2
    v0 += v3
    v3 = _rotated(v3, 21) ^ v0
    v2 += v1
    v1 = _rotated(v1, 17) ^ v2
    v2 = _rotated(v2, 32)
    return v0, v1, v2, v3


@numba.njit(cache=True)
def siphash(data, start, stop, k0, k1):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """SipHash-2-4 of `data[start:stop]` (Aumasson and Bernstein 2012, appendix A has the test vectors)."""
    v0 = k0 ^ np.uint64(0x736F6D6570736575)
    v1 = k1 ^ np.uint64(0x646F72616E646F6D)
    v2 = k0 ^ np.uint64(0x6C7967656E657261)
    v3 = k1 ^ np.uint64(0x7465646279746573)
    length = stop - start
    whole = start + (length // 8) * 8
    for at in range(start, whole, 8):
        word = np.uint64(0)
        for i in range(8):
            word |= np.uint64(data[at + i]) << np.uint64(8 * i)
        v3 ^= word
        v0, v1, v2, v3 = _round(v0, v1, v2, v3)
        v0, v1, v2, v3 = _round(v0, v1, v2, v3)
        v0 ^= word
    word = np.uint64(length & 0xFF) << np.uint64(56)
    for i in range(stop - whole):
        word |= np.uint64(data[whole + i]) << np.uint64(8 * i)
    v3 ^= word
    v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    v0 ^= word
    v2 ^= np.uint64(0xFF)
    for _ in range(4):
        v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    return v0 ^ v1 ^ v2 ^ v3


@numba.njit(cache=True, nogil=True)
def _hash_texts(data, offsets, k0, k1):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    hashes = np.empty(len(offsets) - 1, dtype=np.uint64)
    for row in range(len(hashes)):
        hashes[row] = max(siphash(data, offsets[row], offsets[row + 1], k0, k1), np.uint64(_FIRST_HASH))
    return hashes


@numba.njit(cache=True, nogil=True)
def _hash_words(words, k0, k1):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    hashes = np.empty(len(words), dtype=np.uint64)
    eight = np.empty(8, dtype=np.uint8)
    for row in range(len(words)):
        for i in range(8):
            eight[i] = np.uint8((words[row] >> np.uint64(8 * i)) & np.uint64(0xFF))
        hashes[row] = max(siphash(eight, 0, 8, k0, k1), np.uint64(_FIRST_HASH))
    return hashes
