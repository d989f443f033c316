"""SipHash-2-4 over columns (Aumasson and Bernstein, 2012): without the key nobody can test guesses against a hash."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

Words = NDArray[np.uint64]

_BLOCK = 8192
_WORD = 8
_INITIAL = (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)


def siphash_texts(texts: pl.Series, key: Words) -> Words:
    """Hash a column of strings by their UTF-8 bytes under a key of two words; null is hashed as an empty text."""
    texts = texts.fill_null("")
    hashes = np.empty(len(texts), dtype=np.uint64)
    for begin in range(0, len(texts), _BLOCK):
        block = texts.slice(begin, _BLOCK)
        hashes[begin : begin + len(block)] = _block(block, key)
    return hashes


def siphash_words(words: Words, key: Words) -> Words:
    """Hash a column of numbers by their eight bytes, lowest first, under a key of two words."""
    hashes = np.empty(len(words), dtype=np.uint64)
    closing = np.full(min(len(words), _BLOCK), _WORD << 56, dtype=np.uint64)
    for begin in range(0, len(words), _BLOCK):
        block = words[begin : begin + _BLOCK]
        state = _State(len(block), key)
        state.absorb(block)
        state.absorb(closing[: len(block)])
        hashes[begin : begin + len(block)] = state.finished()
    return hashes


def _block(texts: pl.Series, key: Words) -> Words:
    lengths = texts.str.len_bytes().to_numpy().astype(np.int64)
    order = np.argsort(-(lengths // _WORD), kind="stable")  # longest first: those still at work are always the first
    starts, lengths = (np.cumsum(lengths) - lengths)[order], lengths[order]
    state = _State(len(texts), key)
    word_at = _words_at(texts)
    for at, running in _running(lengths // _WORD):
        state.absorb(word_at[starts[:running] + at * _WORD])
    tail_bits = (lengths % _WORD).astype(np.uint64) * np.uint64(8)
    last = word_at[starts + lengths // _WORD * _WORD] & ((np.uint64(1) << tail_bits) - np.uint64(1))
    state.absorb(last | (lengths.astype(np.uint64) << np.uint64(56)))
    hashes = np.empty(len(texts), dtype=np.uint64)
    hashes[order] = state.finished()
    return hashes


def _words_at(texts: pl.Series) -> Words:
    """Return the eight bytes that begin at each byte of the joined texts, as numbers."""
    joined = str(texts.str.join("")[0]).encode() + bytes(_WORD)
    return np.ndarray((len(joined) - _WORD + 1,), "<u8", joined, strides=(1,))


def _running(words: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield each position, and how many texts have a whole word there; `words` falls."""
    rising = -words
    for at in range(int(words[0])):
        yield at, int(np.searchsorted(rising, -at, side="left"))


class _State:
    """The four words of state of every value of a block."""

    def __init__(self, values: int, key: Words) -> None:
        self._v = [np.full(values, word ^ int(key[i % 2]), dtype=np.uint64) for i, word in enumerate(_INITIAL)]
        self._spare = np.empty(values, dtype=np.uint64)

    def absorb(self, words: Words) -> None:
        """Mix one word into each of the first values."""
        state = [v[: len(words)] for v in self._v]
        state[3] ^= words
        self._rounds(state, 2)
        state[0] ^= words

    def finished(self) -> Words:
        self._v[2] ^= np.uint64(0xFF)
        self._rounds(self._v, 4)
        return self._v[0] ^ self._v[1] ^ self._v[2] ^ self._v[3]

    def _rounds(self, state: list[Words], rounds: int) -> None:
        v0, v1, v2, v3 = state
        spare = self._spare[: len(v0)]
        for _ in range(rounds):
            v0 += v1
            _rotate(v1, 13, spare)
            v1 ^= v0
            _rotate(v0, 32, spare)
            v2 += v3
            _rotate(v3, 16, spare)
            v3 ^= v2
            v0 += v3
            _rotate(v3, 21, spare)
            v3 ^= v0
            v2 += v1
            _rotate(v1, 17, spare)
            v1 ^= v2
            _rotate(v2, 32, spare)


def _rotate(words: Words, bits: int, spare: Words) -> None:
    np.left_shift(words, np.uint64(bits), out=spare)
    words >>= np.uint64(64 - bits)
    words |= spare
