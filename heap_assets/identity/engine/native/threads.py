"""Compiled loops release the interpreter lock, so plain threads share the work of one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from heap_assets.machine import cores

T = TypeVar("T")

THREADS: Final = min(cores(), 8)
_SMALL: Final = 1 << 14
"""Ranges below this are done before a thread has started."""


def in_parts(work: Callable[[int, int], T]) -> list[T]:
    """Call `work(part, parts)` for each part, each in a thread of its own."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, range(THREADS), [THREADS] * THREADS))


def in_ranges(size: int, work: Callable[[int, int], T]) -> list[T]:
    """Call `work(begin, end)` for ranges that cover 0 to `size`, each in a thread of its own if there is much of it."""
    if size < _SMALL:
        return [work(0, size)]
    return in_parts(lambda part, parts: work(size * part // parts, size * (part + 1) // parts))


def at_once(*tasks: Callable[[], T]) -> list[T]:
    """Call some functions, each in a thread of its own."""
    with ThreadPoolExecutor(THREADS) as pool:
        return [done.result() for done in [pool.submit(task) for task in tasks]]
