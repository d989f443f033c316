"""Memory for the engine: how much there is, and arrays whose rows do not lie across two lines of the cache."""

from __future__ import annotations

import math
import os
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

_LINE: Final = 64
_PIECE: Final = 1 << 26


def available() -> int:
    """Return how many bytes this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def aligned(shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Return an array of zeros that begins where a line of the cache does; a page is taken only when it is written."""
    size = math.prod(shape) if isinstance(shape, tuple) else shape
    kind = np.dtype(dtype)
    memory = np.zeros(size * kind.itemsize + _LINE, np.uint8)
    begin = -memory.ctypes.data % _LINE
    return memory[begin : begin + size * kind.itemsize].view(kind).reshape(shape)


class Blocks:
    """Arrays that are let go of together, cut out of large pieces of memory.

    The system takes a large piece back as soon as it is free; many small ones it may be left without.
    """

    def __init__(self) -> None:
        self._piece: NDArray[np.uint8] = np.empty(0, np.uint8)
        self._used = 0

    def take(self, size: int, dtype: DTypeLike) -> NDArray[Any]:
        """Return an array of whatever was there."""
        nbytes = size * np.dtype(dtype).itemsize
        if self._used + nbytes > self._piece.size:
            self._piece, self._used = np.empty(max(_PIECE, nbytes), np.uint8), 0
        begin = self._used
        self._used = -(-(begin + nbytes) // _LINE) * _LINE
        return self._piece[begin : begin + nbytes].view(dtype)
