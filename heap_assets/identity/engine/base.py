"""What an engine is: links and rules in, people out; what is common to all engines (design.md, "Identity")."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from heap_assets.identity.rules import Rules
from heap_assets.identity.shapes import LINKS
from heap_assets.storage import Store


@dataclass(frozen=True)
class Resolution:
    """Who is who, as lazy frames in the shapes of `identity/graph`, `identity/conflicts` and `identity/shared`.

    Attributes
    ----------
    graph
        identifier_type, identifier, profile_id: String; first_seen, last_seen; shared: Boolean. All identifiers, by
        profile_id, then type (strongest first), then value; values of no profile last.
    conflicts
        Links that a merge limit refused and whose ends are in different profiles, by their ends.
    shared
        Values that belong to several people, and how many groups each joins.
    profiles, identifiers
        How many there are.
    graph_writer
        Writes :attr:`graph` as a Parquet file with metadata in its footer, where the engine is faster at it than the
        lazy frame.
    """

    graph: pl.LazyFrame
    conflicts: pl.LazyFrame
    shared: pl.LazyFrame
    profiles: int
    identifiers: int
    graph_writer: Callable[[Path, Mapping[str, str] | None], None] | None = field(default=None, repr=False)

    def write_graph(self, path: Path, metadata: Mapping[str, str] | None = None) -> None:
        """Write :attr:`graph` as a Parquet file; `metadata` goes into its footer."""
        if self.graph_writer is None:
            self.graph.sink_parquet(path, metadata=dict(metadata or {}))
        else:
            self.graph_writer(path, metadata)


@dataclass(frozen=True)
class ExtractedLinks:
    """Links of one partition of a table, and the name of the files they are in."""

    table: str
    day: date
    links: pl.LazyFrame
    file: str


@dataclass(frozen=True)
class StandingSnapshot(ExtractedLinks):
    """Links of a snapshot table as it stands; `day` is the partition that stands.

    `timeless`: the table has no record times, so its links are last seen on the day that stands.
    """

    timeless: bool

    @property
    def version(self) -> str:
        """What a stored state remembers of it."""
        return f"{self.day.isoformat()}|{int(self.timeless)}|{self.file}"


@dataclass(frozen=True)
class LinksOfDay:
    """All links as of a day, by the partition they come from."""

    day: date
    events: Mapping[tuple[str, date], ExtractedLinks]
    standing: Mapping[str, StandingSnapshot]

    @property
    def links(self) -> pl.LazyFrame:
        """All of them; a link stands once per partition that names it."""
        parts = [part.links for part in (*self.events.values(), *self.standing.values())]
        return pl.concat(parts) if parts else pl.LazyFrame(schema=LINKS)


class Engine(Protocol):
    """Applies rules 3 to 7 to links. Every engine gives the same rows, and the tests hold them to it."""

    def resolve(self, links: pl.LazyFrame, rules: Rules) -> Resolution:
        """Resolve links (shape of identity/links; order, direction and repetition never matter).

        Raises
        ------
        LinksError
            If an end is null or empty, or of a type that the rules do not know.
        MemoryLimitError
            If there are more identifiers or links than fit into the memory that this process may use.
        """

    def advance(self, store: Store, links: LinksOfDay, rules: Rules) -> tuple[Resolution, dict[str, Any]]:
        """Resolve the links as of a day, with what this engine keeps under `_identity/` of earlier days.

        The rows equal those of `resolve(links.links, rules)`. The notes say how they were computed: `mode`, `why`.
        """
