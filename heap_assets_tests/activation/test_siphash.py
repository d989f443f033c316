"""SipHash of columns: the published vectors, and a slow obvious implementation as the judge of everything else."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_assets.siphash import siphash_texts, siphash_words

KEY = bytes(range(16))
WORDS = np.frombuffer(KEY, dtype="<u8")
MASK = 2**64 - 1


def rotated(word: int, bits: int) -> int:
    return ((word << bits) | (word >> (64 - bits))) & MASK


def obvious(message: bytes, key: bytes) -> int:
    """SipHash-2-4 as the paper writes it, one integer at a time."""
    k = [int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")]
    v = [
        b ^ k[i % 2]
        for i, b in enumerate((0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573))
    ]

    def rounds(count: int) -> None:
        for _ in range(count):
            for a, b, near, far in ((0, 1, 13, 32), (2, 3, 16, 0), (0, 3, 21, 0), (2, 1, 17, 32)):
                v[a] = (v[a] + v[b]) & MASK
                v[b] = rotated(v[b], near) ^ v[a]
                v[a] = rotated(v[a], far) if far else v[a]

    padded = message + bytes(7 - len(message) % 8) + bytes([len(message) & 0xFF])
    for at in range(0, len(padded), 8):
        word = int.from_bytes(padded[at : at + 8], "little")
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 0xFF
    rounds(4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (0, "310e0edd47db6f72"),
        (1, "fd67dc93c539f874"),
        (7, "37d1018bf50002ab"),
        (8, "6224939a79f5f593"),
        (15, "e545be4961ca29a1"),
    ],
)
def test_the_published_vectors(length: int, expected: str) -> None:
    """Aumasson and Bernstein, vectors_sip64: key 00..0f, message 00 01 02 ..."""
    message = "".join(map(chr, range(length)))
    (found,) = siphash_texts(pl.Series([message]), WORDS).tolist()
    assert found.to_bytes(8, "little").hex() == expected
    assert obvious(message.encode(), KEY) == found


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.none(), st.text(max_size=40), st.text("aé€😀", min_size=200, max_size=900)), max_size=30))
def test_every_text_of_a_column_is_hashed_as_if_it_stood_alone(texts: list[str | None]) -> None:
    found = siphash_texts(pl.Series(texts, dtype=pl.String), WORDS).tolist()
    assert found == [obvious((text or "").encode(), KEY) for text in texts]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, MASK), max_size=30))
def test_a_number_is_hashed_by_its_eight_bytes(numbers: list[int]) -> None:
    found = siphash_words(np.array(numbers, dtype=np.uint64), WORDS).tolist()
    assert found == [obvious(number.to_bytes(8, "little"), KEY) for number in numbers]


def test_a_column_longer_than_a_block_is_hashed_row_by_row() -> None:
    texts = [f"row {i} {'x' * (i % 23)}" for i in range(20_001)]
    found = siphash_texts(pl.Series(texts), WORDS)
    assert [int(found[i]) for i in (0, 8191, 8192, 16_384, 20_000)] == [
        obvious(texts[i].encode(), KEY) for i in (0, 8191, 8192, 16_384, 20_000)
    ]
    numbers = np.arange(20_001, dtype=np.uint64)
    assert int(siphash_words(numbers, WORDS)[8192]) == obvious((8192).to_bytes(8, "little"), KEY)
