"""Compiled loops that sort ids: their bits are random, so their first bits say nearly where each belongs."""

from __future__ import annotations

import numpy as np

from heap_assets.identity.engine.native.kernel import I64, U32, U64, compiled


@compiled
def count_buckets(runs: I64, high: U64, shift: int, starts: I64, begin: int, end: int) -> None:
    """Count the ids of bucket b, those whose first bits are b, in `starts[b + 1]`, which comes as zeros.

    Cluster c is empty, and has no id, if `runs[c]` is `runs[c + 1]`.
    """
    for row in range(high.size):
        bucket = np.int64(high[row] >> np.uint64(shift))
        if begin <= bucket < end and runs[row] < runs[row + 1]:
            starts[bucket + 1] += 1


@compiled
def sort_buckets(
    runs: I64, high: U64, low: U64, shift: int, starts: I64, order: U32, begin: int, end: int
) -> None:  # fmt: skip
    """Write into `order` the clusters of a range of buckets, sorted by id; `starts` says where buckets begin."""
    first, size = starts[begin], starts[end] - starts[begin]
    keys, tails = np.empty(size, np.uint64), np.empty(size, np.uint64)
    ends = starts[begin:end].copy()
    for row in range(high.size):
        own = np.int64(high[row] >> np.uint64(shift)) - begin
        if 0 <= own < end - begin and runs[row] < runs[row + 1]:
            free = ends[own]
            ends[own] = free + 1
            keys[free - first], tails[free - first], order[free] = high[row], low[row], row
    for bucket in range(begin, end):
        for at in range(starts[bucket] + 1, starts[bucket + 1]):
            key, tail, mine = keys[at - first], tails[at - first], order[at]
            place = at
            while place > starts[bucket]:
                before = place - 1 - first
                if keys[before] < key or (keys[before] == key and tails[before] <= tail):
                    break
                keys[place - first], tails[place - first], order[place] = keys[before], tails[before], order[place - 1]
                place -= 1
            keys[place - first], tails[place - first], order[place] = key, tail, mine
