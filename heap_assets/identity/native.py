"""Processor instructions that Numba has no Python for: ask for memory early, read eight bytes at once, swap atomically.

Each is one or two instructions inside a compiled loop. None checks bounds: callers do.
"""

from __future__ import annotations

from typing import Any, cast

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_BYTE = ir.IntType(8)
_WORD = ir.IntType(64)


def element(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    """Return the address of an element of a contiguous array, counted flat."""
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [index])


def _prefetch(typing_context: Any, array: Any, index: Any) -> Any:
    """Ask for the memory of a flat element of an array, and do not wait for it."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = builder.bitcast(element(context, builder, signature.args[0], *arguments), _BYTE.as_pointer())
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [_BYTE.as_pointer(), number, number, number])
        ask = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(ask, [address, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(array, types.int64), emit


def _load8(typing_context: Any, array: Any, at: Any) -> Any:
    """Read eight bytes of a byte array from any place, as a little-endian number."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = element(context, builder, signature.args[0], *arguments)
        return builder.load(builder.bitcast(address, _WORD.as_pointer()), align=1)

    return types.uint64(array, types.int64), emit


def _store(typing_context: Any, array: Any, at: Any, word: Any) -> Any:
    """Write a number to any place of a byte array, its lowest byte first."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, at, word = arguments
        address = element(context, builder, signature.args[0], array, at)
        builder.store(word, builder.bitcast(address, word.type.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(array, types.int64, word), emit


def _copy_from(typing_context: Any, array: Any, at: Any, address: Any, size: Any) -> Any:
    """Copy `size` bytes from a memory address into a byte array."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, at, address, size = arguments
        target = element(context, builder, signature.args[0], array, at)
        cgutils.raw_memcpy(builder, target, builder.inttoptr(address, _BYTE.as_pointer()), size, 1)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.uint64, types.int64), emit


def _copy_within(typing_context: Any, array: Any, at: Any, source: Any, begin: Any, size: Any) -> Any:
    """Copy `size` bytes from one byte array into another."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, at, source, begin, size = arguments
        target = element(context, builder, signature.args[0], array, at)
        cgutils.raw_memcpy(builder, target, element(context, builder, signature.args[2], source, begin), size, 1)
        return context.get_dummy_value()

    return types.void(array, types.int64, source, types.int64, types.int64), emit


def _swapped(typing_context: Any, array: Any, index: Any, old: Any, new: Any) -> Any:
    """Put `new` in the place of `old`, if `old` is still there; says whether it was. Atomic."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, index, old, new = arguments
        address = element(context, builder, signature.args[0], array, index)
        return builder.extract_value(builder.cmpxchg(address, old, new, "acq_rel", "monotonic"), 1)

    return types.boolean(array, types.int64, array.dtype, array.dtype), emit


def _big_endian(typing_context: Any, word: Any) -> Any:
    """Turn the bytes of a number around, so that numbers compare as the text they were read from."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bswap(arguments[0])

    return types.uint64(types.uint64), emit


prefetch = cast("Any", intrinsic(_prefetch))
load8 = cast("Any", intrinsic(_load8))
store = cast("Any", intrinsic(_store))
copy_from = cast("Any", intrinsic(_copy_from))
copy_within = cast("Any", intrinsic(_copy_within))
swapped = cast("Any", intrinsic(_swapped))
big_endian = cast("Any", intrinsic(_big_endian))
