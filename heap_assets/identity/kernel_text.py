"""Compiled loops over text: SHA-256, byte order, gathering. UTF-8 bytes with offsets, as Arrow has it."""

from __future__ import annotations

from typing import Any

import numpy as np

from heap_assets.identity.kernel import I64, NO_TYPE, NONE, U8, U16, U32, U64, compiled

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
    nodes: U32, ranks: U8, offsets: I64, data: U8, prefix_offsets: I64, prefixes: U8, high: U64, low: U64
) -> None:
    """Write the first 128 bits of SHA-256 over prefix-of-type + value, for each node (rule 7)."""
    w = np.zeros(64, np.uint32)
    state = np.zeros(8, np.uint32)
    for row in range(nodes.size):
        node = nodes[row]
        prefix_at, prefix_end = prefix_offsets[ranks[node]], prefix_offsets[ranks[node] + 1]
        head = prefix_end - prefix_at
        value_at = offsets[node] - head
        length = head + offsets[node + 1] - offsets[node]
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


@compiled
def _text_before(x: int, y: int, offsets: I64, data: U8) -> Any:
    """Compare two nodes' values as UTF-8 bytes."""
    at_x, at_y = offsets[x], offsets[y]
    size_x, size_y = offsets[x + 1] - at_x, offsets[y + 1] - at_y
    for i in range(min(size_x, size_y)):
        if data[at_x + i] != data[at_y + i]:
            return data[at_x + i] < data[at_y + i]
    return size_x < size_y


@compiled
def common_prefix(ranks: U8, offsets: I64, data: U8, lengths: I64) -> None:
    """Find how many bytes all values of each type begin with; `lengths` comes filled with -1."""
    example = np.zeros(lengths.size, np.int64)
    for node in range(ranks.size):
        rank = ranks[node]
        if rank == NO_TYPE:
            continue
        begin, size = offsets[node], offsets[node + 1] - offsets[node]
        if lengths[rank] < 0:
            lengths[rank] = size
            example[rank] = begin
            continue
        same = min(lengths[rank], size)
        for i in range(same):
            if data[begin + i] != data[example[rank] + i]:
                same = i
                break
        lengths[rank] = same


@compiled
def runs(
    labels: U32, ranks: U8, shared: U8, offsets: I64, data: U8, skip: I64, starts: I64, keys: U64, nodes: U32
) -> None:
    """Lay out nodes by cluster, each run by rank and then by value; then nodes of no cluster, then those of no type.

    A node travels with a key that sorts it: 7 bits rank, 1 bit shared, then the seven bytes after those that all values
    of its type begin with. So a run is sorted in place, and text is fetched only where keys are equal.
    `starts` comes as zeros, with three entries more than there are clusters.
    """
    nobody, gone = starts.size - 3, starts.size - 2
    for node in range(labels.size):
        place = gone if ranks[node] == NO_TYPE else nobody if labels[node] == NONE else labels[node]
        starts[place + 1] += 1
    for place in range(starts.size - 1):
        starts[place + 1] += starts[place]
    for node in range(labels.size):
        rank = ranks[node]
        if rank == NO_TYPE:
            continue
        place = nobody if labels[node] == NONE else labels[node]
        key = np.uint64(rank) << np.uint64(1) | np.uint64(shared[node])
        begin, end = offsets[node] + skip[rank], offsets[node + 1]
        for i in range(7):
            byte = data[begin + i] if begin + i < end else np.uint8(0)
            key = key << np.uint64(8) | np.uint64(byte)
        at = starts[place]
        starts[place] = at + 1
        keys[at] = key
        nodes[at] = node
    for place in range(nobody, -1, -1):
        starts[place + 1] = starts[place]
    starts[0] = 0
    for place in range(nobody + 1):
        begin, end = starts[place], starts[place + 1]
        if end - begin > 1:
            _sort_run(keys[begin:end], nodes[begin:end], offsets, data)


@compiled
def _before(key_x: int, node_x: int, key_y: int, node_y: int, offsets: I64, data: U8) -> Any:
    # the bit that tells shared values is no part of the order
    x = key_x & ~(np.uint64(1) << np.uint64(56))
    y = key_y & ~(np.uint64(1) << np.uint64(56))
    if x != y:
        return x < y
    return _text_before(node_x, node_y, offsets, data)


@compiled
def _sort_run(keys: U64, nodes: U32, offsets: I64, data: U8) -> None:
    """Sort a run in place: insertion for the usual few, heap sort for a giant."""
    n = nodes.size
    if n <= 24:
        for i in range(1, n):
            key, node = keys[i], nodes[i]
            j = i - 1
            while j >= 0 and _before(key, node, keys[j], nodes[j], offsets, data):
                keys[j + 1] = keys[j]
                nodes[j + 1] = nodes[j]
                j -= 1
            keys[j + 1] = key
            nodes[j + 1] = node
        return
    for start in range(n // 2 - 1, -1, -1):
        _sift(keys, nodes, start, n, offsets, data)
    for end in range(n - 1, 0, -1):
        keys[0], keys[end] = keys[end], keys[0]
        nodes[0], nodes[end] = nodes[end], nodes[0]
        _sift(keys, nodes, 0, end, offsets, data)


@compiled
def _sift(keys: U64, nodes: U32, start: int, end: int, offsets: I64, data: U8) -> None:
    root = start
    while 2 * root + 1 < end:
        child = 2 * root + 1
        if child + 1 < end and _before(keys[child], nodes[child], keys[child + 1], nodes[child + 1], offsets, data):
            child += 1
        if not _before(keys[root], nodes[root], keys[child], nodes[child], offsets, data):
            return
        keys[root], keys[child] = keys[child], keys[root]
        nodes[root], nodes[child] = nodes[child], nodes[root]
        root = child


@compiled
def representatives(starts: I64, keys: U64, nodes: U32, seen: I64, best: U32) -> None:
    """Find each run's strongest, then earliest, then smallest node (rule 7); NONE for an empty run."""
    for place in range(best.size):
        best[place] = NONE
        earliest = np.int64(0)
        for at in range(starts[place], starts[place + 1]):
            if best[place] == NONE:
                best[place] = nodes[at]
                if at + 1 < starts[place + 1]:
                    earliest = seen[nodes[at], 0]
            elif keys[at] >> np.uint64(57) != keys[starts[place]] >> np.uint64(57):
                break
            elif seen[nodes[at], 0] < earliest:
                best[place] = nodes[at]
                earliest = seen[nodes[at], 0]


# Loops that fetch from all over memory do nothing else, so that the processor waits for many fetches at once.


@compiled
def take_runs(places: U32, starts: I64, nodes: U32, keys: U64, out_nodes: U32, out_keys: U64) -> None:
    """Copy whole runs, in the order of `places`."""
    row = 0
    for i in range(places.size):
        for at in range(starts[places[i]], starts[places[i] + 1]):
            out_nodes[row] = nodes[at]
            out_keys[row] = keys[at]
            row += 1


@compiled
def take_seen(nodes: U32, seen: I64, first: I64, last: I64) -> None:
    """Copy first and last seen of some nodes."""
    for row in range(nodes.size):
        first[row] = seen[nodes[row], 0]
        last[row] = seen[nodes[row], 1]


_DIGITS = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), np.uint16).copy()


@compiled
def write_ids(sizes: I64, high: U64, low: U64, some: U8, out: U64, known: U8) -> None:
    """Write the id of each run, as 32 hexadecimal digits, to each of its rows; not where `some` is 0."""
    text = np.empty(16, np.uint16)
    words = text.view(np.uint64)
    row = 0
    for i in range(sizes.size):
        if some[i]:
            for byte in range(8):
                shift = np.uint64(56 - 8 * byte)
                text[byte] = _DIGITS[(high[i] >> shift) & np.uint64(255)]
                text[8 + byte] = _DIGITS[(low[i] >> shift) & np.uint64(255)]
            for member in range(row, row + sizes[i]):
                known[member] = 1
                for word in range(4):
                    out[member, word] = words[word]
        row += sizes[i]


@compiled
def text_size(nodes: U32, offsets: I64) -> int:
    """Return how many bytes the values of some nodes take."""
    total = 0
    for row in range(nodes.size):
        total += offsets[nodes[row] + 1] - offsets[nodes[row]]
    return total


@compiled
def gather_text(nodes: U32, offsets: I64, data: U8, out_offsets: I64, out: U8) -> None:
    """Copy the values of some nodes, one after the other."""
    group = 64
    begins, sizes = np.empty(group, np.int64), np.empty(group, np.int64)
    at = 0
    for start in range(0, nodes.size, group):
        rows = min(group, nodes.size - start)
        for i in range(rows):
            begins[i] = offsets[nodes[start + i]]
            sizes[i] = offsets[nodes[start + i] + 1] - begins[i]
        for i in range(rows):
            if sizes[i] > 0:
                # asks for the bytes; the number itself is overwritten below
                out_offsets[start + i + 1] = data[begins[i]]
        for i in range(rows):
            begin = begins[i]
            for byte in range(sizes[i]):
                out[at + byte] = data[begin + byte]
            at += sizes[i]
            out_offsets[start + i + 1] = at


@compiled
def hexadecimal(labels: U32, high: U64, low: U64, out: U16) -> None:
    """Write 32 hexadecimal digits per row; rows of no cluster are left as they are."""
    for row in range(labels.size):
        if labels[row] == NONE:
            continue
        for byte in range(8):
            shift = np.uint64(56 - 8 * byte)
            out[row, byte] = _DIGITS[(high[labels[row]] >> shift) & np.uint64(255)]
            out[row, 8 + byte] = _DIGITS[(low[labels[row]] >> shift) & np.uint64(255)]
