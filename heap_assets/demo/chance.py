"""Seeded chance: every number of the company comes from a stream that is named, so that any day can be made alone."""

import hashlib
from collections.abc import Sequence
from datetime import date

import numpy as np
import numpy.typing as npt
import polars as pl

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

SECOND = 1_000_000
DAY = 86_400 * SECOND
NEVER = 2**62
"""A moment (microseconds since 1970) that no clock reaches: 'has not happened'."""


def stream(seed: int, *labels: str | int) -> np.random.Generator:
    """Return the random stream of this name; equal names give equal numbers, whatever else was drawn before."""
    digest = hashlib.sha256(repr((seed, *labels)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def hashed_id(text: str) -> int:
    """Return a positive 63-bit id of a text, as Heap derives the user_id of an identity (heap.md 2.6)."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def hashed_hex(text: str, length: int) -> str:
    """Return the first hex digits of a text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def row_ids(seed: int, label: str, numbers: npt.NDArray[np.generic]) -> Ints:
    """Return an id between 2^40 and 2^53 for each number: the same for the same seed, label and number (SplitMix64)."""
    state = numbers.astype(np.uint64) + np.uint64(int(hashed_hex(f"{seed} {label}", 16), 16))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        state = (state ^ (state >> np.uint64(shift))) * np.uint64(factor)
    return (2**40 + (state % np.uint64(2**53 - 2**40)).astype(np.int64)).astype(np.int64)


def guid(*labels: str | int) -> str:
    """Return a GUID-shaped name part that depends on the labels alone."""
    text = hashed_hex(repr(labels), 32)
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def micros(day: date) -> int:
    """Return the midnight (UTC) that begins a day, in microseconds since 1970."""
    return (day - date(1970, 1, 1)).days * DAY


def moments(midnight: int, days: npt.NDArray[np.generic], seconds: npt.NDArray[np.generic]) -> Ints:
    """Return microseconds since 1970 for days counted from `midnight` and seconds of the day."""
    return (midnight + days.astype(np.int64) * DAY + seconds.astype(np.int64) * SECOND).astype(np.int64)


def daytime(rng: np.random.Generator, count: int) -> Ints:
    """Return seconds of a day between 05:00 and 22:30 UTC, most of them in office hours."""
    return np.clip(rng.normal(13.5, 3.6, count) * 3600, 5 * 3600, 22.5 * 3600).astype(np.int64)


def pick(values: Sequence[str | None], codes: npt.NDArray[np.generic]) -> pl.Series:
    """Return `values[codes]` as a String series."""
    return pl.Series(values, dtype=pl.String).gather(pl.Series(codes.astype(np.uint32)))


def choose(
    rng: np.random.Generator, values: Sequence[str | None], count: int, weights: Sequence[float] = ()
) -> pl.Series:
    """Return `count` of the values, by weight if weights are given."""
    p = np.asarray(weights, dtype=float) / sum(weights) if weights else None
    return pick(values, rng.choice(len(values), size=count, p=p))
