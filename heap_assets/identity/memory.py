"""Memory for the engine: how much there is, and arrays whose rows do not lie across two lines of the cache."""

from __future__ import annotations

import math
import os
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

_LINE: Final = 64


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
