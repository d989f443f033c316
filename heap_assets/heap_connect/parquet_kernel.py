"""Compiled loops between numbers of texts and Parquet's pages; everything goes by addresses (see text_kernel)."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from heap_assets.heap_connect.text_kernel import equal, hash_text, put_word, word

_LOW_HALF = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def _find_same(starts: Any, lengths: Any, slots: Any, begin: int, first: Any) -> None:
    """Write into `first[n - begin]` the lowest number of a text that equals text n; number 0 is null.

    `slots` knows the texts before `begin`; they are a power of two, more than there are texts.
    """
    last = len(slots) - 1
    for number in range(begin, len(starts)):
        at, length = starts[number], np.int64(lengths[number])
        tag = hash_text(at, length)
        slot = np.int64(tag) & last
        first[number - begin] = number
        while slots[slot, 0] != np.uint64(0):
            if slots[slot, 0] >> _HALF == tag:
                other = np.int64(slots[slot, 0] & _LOW_HALF)
                if np.int64(lengths[other]) == length and equal(at, starts[other], length):
                    first[number - begin] = other
                    break
            slot = (slot + 1) & last
        else:
            slots[slot, 0] = tag << _HALF | np.uint64(number)


find_same: Any = numba.njit(cache=True, nogil=True)(_find_same)


def _place(numbers: Any, names: Any, ranks: Any, placed: Any) -> None:
    """Write the names of a batch's numbers to where their rows go."""
    for i in range(len(numbers)):
        placed[ranks[i]] = names[numbers[i]]


place: Any = numba.njit(cache=True, nogil=True)(_place)


def _number_anew(placed: Any, lengths: Any, names: Any, used: Any, codes: Any, bits: Any) -> Any:
    """Number the texts of some rows from 0 in the order in which they come.

    `names` is all zeros, as it is again afterwards. `used` gets the texts, `codes` their numbers in rows that have
    one, `bits` an Arrow bitmap of those rows. Returns how many texts, how many such rows, and the texts' bytes.
    """
    texts: Any = 0
    filled: Any = 0
    size: Any = 0
    for i in range(len(placed)):
        text = np.int64(placed[i])
        if text == 0:
            continue
        bits[i >> 3] |= np.uint8(1 << (i & 7))
        name: Any = np.int64(names[text])
        if name == 0:
            used[texts] = text
            texts += 1
            names[text] = texts
            name = texts
            size += np.int64(lengths[text])
        codes[filled] = name - 1
        filled += 1
    for i in range(texts):
        names[used[i]] = 0
    return texts, filled, size


number_anew: Any = numba.njit(cache=True, nogil=True)(_number_anew)


def _write_pages(
    used: Any, texts: int, starts: Any, lengths: Any, dictionary: Any, codes: Any, filled: int, width: int, packed: int
) -> None:
    """Write the texts as a plain dictionary, and codes of `width` bits; up to 16 bytes too many at both addresses."""
    for i in range(texts):
        text = np.int64(used[i])
        start, length = starts[text], np.int64(lengths[text])
        put_word(dictionary, np.uint64(length))
        for j in range(0, length, 8):
            put_word(dictionary + 4 + j, word(start + j))
        dictionary += 4 + length
    bits = np.uint64(0)
    held = np.uint64(0)
    step = np.uint64(width)
    for i in range(filled):
        bits |= np.uint64(codes[i]) << held
        held += step
        if held >= _HALF:
            put_word(packed, bits)
            packed += 4
            bits >>= _HALF
            held -= _HALF
    put_word(packed, bits)


write_pages: Any = numba.njit(cache=True, nogil=True)(_write_pages)


def _find_texts(dictionary: Any, count: int, starts: Any, lengths: Any, at: int) -> None:
    """Note where the texts of a plain dictionary are, as numbers `at` and on."""
    for i in range(count):
        length = np.int64(word(dictionary) & _LOW_HALF)
        starts[at + i] = dictionary + 4
        lengths[at + i] = length
        dictionary += 4 + length


find_texts: Any = numba.njit(cache=True, nogil=True)(_find_texts)


def _unpack(packed: int, width: int, bits: int, begin: int, names: Any, ranks: Any, placed: Any) -> None:
    """Undo `write_pages`: the names of codes, counted from `begin`, to where their rows go.

    `bits` is where a bitmap of rows that have a text is; 0 says that all have.
    """
    mask = (np.uint64(1) << np.uint64(width)) - np.uint64(1)
    position = 0
    for i in range(len(ranks)):
        if bits != 0 and not (word(bits + (i >> 3)) >> np.uint64(i & 7)) & np.uint64(1):
            placed[ranks[i]] = np.uint32(0)
            continue
        code = (word(packed + (position >> 3)) >> np.uint64(position & 7)) & mask
        placed[ranks[i]] = names[begin + np.int64(code)]
        position += width


unpack: Any = numba.njit(cache=True, nogil=True)(_unpack)
