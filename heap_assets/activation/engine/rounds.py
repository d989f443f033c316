"""Rows of persons who have more of them than a window of time allows: they are sent in rounds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from heap_assets.activation.engine.spill import PlannedRows

_CELLS = 1 << 16
"""Persons are counted together that share a cell: only those of full cells are counted one by one."""
_ROUND, _BEFORE = "_round", "_before"


def in_rounds(rows: PlannedRows, most: int) -> tuple[list[PlannedRows], list[str]]:
    """Divide rows into rounds none of which has more than `most` of one person; returns those who have more, too."""
    if len(rows) <= most:
        return [rows], []
    counts = _above(rows, most)
    if not len(counts):
        return [rows], []
    last = (int(counts["len"].max()) - 1) // most  # type: ignore[arg-type]
    rounds = []
    for number in range(last + 1):
        in_round = pl.col(_ROUND) == number
        count = sum(int(frame.select(in_round.sum()).item()) for frame in _numbered(rows, counts, most))

        def frames(predicate: pl.Expr = in_round) -> Iterator[pl.DataFrame]:
            return (frame.filter(predicate).drop(_ROUND) for frame in _numbered(rows, counts, most))

        rounds.append(PlannedRows(count, frames))
    return rounds, counts["person"].drop_nulls().to_list()


def _above(rows: PlannedRows, most: int) -> pl.DataFrame:
    """Return `person`, `len` of those who have more than `most` rows."""
    cells = np.zeros(_CELLS, dtype=np.int64)
    for frame in rows.frames():
        cells += np.bincount(_cell(frame), minlength=_CELLS)
    if cells.max() <= most:
        return pl.DataFrame(schema={"person": pl.String, "len": pl.UInt32})
    full = (frame.filter(pl.Series(cells[_cell(frame)] > most)) for frame in rows.frames())
    counts = [frame.group_by(person=_person(frame)).len() for frame in full]
    return pl.concat(counts).group_by("person").agg(pl.col("len").sum()).filter(pl.col("len") > most)


def _numbered(rows: PlannedRows, heavy: pl.DataFrame, most: int) -> Iterator[pl.DataFrame]:
    """Yield the rows with the round of each."""
    sent = heavy.select("person", pl.lit(0, pl.UInt32).alias(_BEFORE))
    for frame in rows.frames():
        person = _person(frame)
        before = sent.rename({"person": person})
        numbered = frame.join(before, on=person, how="left", nulls_equal=True, maintain_order="left")
        place = pl.int_range(pl.len()).over(person) + pl.col(_BEFORE).fill_null(0)
        yield numbered.with_columns((place // most).alias(_ROUND)).drop(_BEFORE)
        counts = frame.group_by(person=person).len()
        sent = sent.join(counts, on="person", how="left", nulls_equal=True).select(
            "person", pl.col(_BEFORE) + pl.col("len").fill_null(0)
        )


def _person(frame: pl.DataFrame) -> str:
    return "person" if "person" in frame.columns else "key"


def _cell(frame: pl.DataFrame) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return (frame[_person(frame)].hash() % _CELLS).cast(pl.Int64).to_numpy()
