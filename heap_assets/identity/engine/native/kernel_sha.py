"""SHA-256 (FIPS 180-4) of the text of many nodes: sixteen at a time, side by side in the processor's vectors."""

from __future__ import annotations

from typing import Any, Final, cast

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from heap_assets.identity.engine.native.intrinsics import big_endian, copy_words, element, load8, prefetch
from heap_assets.identity.engine.native.kernel import AHEAD, I64, PADDING, PLACE, PLACE_SHIFT, U8, U32, U64, compiled

_LANES: Final = 16
_BLOCK: Final = 64

_K: Final = (
    0x428A2F98, 0x71374491, 0xB5C0FBCF, 0xE9B5DBA5, 0x3956C25B, 0x59F111F1, 0x923F82A4, 0xAB1C5ED5,
    0xD807AA98, 0x12835B01, 0x243185BE, 0x550C7DC3, 0x72BE5D74, 0x80DEB1FE, 0x9BDC06A7, 0xC19BF174,
    0xE49B69C1, 0xEFBE4786, 0x0FC19DC6, 0x240CA1CC, 0x2DE92C6F, 0x4A7484AA, 0x5CB0A9DC, 0x76F988DA,
    0x983E5152, 0xA831C66D, 0xB00327C8, 0xBF597FC7, 0xC6E00BF3, 0xD5A79147, 0x06CA6351, 0x14292967,
    0x27B70A85, 0x2E1B2138, 0x4D2C6DFC, 0x53380D13, 0x650A7354, 0x766A0ABB, 0x81C2C92E, 0x92722C85,
    0xA2BFE8A1, 0xA81A664B, 0xC24B8B70, 0xC76C51A3, 0xD192E819, 0xD6990624, 0xF40E3585, 0x106AA070,
    0x19A4C116, 0x1E376C08, 0x2748774C, 0x34B0BCB5, 0x391C0CB3, 0x4ED8AA4A, 0x5B9CCA4F, 0x682E6FF3,
    0x748F82EE, 0x78A5636F, 0x84C87814, 0x8CC70208, 0x90BEFFFA, 0xA4506CEB, 0xBEF9A3F7, 0xC67178F2,
)  # fmt: skip

_START: Final = np.array(
    [0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19], dtype=np.uint32
).repeat(_LANES)

_VECTOR: Final = ir.VectorType(ir.IntType(32), _LANES)


class _Arithmetic:
    """Writes instructions for vectors of 32-bit words; the letters are those of FIPS 180-4, 4.1.2."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder
        kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
        self._turn = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fshr.v{_LANES}i32")

    def constant(self, word: int) -> Any:
        return ir.Constant(_VECTOR, [word] * _LANES)

    def total(self, first: Any, *more: Any) -> Any:
        for word in more:
            first = self.builder.add(first, word)
        return first

    def either(self, first: Any, *more: Any) -> Any:
        for word in more:
            first = self.builder.xor(first, word)
        return first

    def turned(self, word: Any, *bits: int) -> Any:
        return self.either(*(self.builder.call(self._turn, [word, word, self.constant(n)]) for n in bits))

    def shifted(self, word: Any, bits: int) -> Any:
        return self.builder.lshr(word, self.constant(bits))

    def choice(self, e: Any, f: Any, g: Any) -> Any:
        return self.either(g, self.builder.and_(e, self.either(f, g)))

    def majority(self, a: Any, b: Any, c: Any) -> Any:
        return self.builder.or_(self.builder.and_(a, b), self.builder.and_(c, self.builder.or_(a, b)))


def _absorb(typing_context: Any, state: Any, block: Any) -> Any:
    """Put one block of each message into its state; both are flat, word by word, a lane after the other."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def place(which: int, word: int) -> Any:
            index = ir.Constant(ir.IntType(64), word * _LANES)
            address = element(context, builder, signature.args[which], arguments[which], index)
            return builder.bitcast(address, _VECTOR.as_pointer())

        op = _Arithmetic(builder)
        before = [builder.load(place(0, word), align=4) for word in range(8)]
        w = [builder.load(place(1, word), align=4) for word in range(16)]
        a, b, c, d, e, f, g, h = before
        for t, k in enumerate(_K):
            if t >= 16:
                s0 = op.either(op.turned(w[t - 15], 7, 18), op.shifted(w[t - 15], 3))
                s1 = op.either(op.turned(w[t - 2], 17, 19), op.shifted(w[t - 2], 10))
                w.append(op.total(w[t - 16], s0, w[t - 7], s1))
            t1 = op.total(h, op.turned(e, 6, 11, 25), op.choice(e, f, g), op.constant(k), w[t])
            t2 = op.total(op.turned(a, 2, 13, 22), op.majority(a, b, c))
            a, b, c, d, e, f, g, h = op.total(t1, t2), a, b, c, op.total(d, t1), e, f, g
        for word, (old, new) in enumerate(zip(before, (a, b, c, d, e, f, g, h), strict=True)):
            builder.store(op.total(old, new), place(0, word), align=4)
        return context.get_dummy_value()

    return types.void(state, block), emit


_absorb_unchecked = cast("Any", intrinsic(_absorb))


@compiled
def absorb(state: U32, words: U32) -> None:
    """Put one block of each message into its state."""
    state[8 * _LANES - 1], words[16 * _LANES - 1]  # what is read and written is checked where loops are
    _absorb_unchecked(state, words)


@compiled
def _fill(
    block: U8, number: int, prefixes: U8, prefix_at: int, head: int, data: U8, value_at: int, length: int, last: bool
) -> None:
    """Write one block of prefix, value and padding (FIPS 180-4, 5.1.1); `length` is of prefix and value together."""
    begin = number * _BLOCK
    end = begin + _BLOCK
    if begin < head:
        copy_words(block, 0, prefixes, prefix_at + begin, min(head, end) - begin)
    value, stop = max(begin, head), min(length, end)
    if value < stop:
        copy_words(block, value - begin, data, value_at + value - head, stop - value)
    block[max(stop - begin, 0) :] = 0
    if begin <= length < end:
        block[length - begin] = 0x80
    if last:
        for byte in range(8):
            block[_BLOCK - 1 - byte] |= np.uint8((length * 8) >> (8 * byte) & 0xFF)


@compiled
def sha256_128(
    nodes: U32, ranks: U8, facts: I64, data: U8, prefix_offsets: I64, prefixes: U8, high: U64, low: U64
) -> None:
    """Write the first 128 bits of SHA-256 over prefix-of-type + value, for each node (rule 7)."""
    half = np.uint64(32)
    state, words = np.empty(8 * _LANES, np.uint32), np.zeros(16 * _LANES, np.uint32)
    block = np.empty(_BLOCK + PADDING, np.uint8)
    for group in range(0, nodes.size, _LANES):
        lanes = min(_LANES, nodes.size - group)
        state[:] = _START
        number, blocks = 0, 1
        while number < blocks:
            for lane in range(lanes):
                row = group + lane
                if number == 0 and row + AHEAD < nodes.size:
                    prefetch(facts, np.int64(nodes[row + AHEAD]) * 4 + PLACE)
                if number == 0 and row + 8 < nodes.size:
                    prefetch(data, facts[nodes[row + 8], PLACE] >> PLACE_SHIFT)
                node = nodes[row]
                prefix_at = prefix_offsets[ranks[node]]
                head = prefix_offsets[ranks[node] + 1] - prefix_at
                value_at = facts[node, PLACE] >> PLACE_SHIFT
                length = head + (facts[node + 1, PLACE] >> PLACE_SHIFT) - value_at
                own = (length + 8) // _BLOCK + 1
                blocks = max(blocks, own)
                if number >= own:
                    continue
                _fill(block, number, prefixes, prefix_at, head, data, value_at, length, number == own - 1)
                for pair in range(8):
                    both = big_endian(load8(block, pair * 8))
                    words[2 * pair * _LANES + lane] = np.uint32(both >> half)
                    words[(2 * pair + 1) * _LANES + lane] = np.uint32(both & np.uint64(0xFFFFFFFF))
            absorb(state, words)
            for lane in range(lanes):
                node = nodes[group + lane]
                length = prefix_offsets[ranks[node] + 1] - prefix_offsets[ranks[node]]
                length += (facts[node + 1, PLACE] >> PLACE_SHIFT) - (facts[node, PLACE] >> PLACE_SHIFT)
                if number == (length + 8) // _BLOCK:
                    a, b, c, d = lane, lane + _LANES, lane + 2 * _LANES, lane + 3 * _LANES
                    high[group + lane] = np.uint64(state[a]) << half | np.uint64(state[b])
                    low[group + lane] = np.uint64(state[c]) << half | np.uint64(state[d])
            number += 1
