"""Acting on many objects of a store: several at once where each takes a round trip, one after the other on a disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from heap_assets.storage.store import Store

T = TypeVar("T")
R = TypeVar("R")

_AT_ONCE = 16
_AHEAD = 64
"""Results that are computed before the first of them is needed: memory holds no more."""


def side_by_side(store: Store, act: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """Yield the results of `act` on items that stand for objects of a store, in their order."""
    if store.is_local or len(items) <= 1:  # starting threads takes longer than reading files
        yield from map(act, items)
        return
    with ThreadPoolExecutor(min(_AT_ONCE, len(items))) as pool:
        for start in range(0, len(items), _AHEAD):
            yield from pool.map(act, items[start : start + _AHEAD])
