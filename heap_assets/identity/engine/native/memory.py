"""Memory and threads of the engine: arrays that grow in place, arenas, loops over ranges in parallel."""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import duckdb
import numpy as np
from numpy.typing import DTypeLike, NDArray

from heap_assets.identity.rules import MemoryLimitError
from heap_assets.machine import cores, memory_limit

_LINE: Final = 64
_PIECE: Final = 1 << 26
_HUGE: Final = 1 << 22
"""Smallest array for which huge pages are requested, in bytes, as NumPy does."""


def aligned(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Return an array of zeros that begins at a page; a page takes memory only once it is written."""
    size = math.prod(shape)
    return Growing(dtype, size).array[:size].reshape(shape)


@contextmanager
def failing_clearly(task: str) -> Iterator[None]:
    """Raise a MemoryLimitError, which says what to do, in place of a MemoryError or DuckDB's own."""
    try:
        yield
    except (MemoryError, duckdb.OutOfMemoryException) as error:
        raise MemoryLimitError(
            f"{task} needs more memory than this process may use ({memory_limit() // 1_000_000} MB): give it more"
        ) from error


class Growing:
    """A flat array of zeros that grows without being copied; a page takes memory only once it is written.

    It begins at a page, so rows whose size divides that of a cache line never cross one.
    """

    def __init__(self, dtype: DTypeLike, size: int) -> None:
        self._kind = np.dtype(dtype)
        self._memory = _mapped(max(size, 1) * self._kind.itemsize)

    @property
    def array(self) -> NDArray[Any]:
        """The array; no reference may be held while it grows."""
        return np.frombuffer(self._memory, self._kind, len(self._memory) // self._kind.itemsize)

    @property
    def size(self) -> int:
        """The number of elements."""
        return len(self._memory) // self._kind.itemsize

    def grow(self, size: int) -> None:
        """Grow to at least `size` elements, in steps of half the size.

        Raises MemoryError if the system has no address space left; the array stays as it was.
        """
        if size <= self.size:
            return
        larger_size = _whole_pages(max(size, self.size * 3 // 2) * self._kind.itemsize)
        try:
            self._memory.resize(larger_size)
        except SystemError:  # this system cannot move memory (macOS): copy it
            larger = _mapped(larger_size)
            larger[: len(self._memory)] = self._memory[:]
            self._memory = larger
        except OSError as error:
            raise MemoryError(f"no room for {larger_size} bytes") from error


def _mapped(size: int) -> mmap.mmap:
    try:
        memory = mmap.mmap(-1, _whole_pages(size), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"no room for {size} bytes") from error
    if size >= _HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def _whole_pages(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE


class Blocks:
    """An arena: arrays that are freed together, cut out of large pieces of memory.

    A large piece returns to the system as soon as it is freed; many small ones may not.
    """

    def __init__(self) -> None:
        self._piece: NDArray[np.uint8] = np.empty(0, np.uint8)
        self._used = 0
        self.nbytes = 0
        """Bytes of all pieces."""

    def take(self, size: int, dtype: DTypeLike) -> NDArray[Any]:
        """Return an uninitialised array."""
        nbytes = size * np.dtype(dtype).itemsize
        if self._used + nbytes > self._piece.size:
            self._piece, self._used = np.empty(max(_PIECE, nbytes), np.uint8), 0
            self.nbytes += self._piece.size
        begin = self._used
        self._used = -(-(begin + nbytes) // _LINE) * _LINE
        return self._piece[begin : begin + nbytes].view(dtype)


T = TypeVar("T")

THREADS: Final = min(cores(), 8)
_SMALL: Final = 1 << 14
"""Smaller ranges are done before a thread would have started."""


def in_parts(work: Callable[[int, int], T]) -> list[T]:
    """Call `work(part, parts)` for each part in parallel."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, range(THREADS), [THREADS] * THREADS))


def in_ranges(size: int, work: Callable[[int, int], T]) -> list[T]:
    """Call `work(begin, end)` for ranges that cover 0 to `size`, in parallel from 16,384 on."""
    if size < _SMALL:
        return [work(0, size)]
    return in_parts(lambda part, parts: work(size * part // parts, size * (part + 1) // parts))


def at_once(*tasks: Callable[[], T]) -> list[T]:
    """Call some functions in parallel."""
    with ThreadPoolExecutor(THREADS) as pool:
        return [future.result() for future in [pool.submit(task) for task in tasks]]
