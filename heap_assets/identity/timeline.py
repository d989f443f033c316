"""A day's links and graph from the tables that stand at that day; incremental, and equal to computing all at once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final

import polars as pl

from heap_assets.identity.engine import EngineName, engine_named
from heap_assets.identity.engine.base import ExtractedLinks, LinksOfDay, Resolution, StandingSnapshot
from heap_assets.identity.extract import extract
from heap_assets.identity.rules import LinksError, Rules, SourceTable
from heap_assets.identity.shapes import ENDS, LINKS, REFUSED, aggregated
from heap_assets.storage import Store, state_keys

_EXTRACTED: Final = f"{state_keys.IDENTITY}/extracted"
_STANDING: Final = f"{state_keys.IDENTITY}/standing"
_KEY: Final = [*ENDS, "source"]


@dataclass(frozen=True)
class DayInput:
    """One partition of one table.

    Attributes
    ----------
    version
        Changes when the rows change (the lake's version of the partition).
    rows
        Opens the rows; called only if they have not been read in this version.
    own_identify
        For tables with authoritative links: the pairs we have sent, see :func:`extract`; `version` must cover them.
    """

    table: SourceTable
    day: date
    version: str
    rows: Callable[[], pl.LazyFrame]
    own_identify: Callable[[], pl.LazyFrame] | None = None


@dataclass(frozen=True)
class Advanced:
    """A day's tables.

    Attributes
    ----------
    links
        identity/links of the day: event tables' rows of the day, and snapshot tables as they stand.
    all_links
        All links as of the day, one row per link and source: what the graph was resolved from.
    refused
        source, day of the input, and what :class:`Extraction` counts, for the inputs behind `links`.
    notes
        What was done: mode (`full`, `incremental`, `unchanged`), why, and counts of inputs read, folded and taken out.
    """

    links: pl.LazyFrame
    all_links: pl.LazyFrame
    refused: pl.LazyFrame
    resolution: Resolution
    notes: Mapping[str, Any] = field(default_factory=dict)


class Timeline:
    """Graphs day by day.

    Parameters
    ----------
    store
        Where links that have been read and the engine's state live, under `_identity/`. It is a cache: deleting it
        costs time and nothing else.
    """

    def __init__(self, store: Store, rules: Rules, engine: EngineName = "native") -> None:
        self.store = store
        self.rules = rules
        self.engine = engine

    def advance(self, day: date, inputs: Sequence[DayInput]) -> Advanced:
        """Compute the tables of a day.

        Parameters
        ----------
        inputs
            All stored partitions up to `day` of event tables. Of a snapshot table, the newest of those given stands;
            a table without time column takes first seen from the earlier ones, so give all that are kept. A day that
            is missing is not there: an older snapshot is carried forward.

        Raises
        ------
        LinksError
            If an input is of a later day, or one day of a table is given twice.
        """
        by_key = _checked(day, inputs)
        files = {key: self._extracted(given) for key, given in sorted(by_key.items())}
        events = {
            key: ExtractedLinks(*key, self.store.scan(f"{file}-links.parquet"), file)
            for key, file in files.items()
            if by_key[key].table.kind == "event"
        }
        standing = self._standing(by_key, files)
        resolution, notes = engine_named(self.engine).advance(self.store, LinksOfDay(day, events, standing), self.rules)
        self._tidy(files, standing)
        of_day = [part.links for part in events.values() if part.day == day] + [
            part.links for part in standing.values()
        ]
        return Advanced(
            links=_together(of_day).sort(_KEY),
            all_links=_together([part.links for part in events.values()] + [part.links for part in standing.values()]),
            refused=self._refused(day, files, standing),
            resolution=resolution,
            notes={**notes, "inputs": len(by_key)},
        )

    def links(self, day: date, inputs: Sequence[DayInput]) -> pl.LazyFrame:
        """Return all links as of a day, as :meth:`advance` does, for those who only look: nothing is written.

        Inputs that no resolution has read yet are read here, and not kept.
        """
        by_key = _checked(day, inputs)
        links = {key: self._read_links(given) for key, given in sorted(by_key.items())}
        parts = [links[key] for key, given in by_key.items() if given.table.kind == "event"]
        for name in sorted({key[0] for key, given in by_key.items() if given.table.kind == "snapshot"}):
            days = sorted(at for table, at in by_key if table == name)
            timeless = by_key[name, days[-1]].table.time_column is None
            parts.append(_since_first_stood([links[name, at] for at in days]) if timeless else links[name, days[-1]])
        return _together(parts)

    def _read_links(self, given: DayInput) -> pl.LazyFrame:
        file = f"{self._file(given)}-links.parquet"
        if self.store.is_whole(file):
            return self.store.scan(file)
        own = None if given.own_identify is None else given.own_identify()
        return extract(given.rows(), given.table, self.rules, given.day, own).links

    def _file(self, given: DayInput) -> str:
        """Return the common name of an input's files, by its version, its mapping and the rules."""
        version = "\x1f".join((given.version, given.table.digest, self.rules.value_digest))
        name = hashlib.sha256(version.encode()).hexdigest()[:32]
        return f"{_EXTRACTED}/{given.table.name}/{given.day.isoformat()}-{name}"

    def _extracted(self, given: DayInput) -> str:
        """Read an input at most once per version of it, its mapping and the rules; returns the files' common name."""
        file = self._file(given)
        links, refused = f"{file}-links.parquet", f"{file}-refused.parquet"
        if not (self.store.is_whole(links) and self.store.is_whole(refused)):
            own = None if given.own_identify is None else given.own_identify()
            extraction = extract(given.rows(), given.table, self.rules, given.day, own)
            self.store.sink(refused, extraction.refused)
            self.store.sink(links, extraction.links)
        return file

    def _standing(
        self, by_key: Mapping[tuple[str, date], DayInput], files: Mapping[tuple[str, date], str]
    ) -> dict[str, StandingSnapshot]:
        """Find how snapshot tables stand: the newest partition of each, links as old as they ever stood."""
        standing = {}
        for name in sorted({key[0] for key, given in by_key.items() if given.table.kind == "snapshot"}):
            days = sorted(day for table, day in by_key if table == name)
            newest = files[name, days[-1]]
            timeless = by_key[name, days[-1]].table.time_column is None
            if not timeless or len(days) == 1:
                links = f"{newest}-links.parquet"
            else:
                every = [f"{files[name, day]}-links.parquet" for day in days]
                digest = hashlib.sha256("\x1f".join(every).encode()).hexdigest()[:32]
                links = f"{_STANDING}/{name}/{digest}.parquet"
                if not self.store.is_whole(links):
                    self.store.sink(links, _since_first_stood([self.store.scan(file) for file in every]))
            standing[name] = StandingSnapshot(name, days[-1], self.store.scan(links), links, timeless)
        return standing

    def _refused(
        self, day: date, files: Mapping[tuple[str, date], str], standing: Mapping[str, StandingSnapshot]
    ) -> pl.LazyFrame:
        shown = [
            self.store.scan(f"{file}-refused.parquet").select(
                pl.lit(name).alias("source"), pl.lit(input_day).alias("day"), pl.all()
            )
            for (name, input_day), file in files.items()
            if input_day == (standing[name].day if name in standing else day)
        ]
        return pl.concat(shown) if shown else pl.LazyFrame(schema={"source": pl.String, "day": pl.Date, **REFUSED})

    def _tidy(self, files: Mapping[tuple[str, date], str], standing: Mapping[str, StandingSnapshot]) -> None:
        """Remove what other versions of the same inputs have left."""
        of_input = {f"{_EXTRACTED}/{name}/{day.isoformat()}-": file for (name, day), file in files.items()}
        for stored in self.store.list(_EXTRACTED):
            name = stored.key.rpartition("/")[2]
            kept = of_input.get(f"{stored.key.removesuffix(name)}{name[:11]}")
            if kept is not None and not stored.key.startswith(kept):
                self.store.delete(stored.key)
        kept_files = {part.file for part in standing.values()}
        for stored in self.store.list(_STANDING):
            if stored.key not in kept_files:
                self.store.delete(stored.key)


def _checked(day: date, inputs: Sequence[DayInput]) -> dict[tuple[str, date], DayInput]:
    by_key: dict[tuple[str, date], DayInput] = {}
    for given in inputs:
        if given.day > day:
            raise LinksError(f"{given.table.name} of {given.day} was given for {day}: later days are not known yet")
        if by_key.setdefault((given.table.name, given.day), given) is not given:
            raise LinksError(f"{given.table.name} of {given.day} was given twice")
    return by_key


def _since_first_stood(days: Sequence[pl.LazyFrame]) -> pl.LazyFrame:
    """Without record times, a link is as old as the first partition in which it ever stood (rule 2)."""
    ever = pl.concat([links.select(*_KEY, "first_seen") for links in days])
    earliest = ever.group_by(_KEY).agg(pl.col("first_seen").min().alias("stood"))
    return (
        days[-1]
        .join(earliest, on=_KEY, how="left", nulls_equal=True)
        .with_columns(first_seen="stood")
        .select(list(LINKS))
    )


def _together(parts: Sequence[pl.LazyFrame]) -> pl.LazyFrame:
    if not parts:
        return pl.LazyFrame(schema=LINKS)
    return aggregated(pl.concat(parts)).select(list(LINKS))


def resolve(links: pl.LazyFrame, rules: Rules, engine: EngineName = "native") -> Resolution:
    """Resolve links into profiles.

    The result depends on the set of links only: not on their order, direction, repetition or partitioning, and not on
    the engine.

    Parameters
    ----------
    links
        Shape of identity/links; `type_a` need not be the stronger end. `source`, `first_seen`, `last_seen`, `count`
        and `authoritative` may be absent. A link of an identifier to itself is a sighting.

    Raises
    ------
    LinksError
        If an end is null or empty, or of a type that the rules do not know.
    MemoryLimitError
        If there are more identifiers or links than fit into the memory that this process may use.
    """
    return engine_named(engine).resolve(links, rules)
