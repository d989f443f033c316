"""Processor instructions that Numba does not offer, and reading and writing words of byte arrays.

Three are processor instructions. They take an array and an index, never an address. `prefetch` is a hint, which touches
no memory; the others first read the elements that they touch as plain Python, so they are checked where loops are
(NUMBA_BOUNDSCHECK). The compiler drops such a read where nothing is checked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_BYTE = ir.IntType(8)
_U64 = np.uint64


def element(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    """Return a reference to an element of a contiguous array, counted flat."""
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [index])


def _prefetch(typing_context: Any, array: Any, index: Any) -> Any:
    """Prefetch the memory of a flat element of an array."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.bitcast(element(context, builder, signature.args[0], *arguments), _BYTE.as_pointer())
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [_BYTE.as_pointer(), number, number, number])
        ask = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(ask, [place, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(array, types.int64), emit


def _exchange(typing_context: Any, array: Any, index: Any, old: Any, new: Any) -> Any:
    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, index, old, new = arguments
        place = element(context, builder, signature.args[0], array, index)
        return builder.extract_value(builder.cmpxchg(place, old, new, "acq_rel", "monotonic"), 1)

    return types.boolean(array, types.int64, array.dtype, array.dtype), emit


prefetch = cast("Any", intrinsic(_prefetch))
_exchange_unchecked = cast("Any", intrinsic(_exchange))
F = TypeVar("F", bound=Callable[..., Any])
_inlined = cast("Callable[[F], F]", numba.njit(nogil=True))


@_inlined
def swapped(array: Any, index: Any, old: Any, new: Any) -> Any:
    """Replace `old` by `new` if it is unchanged; returns whether it was. Atomic; of flat arrays."""
    array[index]
    return _exchange_unchecked(array, index, old, new)


@_inlined
def load8(data: Any, at: int) -> Any:
    """Read eight bytes of a byte array from any place, as a little-endian number. One instruction, once compiled."""
    i = _U64(at)
    return (
        _U64(data[i]) | _U64(data[i + _U64(1)]) << _U64(8)
        | _U64(data[i + _U64(2)]) << _U64(16) | _U64(data[i + _U64(3)]) << _U64(24)
        | _U64(data[i + _U64(4)]) << _U64(32) | _U64(data[i + _U64(5)]) << _U64(40)
        | _U64(data[i + _U64(6)]) << _U64(48) | _U64(data[i + _U64(7)]) << _U64(56)
    )  # fmt: skip


@_inlined
def store8(data: Any, at: int, word: Any) -> None:
    """Write a number to any place of a byte array, its lowest byte first. One instruction, once compiled."""
    i = _U64(at)
    data[i], data[i + _U64(1)] = np.uint8(word), np.uint8(word >> _U64(8))
    data[i + _U64(2)], data[i + _U64(3)] = np.uint8(word >> _U64(16)), np.uint8(word >> _U64(24))
    data[i + _U64(4)], data[i + _U64(5)] = np.uint8(word >> _U64(32)), np.uint8(word >> _U64(40))
    data[i + _U64(6)], data[i + _U64(7)] = np.uint8(word >> _U64(48)), np.uint8(word >> _U64(56))


@_inlined
def copy_words(out: Any, at: int, data: Any, begin: int, size: int) -> None:
    """Copy bytes between byte arrays, eight at a time: up to seven more are read and written than `size` says."""
    for part in range(0, size, 8):
        store8(out, at + part, load8(data, begin + part))


@_inlined
def big_endian(word: Any) -> Any:
    """Reverse the bytes of a number, so that numbers compare as the text they were read from."""
    word = (word & _U64(0x00FF00FF00FF00FF)) << _U64(8) | (word >> _U64(8)) & _U64(0x00FF00FF00FF00FF)
    word = (word & _U64(0x0000FFFF0000FFFF)) << _U64(16) | (word >> _U64(16)) & _U64(0x0000FFFF0000FFFF)
    return word << _U64(32) | word >> _U64(32)
