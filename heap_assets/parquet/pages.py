"""One column of one row group as Parquet has it: at most a dictionary page, then one data page (Parquet specification).

Every column may have rows without a value; which have one stands before the values, as definition levels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from heap_assets.parquet import thrift

Buffer = bytes | bytearray | memoryview

KINDS: Final[dict[pl.DataType, str]] = {
    pl.String(): "text",
    pl.Int64(): "int64",
    pl.Float64(): "float64",
    pl.Boolean(): "bool",
    pl.Date(): "date",
    pl.Datetime("us", "UTC"): "micros_utc",
    pl.Datetime("us"): "micros",
}
"""What can be written, and a short name for it."""

PLAIN: Final = 0
DICTIONARY: Final = 8
_RLE: Final = 3
_DATA_PAGE: Final = 0
_DICTIONARY_PAGE: Final = 2


def can_hold(dtypes: Iterable[pl.DataType]) -> bool:
    """Say whether columns of these types can be written here."""
    return all(dtype in KINDS for dtype in dtypes)


@dataclass(frozen=True)
class Packing:
    """How pages are compressed: a codec of Arrow's, by its name, and a level; None is not at all."""

    codec: str | None
    level: int | None = None

    @property
    def number(self) -> int:
        """What the footer calls the codec."""
        return {None: 0, "zstd": 6, "lz4_raw": 7}[self.codec]


AS_IS: Final = Packing(None)


@dataclass(frozen=True)
class Chunk:
    """One column of one row group, as it is written.

    Attributes
    ----------
    pieces
        Page headers and pages, to be written one after the other.
    unpacked
        Bytes of them if nothing were compressed.
    places
        Where the two pages' contents are within the chunk, and what they unpack to: texts, start, size, unpacked size
        of the dictionary (0 each without one); start, size, unpacked size of the data; rows without a value.
    codec, encoding
        Of the data page, as the footer has them.
    """

    pieces: tuple[Buffer, ...] = field(repr=False)
    size: int
    unpacked: int
    places: tuple[int, int, int, int, int, int, int, int]
    codec: int
    encoding: int
    statistics: bytes

    @property
    def data_at(self) -> int:
        """Where the data page's header begins."""
        return self.places[1] + self.places[2]


class Packer:
    """Makes pages of spelled values; one for each thread."""

    def __init__(self, packing: Packing) -> None:
        self._codec = packing.number
        self._compress = None if packing.codec is None else pa.Codec(packing.codec, packing.level).compress

    def chunk(
        self, rows: int, filled: int, data: Sequence[Buffer], dictionary: Buffer | None = None, texts: int = 0,
        least: bytes = b"", most: bytes = b"",
    ) -> Chunk:  # fmt: skip
        """Make a chunk.

        Parameters
        ----------
        filled
            Rows that have a value.
        data
            The data page in pieces: levels, then values; with a dictionary, first how many bits a number has.
        dictionary, texts
            The texts that numbers stand for, spelled plainly, and how many they are.
        least, most
            The smallest and the largest value, spelled plainly without a length; empty if not known.
        """
        pieces: list[Buffer] = []
        unpacked = begin = inner = 0
        if dictionary is not None:
            packed, inner = self._packed([dictionary])
            told = thrift.nested(7, [thrift.i32(1, texts), thrift.i32(2, PLAIN)])
            header = _page_header(_DICTIONARY_PAGE, len(dictionary), inner, told)
            pieces += [header, *packed]
            begin, unpacked = len(header), len(header) + len(dictionary)
        encoding = PLAIN if dictionary is None else DICTIONARY
        size = sum(map(len, data))
        packed, packed_size = self._packed(data)
        told = thrift.nested(
            5, [thrift.i32(1, rows), thrift.i32(2, encoding), thrift.i32(3, _RLE), thrift.i32(4, _RLE)]
        )
        header = _page_header(_DATA_PAGE, size, packed_size, told)
        pieces += [header, *packed]
        unpacked += len(header) + size
        at = begin + inner + len(header)
        places = (texts, begin, inner, len(dictionary or b""), at, packed_size, size, rows - filled)
        bounds = [thrift.binary(5, most), thrift.binary(6, least)] if least or most else []
        statistics = thrift.struct([thrift.i64(3, rows - filled), *bounds])
        return Chunk(tuple(pieces), at + packed_size, unpacked, places, self._codec, encoding, statistics)

    def _packed(self, page: Sequence[Buffer]) -> tuple[Sequence[Buffer], int]:
        if self._compress is None:
            return page, sum(map(len, page))
        packed: bytes = self._compress(page[0] if len(page) == 1 else b"".join(page), asbytes=True)
        return [packed], len(packed)


def levels(rows: int, filled: int, bits: npt.NDArray[Any] | None) -> bytes:
    """Spell which rows have a value: one run if all or none, else one bit each, lowest first, as `bits` has them."""
    if bits is None or filled in (0, rows):
        spelled = thrift.varint(rows << 1) + bytes([filled == rows and rows > 0])
    else:
        spelled = thrift.varint(len(bits) << 1 | 1) + np.ascontiguousarray(bits).tobytes()
    return len(spelled).to_bytes(4, "little") + spelled


def _page_header(kind: int, unpacked: int, packed: int, told: thrift.Field) -> bytes:
    return thrift.struct([thrift.i32(1, kind), thrift.i32(2, unpacked), thrift.i32(3, packed), told])
