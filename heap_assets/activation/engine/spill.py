"""Rows put aside on disk by bucket, so that whoever goes through them holds one bucket at a time."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

PLACE = "_place"
"""Column that numbers the rows of a run in their order, if they are divided."""
_BUCKET = "_bucket"
_WRITTEN_BYTES = 6 << 20
"""Rows of about so many bytes are cut by bucket at a time: slices of few rows take long."""


class Spill:
    """Rows by bucket, in the order in which they were added: slices of one file, or in memory without a file.

    `empty`: a frame without rows. Every bucket has its columns, and those of all rows that were added.
    """

    def __init__(self, file: Path | None, empty: pl.DataFrame) -> None:
        self._file, self._empty = file, empty.clear()
        self._frames: list[pl.DataFrame] = []
        self._slices: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        self._unwritten = 0
        self.rows = 0

    def add(self, frame: pl.DataFrame, buckets: pl.Series | None) -> None:
        """Add rows; `buckets`: the number of each one's bucket, None if all are in the first."""
        self.rows += len(frame)
        if frame.schema != self._empty.schema:
            self._empty = pl.concat([self._empty, frame.clear()], how="diagonal_relaxed")
        self._frames.append(frame if buckets is None else frame.with_columns(buckets.alias(_BUCKET)))
        self._unwritten += 0 if self._file is None else int(frame.estimated_size())
        if self._file is not None and self._unwritten >= _WRITTEN_BYTES:
            self._write(self._file)

    def read(self, bucket: int = 0) -> pl.DataFrame:
        """Return the rows of a bucket."""
        frames = list(self.frames(bucket))
        if len(frames) == 1 and frames[0].schema == self._empty.schema:
            return frames[0]
        return pl.concat([self._empty, *frames], how="diagonal_relaxed", rechunk=True)

    def frames(self, bucket: int = 0) -> Iterator[pl.DataFrame]:
        """Yield the rows of a bucket, as many at a time as were written at once."""
        return iter(self._frames) if self._file is None else self._read(self._file, bucket)

    def _write(self, file: Path) -> None:
        rows = pl.concat(self._frames, how="diagonal_relaxed")
        self._frames, self._unwritten = [], 0
        if _BUCKET in rows.columns:
            by_bucket = rows.partition_by(_BUCKET, as_dict=True, include_key=False, maintain_order=True)
        else:
            by_bucket = {(0,): rows}
        del rows
        with file.open("ab") as slices:
            for (bucket,), part in by_bucket.items():
                encoded = io.BytesIO()
                part.write_ipc(encoded, compression="lz4", compat_level=pl.CompatLevel.oldest())
                self._slices[int(bucket)].append((slices.tell(), slices.write(encoded.getbuffer())))

    def _read(self, file: Path, bucket: int) -> Iterator[pl.DataFrame]:
        if self._frames:
            self._write(file)
        if not self._slices[bucket]:
            return
        with file.open("rb") as slices:
            for start, length in self._slices[bucket]:
                slices.seek(start)
                yield pl.read_ipc(io.BytesIO(slices.read(length)))

    @property
    def empty(self) -> pl.DataFrame:
        """A frame without rows that has all columns."""
        return self._empty


@dataclass(frozen=True)
class PlannedRows:
    """Rows to send in the order in which they are sent, some at a time, as often as they are asked for."""

    count: int
    frames: Callable[[], Iterable[pl.DataFrame]]

    @classmethod
    def of(cls, frame: pl.DataFrame) -> PlannedRows:
        """Return the rows of one frame."""
        return cls(len(frame), lambda: [frame])

    def __len__(self) -> int:
        return self.count

    def filter(self, predicate: pl.Expr) -> PlannedRows:
        """Return the rows for which an expression is true."""
        count = sum(int(frame.select(predicate.sum()).item()) for frame in self.frames())
        return PlannedRows(count, lambda: (frame.filter(predicate) for frame in self.frames()))

    def map(self, change: Callable[[pl.DataFrame], pl.DataFrame]) -> PlannedRows:
        """Return the rows as a function changes them, frame by frame; it keeps their number and order."""
        return PlannedRows(self.count, lambda: map(change, self.frames()))

    def slices(self, rows: int) -> Iterator[pl.DataFrame]:
        """Cut the rows into frames of so many, the last one of fewer."""
        remainder: pl.DataFrame | None = None
        for frame in self.frames():
            together = frame if remainder is None or not len(remainder) else pl.concat([remainder, frame], rechunk=True)
            complete = len(together) // rows * rows
            if complete:
                yield from together.head(complete).iter_slices(rows)
            remainder = together.slice(complete)
        if remainder is not None and len(remainder):
            yield remainder
