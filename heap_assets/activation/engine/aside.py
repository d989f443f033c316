"""Rows of a run that are not sent, with reasons: counted, and put aside on disk if they are many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from heap_assets.activation.engine.batches import source_of
from heap_assets.activation.engine.spill import Spill
from heap_assets.activation.engine.tables import SET_ASIDE_SCHEMA


class SetAside:
    """Rows as the table `set_aside` has them, in the order in which they were added; in memory without a file."""

    def __init__(self, file: Path | None = None) -> None:
        self._rows = Spill(file, pl.DataFrame(schema=SET_ASIDE_SCHEMA))
        self._counts: dict[str, Counter[str]] = {"invalid": Counter(), "held": Counter()}

    def __len__(self) -> int:
        return self._rows.rows

    def add(self, rows: pl.DataFrame) -> None:
        """Add rows."""
        for kind, reason, count in rows.group_by("kind", "reason").len().iter_rows():
            self._counts[kind][reason] += count
        self._rows.add(rows, None)

    def count(self, kind: str) -> int:
        """Return how many rows are `invalid`, or `held`."""
        return self._counts[kind].total()

    def reasons(self, kind: str) -> pl.DataFrame:
        """Return `reason`, `len` of the rows of a kind."""
        counts = self._counts[kind]
        return pl.DataFrame(
            {"reason": [*counts], "len": [*counts.values()]}, schema={"reason": pl.String, "len": pl.UInt32}
        )

    def frame(self) -> pl.DataFrame:
        """Return all rows."""
        return self._rows.read()

    def lazy(self, run_id: str) -> pl.LazyFrame:
        """Return all rows, read a few at a time, as those of a run."""

        def frames(columns: Sequence[str], predicate: pl.Expr | None) -> Iterator[pl.DataFrame]:
            for frame in self._rows.frames():
                rows = frame.with_columns(run_id=pl.lit(run_id))
                yield (rows if predicate is None else rows.filter(predicate)).select(columns)

        return source_of(frames, SET_ASIDE_SCHEMA)
