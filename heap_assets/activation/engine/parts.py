"""What a run compares, divided by key into parts on disk: memory is that of one part, however many rows there are.

Few rows are one part, in memory. Keys that are one to a destination (but for upper case, as numbers, or as its
`key_recipe` writes them) are in one part, so that each part is judged as the whole would be.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import polars as pl
from polars.io.plugins import register_io_source

from heap_assets.activation.engine.batches import batches, count_of, is_of_one_file
from heap_assets.activation.engine.destination import Destination
from heap_assets.activation.engine.log import Log, Snapshot, Stored, changes_of, fold_onto, last_of
from heap_assets.activation.engine.spec import Mode
from heap_assets.activation.engine.spill import PLACE, Spill
from heap_assets.activation.engine.value_rules import Recipe
from heap_assets.values import number_key

PART_ROWS = 25_000
"""So many rows are one part; of more than `_MOST_PARTS` times as many, each part has more."""
_MOST_PARTS = 256
_PART_CELLS = 400_000
"""Of wide rows fewer are one part."""
_SAMPLED = 10_000
"""Keys that say where the ledger is cut to be put in order."""


@dataclass(frozen=True)
class Division:
    """How keys are divided."""

    parts: int = 1
    recipe: Recipe | None = None

    def of(self, keys: pl.Series) -> pl.Series | None:
        """Return the number of each key's part; None if there is one part."""
        if self.parts == 1:
            return None
        key = pl.col("key")
        rows = keys.alias("key").to_frame()
        if self.recipe is not None:
            rows = rows.with_columns(pl.coalesce(replace(self.recipe, hashed=False).applied(key), key))
        rows = rows.with_columns(key.str.to_lowercase())
        if rows.select(key.str.contains("^[-+]?[0-9]").any()).item():
            rows = rows.with_columns(pl.coalesce(number_key(key), key))
        return (rows["key"].hash() % self.parts).fill_null(0).cast(pl.UInt32)


def divisible(destination: Destination) -> bool:
    """Whether the rows of a destination may be judged part by part."""
    compares_persons = destination.mode is Mode.INSERT and destination.key_recipe is not None
    holds = type(destination).held_rows is not Destination.held_rows
    return destination.divisible and not (destination.replaces or holds or compares_persons)


@dataclass
class Evaluated:
    """The rows of a run, in batches that are given once."""

    count: int
    batches: Iterator[pl.DataFrame]
    empty: pl.DataFrame

    @classmethod
    def of(cls, rows: pl.LazyFrame, scratch: Path, *, at_once: bool) -> Evaluated:
        """Evaluate rows once; more than a part of them are put aside to be counted, unless wanted `at_once`."""
        if at_once:
            frame = rows.collect()
            return cls(len(frame), iter([frame]), frame.clear())
        empty = pl.DataFrame(schema=rows.collect_schema())
        if is_of_one_file(rows):
            count = count_of(rows)
            return cls(count, batches(rows, PART_ROWS, count), empty)
        read = batches(rows, PART_ROWS)
        first: list[pl.DataFrame] = []
        while sum(map(len, first)) <= PART_ROWS:
            if (batch := next(read, None)) is None:
                return cls(sum(map(len, first)), iter(first), empty)
            first.append(batch)
        spill = Spill(scratch / "counted", empty)
        for batch in chain(first, read):
            spill.add(batch, None)
        return cls(spill.rows, spill.frames(), empty)

    def spilled(self, file: Path, division: Division, key: str) -> Spill:
        """Put the rows aside by the part of their key, numbered by :data:`PLACE` if there are several."""
        if division.parts == 1:
            spill = Spill(None, self.empty)
            for batch in self.batches:
                spill.add(batch, None)
            return spill
        place = pl.int_range(pl.len(), dtype=pl.UInt32)
        spill = Spill(file, self.empty.with_columns(place.alias(PLACE)))
        for batch in self.batches:
            spill.add(batch.with_columns((place + spill.rows).alias(PLACE)), division.of(batch[key].cast(pl.String)))
        return spill


def division_of(destination: Destination, rows: int, width: int = 1) -> Division:
    """Return how so many rows, of so many columns, are divided."""
    return Division(number_of(rows, width), destination.key_recipe)


def number_of(rows: int, width: int = 1) -> int:
    """Return into how many parts so many rows, of so many columns, are divided."""
    in_part = max(1, min(PART_ROWS, _PART_CELLS // width))
    return min(-(-max(rows, 1) // in_part), _MOST_PARTS)


class LedgerParts:
    """The ledger of a sync by part: as it is stored, and as the log says since."""

    def __init__(self, stored: Stored, division: Division, scratch: Path) -> None:
        self.division, self.stored, self._scratch = division, stored, scratch
        self._folded, self._through = stored.folded, stored.through
        is_whole = division.parts == 1
        self._rows = Spill(None if is_whole else scratch / "ledger", stored.empty)
        self._changes: Spill | None = None
        self._sample: list[pl.Series] = []
        self._folds = 0
        for batch in [stored.frame()] if is_whole else stored.batches(PART_ROWS):
            self._rows.add(batch, division.of(batch["key"]))
            self._sample.append(batch["key"].gather_every(max(1, stored.count // _SAMPLED)))

    def fold(self, names: Sequence[str], parts: Iterable[pl.DataFrame]) -> None:
        """Fold the entries of segments that are not stored, in place of those that were folded before.

        `parts`: as :meth:`heap_assets.activation.Log.parts` gives them.
        """
        self._folds += 1
        file = None if self.division.parts == 1 else self._scratch / f"changes-{self._folds}"
        spill = Spill(file, self._rows.empty.select("key"))
        for entries in parts:
            changes = changes_of(entries, self.stored.through)
            spill.add(changes, self.division.of(changes["key"]))
            self._sample.append(changes["key"].gather_every(max(1, len(changes) * self.division.parts // _SAMPLED)))
        self._changes = spill
        self._folded, self._through = self.stored.folded | set(names), max(self.stored.through, names[-1])

    def read(self, part: int = 0) -> pl.DataFrame:
        """Return the ledger of a part, sorted by key."""
        rows = self._rows.read(part)
        return rows if self._changes is None else fold_onto(rows, last_of([self._changes.read(part)]))

    def divided(self, keys: Iterable[pl.Series], file: Path) -> Spill:
        """Put keys aside by part, as a column `key`."""
        spill = Spill(None if self.division.parts == 1 else file, pl.DataFrame(schema={"key": pl.String()}))
        for some in keys:
            spill.add(some.alias("key").to_frame(), self.division.of(some))
        return spill

    def cuts(self) -> pl.Series:
        """Return keys at which the ledger can be cut into about as many ranges as there are parts."""
        keys = pl.concat([self._rows.empty["key"], *self._sample]).drop_nulls().unique().sort()
        return keys.gather_every(max(1, len(keys) // self.division.parts)).slice(1)

    def state(self, rows: pl.DataFrame) -> Snapshot:
        """Return the state with these rows."""
        return Snapshot(rows, self._folded, self._through, self.stored.base)

    def save(self, log: Log, compact_after: int) -> None:
        """Store the ledger, its rows in the order of their keys, as :meth:`heap_assets.activation.Log.save` does."""
        if self.division.parts == 1:
            log.save(self.state(self.read(0)), compact_after)
            return
        cuts = self.cuts()
        ordered = Spill(self._scratch / "ordered", self.read(0))
        for part in range(self.division.parts):
            rows = self.read(part)
            ordered.add(rows, cuts.search_sorted(rows["key"], side="right"))

        def source(
            columns: list[str] | None, predicate: pl.Expr | None, most: int | None, size: int | None
        ) -> Iterator[pl.DataFrame]:
            del predicate, most, size  # whoever writes all of it asks for nothing
            for number in range(len(cuts) + 1):
                rows = ordered.read(number).sort("key")
                yield rows if columns is None else rows.select(columns)

        log.save(self.state(ordered.empty), compact_after, register_io_source(source, schema=ordered.empty.schema))
