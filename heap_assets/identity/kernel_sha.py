"""SHA-256 (FIPS 180-4) of the text of many nodes, in compiled loops."""

from __future__ import annotations

from typing import Any

import numpy as np

from heap_assets.identity.kernel import AHEAD, I64, PLACE, PLACE_SHIFT, U8, U32, U64, compiled
from heap_assets.identity.native import prefetch

_K = np.array(
    [
        0x428A2F98, 0x71374491, 0xB5C0FBCF, 0xE9B5DBA5, 0x3956C25B, 0x59F111F1, 0x923F82A4, 0xAB1C5ED5,
        0xD807AA98, 0x12835B01, 0x243185BE, 0x550C7DC3, 0x72BE5D74, 0x80DEB1FE, 0x9BDC06A7, 0xC19BF174,
        0xE49B69C1, 0xEFBE4786, 0x0FC19DC6, 0x240CA1CC, 0x2DE92C6F, 0x4A7484AA, 0x5CB0A9DC, 0x76F988DA,
        0x983E5152, 0xA831C66D, 0xB00327C8, 0xBF597FC7, 0xC6E00BF3, 0xD5A79147, 0x06CA6351, 0x14292967,
        0x27B70A85, 0x2E1B2138, 0x4D2C6DFC, 0x53380D13, 0x650A7354, 0x766A0ABB, 0x81C2C92E, 0x92722C85,
        0xA2BFE8A1, 0xA81A664B, 0xC24B8B70, 0xC76C51A3, 0xD192E819, 0xD6990624, 0xF40E3585, 0x106AA070,
        0x19A4C116, 0x1E376C08, 0x2748774C, 0x34B0BCB5, 0x391C0CB3, 0x4ED8AA4A, 0x5B9CCA4F, 0x682E6FF3,
        0x748F82EE, 0x78A5636F, 0x84C87814, 0x8CC70208, 0x90BEFFFA, 0xA4506CEB, 0xBEF9A3F7, 0xC67178F2,
    ],
    dtype=np.uint32,
)  # fmt: skip

_START = np.array(
    [0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19], dtype=np.uint32
)


@compiled
def _turn(x: int, n: int) -> Any:
    return np.uint32((x >> np.uint32(n)) | np.uint32(x << np.uint32(32 - n)))


@compiled
def _absorb(state: U32, w: U32) -> None:
    """One round of SHA-256 (FIPS 180-4) over the sixteen words at the start of `w`."""
    for t in range(16, 64):
        s0 = np.uint32(_turn(w[t - 15], 7) ^ _turn(w[t - 15], 18) ^ (w[t - 15] >> np.uint32(3)))
        s1 = np.uint32(_turn(w[t - 2], 17) ^ _turn(w[t - 2], 19) ^ (w[t - 2] >> np.uint32(10)))
        w[t] = np.uint32(w[t - 16] + s0 + w[t - 7] + s1)
    a, b, c, d = state[0], state[1], state[2], state[3]
    e, f, g, h = state[4], state[5], state[6], state[7]
    for t in range(64):
        s1 = np.uint32(_turn(e, 6) ^ _turn(e, 11) ^ _turn(e, 25))
        choice = np.uint32((e & f) ^ (np.uint32(~e) & g))
        t1 = np.uint32(h + s1 + choice + _K[t] + w[t])
        s0 = np.uint32(_turn(a, 2) ^ _turn(a, 13) ^ _turn(a, 22))
        majority = np.uint32((a & b) ^ (a & c) ^ (b & c))
        t2 = np.uint32(s0 + majority)
        h, g, f, e = g, f, e, np.uint32(d + t1)
        d, c, b, a = c, b, a, np.uint32(t1 + t2)
    state[0] = np.uint32(state[0] + a)
    state[1] = np.uint32(state[1] + b)
    state[2] = np.uint32(state[2] + c)
    state[3] = np.uint32(state[3] + d)
    state[4] = np.uint32(state[4] + e)
    state[5] = np.uint32(state[5] + f)
    state[6] = np.uint32(state[6] + g)
    state[7] = np.uint32(state[7] + h)


@compiled
def sha256_128(
    nodes: U32, ranks: U8, facts: I64, data: U8, prefix_offsets: I64, prefixes: U8, high: U64, low: U64
) -> None:
    """Write the first 128 bits of SHA-256 over prefix-of-type + value, for each node (rule 7)."""
    w = np.zeros(64, np.uint32)
    state = np.zeros(8, np.uint32)
    for row in range(nodes.size):
        if row + AHEAD < nodes.size:
            prefetch(facts, np.int64(nodes[row + AHEAD]) * 4 + PLACE)
        if row + 8 < nodes.size:
            prefetch(data, facts[nodes[row + 8], PLACE] >> PLACE_SHIFT)
        node = nodes[row]
        prefix_at, prefix_end = prefix_offsets[ranks[node]], prefix_offsets[ranks[node] + 1]
        head = prefix_end - prefix_at
        begin, end = facts[node, PLACE] >> PLACE_SHIFT, facts[node + 1, PLACE] >> PLACE_SHIFT
        value_at = begin - head
        length = head + end - begin
        blocks = (length + 8) // 64 + 1
        state[:] = _START
        for block in range(blocks):
            for word in range(16):
                bits = np.uint32(0)
                for byte in range(4):
                    at = block * 64 + word * 4 + byte
                    if at < head:
                        letter = prefixes[prefix_at + at]
                    elif at < length:
                        letter = data[value_at + at]
                    elif at == length:
                        letter = np.uint8(0x80)
                    else:
                        letter = np.uint8(0)
                    bits = np.uint32((bits << np.uint32(8)) | np.uint32(letter))
                w[word] = bits
            if block == blocks - 1:
                w[14] = np.uint32((length * 8) >> 32)
                w[15] = np.uint32((length * 8) & 0xFFFFFFFF)
            _absorb(state, w)
        high[row] = (np.uint64(state[0]) << np.uint64(32)) | np.uint64(state[1])
        low[row] = (np.uint64(state[2]) << np.uint64(32)) | np.uint64(state[3])
