"""A day of an event table out of parts that hold their texts by number: put together without spelling one of them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from heap_assets.heap_connect.memory import give_back
from heap_assets.heap_connect.parquet_columns import NO_SLOTS, TextColumn, lowest_equal
from heap_assets.heap_connect.parquet_file import FOR_LATER, INDEX_MAGIC, TO_KEEP, edges_of, write_file
from heap_assets.heap_connect.parquet_kernel import find_texts, unpack
from heap_assets.heap_connect.parts import ORDER, order_of, ranks_of
from heap_assets.heap_connect.text_kernel import PADDING
from heap_assets.parquet import KINDS, can_hold

_Array = npt.NDArray[Any]

_TAIL = 8 + len(INDEX_MAGIC)
_MOST_CELLS = 100_000_000
"""Values of a day that is put together so: its narrow columns and its file are held in memory."""
_MANY_CELLS = 20_000_000
_GROUP_ROWS = 131_072
_NUMBERS = {"int64": np.int64, "float64": np.float64, "date": np.int32, "micros_utc": np.int64, "micros": np.int64}


@dataclass(frozen=True)
class CodedRun:
    """Rows of one day in one part, sorted; `names` is where its columns went."""

    path: Path
    first_row: int
    height: int
    names: Mapping[str, str]


def coded_day(
    runs: Sequence[CodedRun], schema: Mapping[str, pl.DataType]
) -> Callable[[Path, Mapping[str, str]], None] | None:
    """Return what writes the rows of all runs sorted into a file; None if they are not to be had so.

    Rows of one event_id must be left to those who look at their content, and so must columns that changed their type.
    """
    height = sum(run.height for run in runs)
    if not can_hold(schema.values()) or height * len(schema) > _MOST_CELLS:
        return None
    read = [_open(run) for run in runs]
    opened = [run for run in read if run is not None and run.fits(schema)]
    if len(opened) < len(runs):
        return None
    keys = pl.DataFrame({name: pl.concat([run.numbers(name, schema[name]) for run in opened]) for name in ORDER})
    if keys["event_id"].n_unique() < height:
        return None
    by_rank = None if len(opened) == 1 else order_of(keys)
    rows = _Rows(opened, by_rank, height)

    def write(path: Path, metadata: Mapping[str, str]) -> None:
        def column(name: str) -> TextColumn | pl.Series:
            return rows.texts(name) if schema[name] == pl.String() else rows.numbers(name, schema[name])

        write_file(path, schema, column, edges_of([height], _GROUP_ROWS), TO_KEEP, metadata)
        if height * len(schema) > _MANY_CELLS:
            give_back()

    return write


@dataclass(frozen=True)
class _Index:
    """What a part says of its chunks: rows of each row group; of each column its kind and its chunks' places."""

    rows: Sequence[int]
    columns: Mapping[str, tuple[str, Sequence[Sequence[int]]]]


@lru_cache(maxsize=64)
def _index(path: str, _version: tuple[int, int]) -> _Index | None:
    """Read a part's index; None if somebody else wrote it."""
    with open(path, "rb") as file:  # noqa: PTH123  a name is what the cache can keep
        size = file.seek(0, os.SEEK_END)
        file.seek(-8, os.SEEK_END)
        before = size - 8 - int.from_bytes(file.read(4), "little") - _TAIL
        if before < 0:
            return None
        file.seek(before)
        tail = file.read(_TAIL)
        if not tail.endswith(INDEX_MAGIC):
            return None
        length = int.from_bytes(tail[:8], "little")
        file.seek(before - length)
        told = json.loads(file.read(length))
    return _Index(told["rows"], told["columns"])


def _open(run: CodedRun) -> _Opened | None:
    stat = run.path.stat()
    index = _index(str(run.path), (stat.st_mtime_ns, stat.st_size))
    if index is None:
        return None
    edges = list(accumulate(index.rows, initial=0))
    if run.first_row not in edges or run.first_row + run.height not in edges:
        return None
    groups = range(edges.index(run.first_row), edges.index(run.first_row + run.height))
    return _Opened(run, index, groups)


class _Opened:
    """A run whose chunks are known."""

    def __init__(self, run: CodedRun, index: _Index, groups: range) -> None:
        self.height = run.height
        self._index = index
        self._groups = groups
        self._origin = {placed: name for name, placed in run.names.items() if name in index.columns}
        self._path = run.path

    def fits(self, schema: Mapping[str, pl.DataType]) -> bool:
        return all(
            name not in self._origin or self._index.columns[self._origin[name]][0] == KINDS[dtype]
            for name, dtype in schema.items()
        )

    def numbers(self, name: str, dtype: pl.DataType) -> pl.Series:
        if name not in self._origin:
            return pl.Series(name, [None], dtype=dtype).new_from_index(0, self.height)
        kind, places = self._index.columns[self._origin[name]]
        return pl.concat([self._plain(name, kind, dtype, self._index.rows[g], places[g]) for g in self._groups])

    def chunks(self, name: str) -> list[tuple[int, Sequence[int]]]:
        """Return rows and place of each chunk of a text column; none if the part does not have it."""
        if name not in self._origin:
            return []
        places = self._index.columns[self._origin[name]][1]
        return [(self._index.rows[group], places[group]) for group in self._groups]

    def _plain(self, name: str, kind: str, dtype: pl.DataType, rows: int, place: Sequence[int]) -> pl.Series:
        data, at, bits = self.data(rows, place)
        filled = rows - place[8]
        if kind == "bool":
            values = np.unpackbits(data[at:], count=filled, bitorder="little").astype(np.bool_)
        else:
            values = np.frombuffer(data, dtype=_NUMBERS[kind], count=filled, offset=at)
        column = pl.Series(name, values)
        if bits is not None:
            has = pl.Series(np.unpackbits(bits, count=rows, bitorder="little").astype(np.bool_))
            there = has.cum_sum().cast(pl.Int64) - 1
            column = column.gather(there.set(~has, None))
        return column.cast(dtype) if filled else pl.Series(name, [None], dtype=dtype).new_from_index(0, rows)

    def data(self, rows: int, place: Sequence[int]) -> tuple[_Array, int, _Array | None]:
        """Return a data page, where its values begin, and the bitmap of rows that have one (None if all or none)."""
        offset, _, _, _, _, at, size, unpacked, nulls = place
        page = self.bytes(offset + at, size, unpacked)
        levels = int(page[:4].view("<u4")[0])
        some = 0 < nulls < rows
        head = 4 + levels
        return page, head, page[4 + _varint_length(page, 4) : head + PADDING] if some else None

    def bytes(self, offset: int, size: int, unpacked: int) -> _Array:
        """Return what lies packed in the file, with room behind it for those who read eight bytes at a time."""
        page = np.empty(unpacked + PADDING, dtype=np.uint8)
        if not unpacked:
            return page
        file = os.open(self._path, os.O_RDONLY)
        try:
            packed = os.pread(file, size, offset)
        finally:
            os.close(file)
        page[:unpacked] = np.frombuffer(pa.Codec(FOR_LATER.codec).decompress(packed, unpacked), dtype=np.uint8)
        return page


class _Rows:
    """Rows of several runs as columns of one, in their order."""

    def __init__(self, runs: Sequence[_Opened], by_rank: pl.Series | None, height: int) -> None:
        self.runs = runs
        self.by_rank = by_rank
        self.height = height
        self.ranks = ranks_of(by_rank, height)

    def numbers(self, name: str, dtype: pl.DataType) -> pl.Series:
        whole = pl.concat([run.numbers(name, dtype) for run in self.runs], rechunk=True)
        return whole if self.by_rank is None else whole.gather(self.by_rank)

    def texts(self, name: str) -> TextColumn:
        chunks = [(run, rows, place) for run in self.runs for rows, place in run.chunks(name)]
        if any(place[1] == 0 and place[8] < rows for _, rows, place in chunks):
            return self._spelled_out(name)
        dictionaries = [run.bytes(place[0] + place[2], place[3], place[4]) for run, _, place in chunks]
        counts = [place[1] for _, _, place in chunks]
        starts, lengths = np.zeros(sum(counts) + 1, dtype=np.int64), np.zeros(sum(counts) + 1, dtype=np.uint32)
        begins = list(accumulate(counts, initial=1))
        for dictionary, begin, count in zip(dictionaries, begins, counts, strict=False):
            find_texts(dictionary.ctypes.data, count, starts, lengths, begin)
        if len(chunks) == 1:
            names = np.arange(len(starts), dtype=np.uint32)
        else:
            names = np.append(np.uint32(0), lowest_equal(starts, lengths, NO_SLOTS, 1)[1])
        placed = np.zeros(self.height, dtype=np.uint32)
        begin_of = {id(place): begin for (_, _, place), begin in zip(chunks, begins, strict=False)}
        at = 0
        for run in self.runs:
            for rows, place in run.chunks(name):
                if place[8] < rows:
                    self._unpack(run, rows, place, begin_of[id(place)], names, self.ranks[at : at + rows], placed)
                at += rows
            if not run.chunks(name):
                at += run.height
        return TextColumn(placed, starts, lengths, dictionaries)

    def _spelled_out(self, name: str) -> TextColumn:
        """Return a column that is spelled out in a part; so it stays."""
        pages: list[_Array] = []
        starts, lengths = [np.zeros(1, dtype=np.int64)], [np.zeros(1, dtype=np.uint32)]
        placed = np.zeros(self.height, dtype=np.uint32)
        at, texts = 0, 1
        for run in self.runs:
            for rows, place in run.chunks(name):
                ranks = self.ranks[at : at + rows]
                at += rows
                if place[8] == rows:
                    continue
                if place[1]:
                    page = run.bytes(place[0] + place[2], place[3], place[4])
                    count, begin = place[1], 0
                    names = np.arange(texts, texts + count, dtype=np.uint32)
                    self._unpack(run, rows, place, 0, names, ranks, placed)
                else:
                    page, begin, bits = run.data(rows, place)
                    count = rows - place[8]
                    has = None if bits is None else np.unpackbits(bits, count=rows, bitorder="little").astype(np.bool_)
                    placed[ranks if has is None else ranks[has]] = np.arange(texts, texts + count)
                starts.append(np.empty(count, dtype=np.int64))
                lengths.append(np.empty(count, dtype=np.uint32))
                find_texts(page.ctypes.data + begin, count, starts[-1], lengths[-1], 0)
                pages.append(page)
                texts += count
            if not run.chunks(name):
                at += run.height
        return TextColumn(placed, np.concatenate(starts), np.concatenate(lengths), pages, repeats=False)

    @staticmethod
    def _unpack(
        run: _Opened, rows: int, place: Sequence[int], begin: int, names: _Array, ranks: _Array, placed: _Array
    ) -> None:
        page, head, bits = run.data(rows, place)
        width = int(page[head])
        packed = page.ctypes.data + head + 1 + _varint_length(page, head + 1)
        unpack(packed, width, 0 if bits is None else bits.ctypes.data, begin, names, ranks, placed)


def _varint_length(page: _Array, at: int) -> int:
    length = 1
    while page[at + length - 1] & 0x80:
        length += 1
    return length
