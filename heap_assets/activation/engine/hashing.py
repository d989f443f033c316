"""Keyed hashes: what the ledger remembers of a value instead of the value.

SipHash-2-4 with a 128-bit key: without the key nobody can test guesses against the ledger.
"""

from __future__ import annotations

import hashlib
import secrets

import numpy as np
import polars as pl

from heap_assets.activation.engine.canonical import decimal_is_number
from heap_assets.errors import DeliveryError
from heap_assets.siphash import Words, siphash_texts, siphash_words
from heap_assets.storage import Store, state_keys

EMPTY = 0
"""Acknowledged as empty: sent as null, or withdrawn."""
UNKNOWN = 1
"""Something was sent and nobody knows whether it arrived: differs from every value."""
_FIRST_HASH = 2

_STRING, _INTEGER, _FLOAT, _BOOLEAN = 0x73, 0x69, 0x66, 0x62
_KEYS = 0x6B6579  # keys and values are hashed under different keys
_SALT_KEY = f"{state_keys.SYNC}/salt"
_SALT_BYTES = 16


def salt(store: Store, chosen: bytes | None = None, *, keep: bool = True) -> bytes:
    """Return the 16 bytes that key every hash: those given, or the ones held in the store (drawn on first use).

    `keep`: store what is drawn. Without, the hashes of a store that has none compare with those of no other call.
    Raises DeliveryError if the salt in the store is damaged: with another one every row would look changed.
    """
    if chosen is not None:
        return hashlib.sha256(chosen).digest()[:_SALT_BYTES]
    if not has_salt(store):
        if not keep:
            return secrets.token_bytes(_SALT_BYTES)
        store.create(_SALT_KEY, secrets.token_bytes(_SALT_BYTES))
    stored = store.read(_SALT_KEY)
    if len(stored) != _SALT_BYTES:
        raise DeliveryError(f"{store.uri(_SALT_KEY)} is damaged ({len(stored)} bytes, not {_SALT_BYTES}): restore it")
    return stored


def has_salt(store: Store) -> bool:
    """Say whether the store holds a salt: without one, no hash that is shown can be looked up later."""
    return store.exists(_SALT_KEY)


def hashed_key(key: str, salt_bytes: bytes) -> str:
    """Return the form in which a key may stand in reports and open tables; see :func:`hashed_keys`."""
    return str(hashed_keys(pl.Series([key]), salt_bytes)[0])


def hashed_keys(keys: pl.Series, salt_bytes: bytes) -> pl.Series:
    """Return keys as 16 hex digits of their keyed hash: equal keys have equal hashes, and none can be read."""
    if not len(keys):
        return pl.Series("key_hash", [], dtype=pl.String)
    words = siphash_texts(keys.cast(pl.String), _key(salt_bytes, _STRING) ^ np.uint64(_KEYS))
    hashes = np.maximum(words, np.uint64(_FIRST_HASH)).astype(">u8")
    return pl.Series("key_hash", hashes.view("V8").tolist(), dtype=pl.Binary).bin.encode("hex")


def hashed_values(values: pl.Series, salt_bytes: bytes) -> pl.Series:
    """Hash a column of strings, numbers or booleans.

    The hashes are UInt64: null where the value is null, otherwise at least 2 (0 and 1 are :data:`EMPTY` and
    :data:`UNKNOWN`). Equal texts of different kinds ("5" and 5) differ, because they arrive as different values.
    Decimals are hashed as what they are sent as: floats, or text if a float would round them.
    """
    if isinstance(values.dtype, pl.Decimal):
        return _hashed_decimals(values, salt_bytes)
    if values.dtype == pl.String:
        hashes = siphash_texts(values, _key(salt_bytes, _STRING))
    elif values.dtype == pl.Boolean:
        words = values.fill_null(value=False).cast(pl.UInt64).to_numpy()
        hashes = siphash_words(words, _key(salt_bytes, _BOOLEAN))
    elif values.dtype.is_integer():
        words = values.cast(pl.Int64, strict=False).fill_null(0).to_numpy().view(np.uint64)
        hashes = siphash_words(words, _key(salt_bytes, _INTEGER))
    else:
        words = (values.cast(pl.Float64).fill_null(0.0).to_numpy() + 0.0).view(np.uint64)  # + 0.0: one zero, not two
        hashes = siphash_words(words, _key(salt_bytes, _FLOAT))
    result = pl.Series(values.name, np.maximum(hashes, np.uint64(_FIRST_HASH)))
    return result.set(values.is_null(), None) if values.null_count() else result


def _hashed_decimals(values: pl.Series, salt_bytes: bytes) -> pl.Series:
    number = values.to_frame("v").select(decimal_is_number(pl.col("v"), values.dtype.scale))["v"]  # type: ignore[attr-defined]
    floats = hashed_values(values.cast(pl.Float64), salt_bytes)
    if number.all():
        return floats
    texts = hashed_values(values.cast(pl.String), salt_bytes)
    return floats.zip_with(number.fill_null(value=True), texts)


def combined(columns: list[pl.Series], rows: int) -> pl.Series:
    """Mix several columns of hashes of `rows` rows into one per row; null counts as a value of its own."""
    words = [column.fill_null(np.uint64(0xFFFF_FFFF_FFFF_FFFF)).to_numpy() for column in columns]
    mixed = np.full(rows, 0x9E3779B97F4A7C15, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for word in words:
            mixed = (mixed ^ word) * np.uint64(0xBF58476D1CE4E5B9)
            mixed ^= mixed >> np.uint64(29)
    return pl.Series("row_hash", mixed)


def _key(salt_bytes: bytes, kind: int) -> Words:
    first, second = np.frombuffer(salt_bytes, dtype="<u8")
    return np.array([first, second ^ np.uint64(kind)], dtype=np.uint64)
