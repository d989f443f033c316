"""A day's links and graph from the tables that stand at that day; incremental, and equal to computing all at once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final

import polars as pl

from heap_assets.identity.errors import LinksError
from heap_assets.identity.extract import extract
from heap_assets.identity.resolve import Resolution, resolve
from heap_assets.identity.rules import Rules, SourceTable
from heap_assets.identity.shapes import LINKS, REFUSED, aggregated
from heap_assets.lake import Store

_EXTRACTED: Final = "_identity/extracted"


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
        Where state lives, under `_identity/`. It is a cache: deleting it costs time and nothing else.
    """

    def __init__(self, store: Store, rules: Rules) -> None:
        self.store = store
        self.rules = rules

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
        wanted = _checked(day, inputs)
        read = {key: self._extracted(given) for key, given in wanted.items()}
        standing = {
            given.table.name: given.day for _, given in sorted(wanted.items()) if given.table.kind == "snapshot"
        }
        every, of_day, refused = [], [], []
        for (name, input_day), given in sorted(wanted.items()):
            links, counted = read[name, input_day]
            if given.table.kind == "event":
                every.append(links)
                if input_day == day:
                    of_day.append(links)
            elif standing[name] == input_day:
                stood = _since_first_stood(name, links, wanted, read)
                every.append(stood)
                of_day.append(stood)
            if input_day in (day, standing.get(name)):
                refused.append(counted.select(pl.lit(name).alias("source"), pl.lit(input_day).alias("day"), pl.all()))
        all_links = _together(every)
        return Advanced(
            links=_together(of_day).sort("type_a", "value_a", "type_b", "value_b", "source"),
            all_links=all_links,
            refused=pl.concat(refused)
            if refused
            else pl.LazyFrame(schema={"source": pl.String, "day": pl.Date, **REFUSED}),
            resolution=resolve(all_links, self.rules),
            notes={"mode": "full", "why": "no state", "inputs": len(wanted)},
        )

    def _extracted(self, given: DayInput) -> tuple[pl.LazyFrame, pl.LazyFrame]:
        """Links and refused values of an input, read at most once per version of it, its mapping and the rules."""
        version = "\x1f".join((given.version, given.table.digest, self.rules.value_digest))
        name = hashlib.sha256(version.encode()).hexdigest()[:32]
        folder = f"{_EXTRACTED}/{given.table.name}/{given.day.isoformat()}-{name}"
        links, refused = f"{folder}-links.parquet", f"{folder}-refused.parquet"
        if not (self.store.exists(links) and self.store.exists(refused)):
            own = None if given.own_identify is None else given.own_identify()
            extraction = extract(given.rows(), given.table, self.rules, given.day, own)
            self.store.sink(links, extraction.links)
            self.store.sink(refused, extraction.refused)
        return self.store.scan(links), self.store.scan(refused)


def _checked(day: date, inputs: Sequence[DayInput]) -> dict[tuple[str, date], DayInput]:
    wanted: dict[tuple[str, date], DayInput] = {}
    for given in inputs:
        if given.day > day:
            raise LinksError(f"{given.table.name} of {given.day} was given for {day}: later days are not known yet")
        if wanted.setdefault((given.table.name, given.day), given) is not given:
            raise LinksError(f"{given.table.name} of {given.day} was given twice")
    return wanted


def _since_first_stood(
    name: str,
    links: pl.LazyFrame,
    wanted: Mapping[tuple[str, date], DayInput],
    read: Mapping[tuple[str, date], tuple[pl.LazyFrame, pl.LazyFrame]],
) -> pl.LazyFrame:
    """Without record times, a link is as old as the first partition in which it ever stood (rule 2)."""
    timeless = [
        read[key][0].select("type_a", "value_a", "type_b", "value_b", "source", pl.col("first_seen").alias("stood"))
        for key, given in wanted.items()
        if key[0] == name and given.table.time_column is None
    ]
    if len(timeless) < 2:
        return links
    ends = ["type_a", "value_a", "type_b", "value_b", "source"]
    earliest = pl.concat(timeless).group_by(ends).agg(pl.col("stood").min())
    return (
        links.join(earliest, on=ends, how="left", nulls_equal=True).with_columns(first_seen="stood").select(list(LINKS))
    )


def _together(parts: list[pl.LazyFrame]) -> pl.LazyFrame:
    if not parts:
        return pl.LazyFrame(schema=LINKS)
    return aggregated(pl.concat(parts)).select(list(LINKS))
