"""A day's links and graph from the tables of that day; incremental, with the same result as a full computation."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final

import polars as pl

from heap_assets.identity.decision_links import DECISIONS_SOURCE, decision_links
from heap_assets.identity.engine import EngineChoice, engine_named
from heap_assets.identity.engine.base import CurrentSnapshot, ExtractedLinks, LinksOfDay, Resolution
from heap_assets.identity.extract import Extraction, extract
from heap_assets.identity.rules import LinksError, Rules, SourceTable
from heap_assets.identity.schemas import ENDS, LINKS, REFUSED, aggregated, as_links
from heap_assets.storage import Store, state_keys

_EXTRACTED: Final = f"{state_keys.IDENTITY}/extracted"
_SNAPSHOT_LINKS: Final = f"{state_keys.IDENTITY}/standing"
_EXCLUDED: Final = "-excluded.parquet"
"""Only of inputs that have a value of nobody."""
_KEY: Final = [*ENDS, "source"]
_ALWAYS: Final = date(1970, 1, 1)
"""Decisions hold for all days alike."""


@dataclass(frozen=True)
class DayInput:
    """One partition of one table.

    Attributes
    ----------
    version
        Changes when the rows change (the lake's version of the partition).
    rows
        Opens the rows; called only if this version is not in the cache.
    own_identify
        For tables with authoritative links: the pairs that we have sent, see :func:`extract`; `version` covers them.
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
        identity/links of the day: event tables' rows of the day, and the current snapshots.
    all_links
        All links as of the day, one row per link and source: the input of the graph.
    refused
        source, day of the input, and the counts of :class:`Extraction`, for the inputs of `links`.
    idle
        Ids of the `nobody` decisions of the day none of whose values any input has.
    notes
        How it was computed: mode (`full`, `incremental`, `unchanged`), why, and counts of inputs.
    """

    links: pl.LazyFrame
    all_links: pl.LazyFrame
    refused: pl.LazyFrame
    resolution: Resolution
    idle: tuple[str, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)


class Timeline:
    """Graphs day by day.

    `store`: of extracted links and the engine's state, under `_identity/`: a cache, deleting it costs time only.
    """

    def __init__(self, store: Store, rules: Rules, engine: EngineChoice = "native") -> None:
        self.store = store
        self.rules = rules
        self.engine = engine

    def advance(self, day: date, inputs: Sequence[DayInput]) -> Advanced:
        """Compute the tables of a day.

        `inputs`: all stored partitions up to `day` of event tables. Of a snapshot table the newest partition is used; a
        table without time column takes first seen from the earlier ones, so pass all that are kept. Where the newest
        day is missing, an older snapshot is carried forward.

        Raises LinksError if an input is of a later day, or one day of a table is passed twice.
        """
        if (rules := self.rules.on(day)) is not self.rules:
            return Timeline(self.store, rules, self.engine).advance(day, inputs)
        by_key = _checked(day, inputs)
        files = {key: self._extracted(part) for key, part in sorted(by_key.items())}
        events = {
            key: ExtractedLinks(*key, self.store.scan(f"{file}-links.parquet"), file)
            for key, file in files.items()
            if by_key[key].table.kind == "event"
        }
        snapshots = self._snapshots(by_key, files)
        resolution, notes = engine_named(self.engine).advance(
            self.store, LinksOfDay(day, events, snapshots), self.rules
        )
        self._tidy(files, snapshots)
        current = [part.links for part in snapshots.values()]
        return Advanced(
            links=_combined([part.links for part in events.values() if part.day == day] + current).sort(_KEY),
            all_links=_combined([part.links for part in events.values()] + current),
            refused=self._refused(day, files, snapshots),
            resolution=resolution,
            idle=self._idle(by_key, files, snapshots),
            notes={**notes, "inputs": len(by_key)},
        )

    def links(self, day: date, inputs: Sequence[DayInput], *, aggregate: bool = True) -> pl.LazyFrame:
        """Return all links as of a day, as :meth:`advance` does, without writing anything.

        `aggregate`: one row per link and source; else a link may be on several rows, which are read without grouping.

        Inputs that are not in the cache are extracted, and not kept.
        """
        if (rules := self.rules.on(day)) is not self.rules:
            return Timeline(self.store, rules, self.engine).links(day, inputs, aggregate=aggregate)
        by_key = _checked(day, inputs)
        links = {key: self._links_of(part) for key, part in sorted(by_key.items())}
        parts = [links[key] for key, part in by_key.items() if part.table.kind == "event"]
        for name in sorted({key[0] for key, part in by_key.items() if part.table.kind == "snapshot"}):
            days = sorted(at for table, at in by_key if table == name)
            timeless = by_key[name, days[-1]].table.time_column is None
            parts.append(_since_first_snapshot([links[name, at] for at in days]) if timeless else links[name, days[-1]])
        parts.append(decision_links(self.rules).lazy())
        return _combined(parts) if aggregate else pl.concat([part.select(list(LINKS)) for part in parts])

    def _links_of(self, part: DayInput) -> pl.LazyFrame:
        file = f"{self._file(part)}-links.parquet"
        return self.store.scan(file) if self.store.is_whole(file) else self._extraction(part).links

    def _extraction(self, part: DayInput) -> Extraction:
        own = None if part.own_identify is None else part.own_identify()
        return extract(part.rows(), part.table, self.rules, part.day, own)

    def _file(self, part: DayInput) -> str:
        """Return the common name of an input's files, by its version, its mapping and the rules."""
        version = "\x1f".join((part.version, part.table.digest, self.rules.value_digest))
        name = hashlib.sha256(version.encode()).hexdigest()[:32]
        return f"{_EXTRACTED}/{part.table.name}/{part.day.isoformat()}-{name}"

    def _extracted(self, part: DayInput) -> str:
        """Extract an input once per version of it, its mapping and the rules; returns the files' common name."""
        file = self._file(part)
        links, refused = f"{file}-links.parquet", f"{file}-refused.parquet"
        if not (self.store.is_whole(links) and self.store.is_whole(refused)):
            extraction = self._extraction(part)
            self.store.sink(refused, extraction.refused)
            if self.rules.excluded and "nobody" in self.store.scan(refused).collect()["reason"]:
                self.store.sink(f"{file}{_EXCLUDED}", extraction.excluded)
            self.store.sink(links, extraction.links)
        return file

    def _idle(
        self,
        by_key: Mapping[tuple[str, date], DayInput],
        files: Mapping[tuple[str, date], str],
        snapshots: Mapping[str, CurrentSnapshot],
    ) -> tuple[str, ...]:
        """Return the ids of `nobody` decisions that no input is about; reads until each has one, the newest first."""
        idle = {one.id: {*one.identifiers} for one in self.rules.decisions if one.kind == "nobody"}
        if not idle:
            return ()
        stored = {part.key for part in self.store.list(_EXTRACTED) if part.key.endswith(_EXCLUDED)}
        current = (key for key, part in by_key.items() if part.table.kind == "event" or key[1] == snapshots[key[0]].day)
        for key in sorted(current, key=lambda one: (one[1], one[0]), reverse=True):
            if not idle:
                break
            if (file := f"{files[key]}{_EXCLUDED}") in stored:
                met = {*self.store.scan(file).collect().iter_rows()}
                idle = {name: pairs for name, pairs in idle.items() if not pairs & met}
        return tuple(sorted(idle))

    def _snapshots(
        self, by_key: Mapping[tuple[str, date], DayInput], files: Mapping[tuple[str, date], str]
    ) -> dict[str, CurrentSnapshot]:
        """Return the newest partition of each snapshot table; links are as old as the first that had them."""
        snapshots = {}
        for name in sorted({key[0] for key, part in by_key.items() if part.table.kind == "snapshot"}):
            days = sorted(day for table, day in by_key if table == name)
            newest = files[name, days[-1]]
            timeless = by_key[name, days[-1]].table.time_column is None
            if not timeless or len(days) == 1:
                links = f"{newest}-links.parquet"
            else:
                every = [f"{files[name, day]}-links.parquet" for day in days]
                digest = hashlib.sha256("\x1f".join(every).encode()).hexdigest()[:32]
                links = f"{_SNAPSHOT_LINKS}/{name}/{digest}.parquet"
                if not self.store.is_whole(links):
                    self.store.sink(links, _since_first_snapshot([self.store.scan(file) for file in every]))
            snapshots[name] = CurrentSnapshot(name, days[-1], self.store.scan(links), links, timeless)
        decided = decision_links(self.rules)
        if decided.height:
            digest = hashlib.sha256(decided.write_csv().encode()).hexdigest()[:32]
            links = f"{_SNAPSHOT_LINKS}/{DECISIONS_SOURCE}/{digest}.parquet"
            if not self.store.is_whole(links):
                self.store.sink(links, decided.lazy())
            decided_links = self.store.scan(links)
            snapshots[DECISIONS_SOURCE] = CurrentSnapshot(
                DECISIONS_SOURCE, _ALWAYS, decided_links, links, timeless=False
            )
        return snapshots

    def _refused(
        self, day: date, files: Mapping[tuple[str, date], str], snapshots: Mapping[str, CurrentSnapshot]
    ) -> pl.LazyFrame:
        counts = [
            self.store.scan(f"{file}-refused.parquet").select(
                pl.lit(name).alias("source"), pl.lit(input_day).alias("day"), pl.all()
            )
            for (name, input_day), file in files.items()
            if input_day == (snapshots[name].day if name in snapshots else day)
        ]
        return pl.concat(counts) if counts else pl.LazyFrame(schema={"source": pl.String, "day": pl.Date, **REFUSED})

    def _tidy(self, files: Mapping[tuple[str, date], str], snapshots: Mapping[str, CurrentSnapshot]) -> None:
        """Remove files of other versions of the same inputs."""
        of_input = {f"{_EXTRACTED}/{name}/{day.isoformat()}-": file for (name, day), file in files.items()}
        for stored in self.store.list(_EXTRACTED):
            name = stored.key.rpartition("/")[2]
            current = of_input.get(f"{stored.key.removesuffix(name)}{name[:11]}")
            if current is not None and not stored.key.startswith(current):
                self.store.delete(stored.key)
        current_files = {part.file for part in snapshots.values()}
        for stored in self.store.list(_SNAPSHOT_LINKS):
            if stored.key not in current_files:
                self.store.delete(stored.key)


def _checked(day: date, inputs: Sequence[DayInput]) -> dict[tuple[str, date], DayInput]:
    by_key: dict[tuple[str, date], DayInput] = {}
    for part in inputs:
        if part.day > day:
            raise LinksError(f"{part.table.name} of {part.day} was given for {day}: later days are not known yet")
        if by_key.setdefault((part.table.name, part.day), part) is not part:
            raise LinksError(f"{part.table.name} of {part.day} was given twice")
    return by_key


def _since_first_snapshot(days: Sequence[pl.LazyFrame]) -> pl.LazyFrame:
    """Without record times, a link is as old as the first partition that has it (rule 2)."""
    ever = pl.concat([links.select(*_KEY, "first_seen") for links in days])
    earliest = ever.group_by(_KEY).agg(pl.col("first_seen").min().alias("earliest"))
    return (
        days[-1]
        .join(earliest, on=_KEY, how="left", nulls_equal=True)
        .with_columns(first_seen="earliest")
        .select(list(LINKS))
    )


def _combined(parts: Sequence[pl.LazyFrame]) -> pl.LazyFrame:
    if not parts:
        return pl.LazyFrame(schema=LINKS)
    return aggregated(pl.concat(parts)).select(list(LINKS))


def resolve(links: pl.LazyFrame, rules: Rules, engine: EngineChoice = "native") -> Resolution:
    """Resolve links into profiles.

    The result depends on the set of links only: not on their order, direction, repetition or partitioning, and not on
    the engine.

    `links`: schema of identity/links; `type_a` need not be the stronger end. `source`, `first_seen`, `last_seen`,
    `count` and `authoritative` may be absent. A link of an identifier to itself is a sighting.

    Raises
    ------
    LinksError
        If an end is null or empty, or of a type that the rules do not know.
    MemoryLimitError
        If there are more identifiers or links than fit into the memory that this process may use.
    """
    decided = decision_links(rules)
    return engine_named(engine).resolve(
        pl.concat([as_links(links), decided.lazy()]) if decided.height else links, rules
    )
