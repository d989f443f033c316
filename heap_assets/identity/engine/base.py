"""The interface of engines, which resolve links into profiles, and its types (design.md, "Identity")."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from heap_assets.identity.rules import Rules
from heap_assets.identity.schemas import LINKS
from heap_assets.storage import Store


@dataclass(frozen=True)
class Resolution:
    """Resolved profiles, as lazy frames with the schemas of `identity/graph`, `identity/conflicts`, `identity/shared`.

    >>> import polars as pl
    >>> from heap_assets import IdentifierRule, Rules, resolve
    >>> link = {"type_a": ["email"], "value_a": ["ann@x.example"], "type_b": ["device_id"], "value_b": ["laptop"]}
    >>> resolution = resolve(pl.DataFrame(link), Rules((IdentifierRule("email"), IdentifierRule("device_id"))))
    >>> resolution.graph.collect()["profile_id"].n_unique(), resolution.conflicts.collect().height
    (1, 0)

    Attributes
    ----------
    graph
        identifier_type, identifier, profile_id: String; first_seen, last_seen; shared: Boolean. All identifiers, by
        profile_id, then type (strongest first), then value; values of no profile last.
    conflicts
        Links that a merge limit refused and whose ends are in different profiles, by their ends.
    shared
        Values that belong to several people, and the number of groups that each would join.
    profiles, identifiers
        Their numbers.
    graph_writer
        Writes :attr:`graph` as a Parquet file with metadata in its footer, for engines that are faster at it than the
        lazy frame.
    graph_files
        The files of :attr:`graph` in order, by their keys in the timeline's store, if the engine wrote them there.
    """

    graph: pl.LazyFrame
    conflicts: pl.LazyFrame
    shared: pl.LazyFrame
    profiles: int
    identifiers: int
    graph_writer: Callable[[Path, Mapping[str, str] | None], None] | None = field(default=None, repr=False)
    graph_files: tuple[str, ...] = field(default=(), repr=False)

    def write_graph(self, path: Path, metadata: Mapping[str, str] | None = None) -> None:
        """Write :attr:`graph` as a Parquet file; `metadata` goes into its footer."""
        if self.graph_writer is None:
            self.graph.sink_parquet(path, metadata=dict(metadata or {}))
        else:
            self.graph_writer(path, metadata)


@dataclass(frozen=True)
class ExtractedLinks:
    """Links of one partition of a table, and the common name of their files."""

    table: str
    day: date
    links: pl.LazyFrame
    file: str

    @property
    def links_file(self) -> str:
        """The key of the file of its links."""
        return f"{self.file}-links.parquet"


@dataclass(frozen=True)
class CurrentSnapshot(ExtractedLinks):
    """Links of the current partition of a snapshot table, that of `day`.

    `timeless`: the table has no record times, so its links are last seen on that day.
    """

    timeless: bool

    @property
    def links_file(self) -> str:
        """The key of the file of its links, which is its name."""
        return self.file

    @property
    def version(self) -> str:
        """Its version in a stored state."""
        return f"{self.day.isoformat()}|{int(self.timeless)}|{self.file}"


@dataclass(frozen=True)
class LinksOfDay:
    """All links as of a day, by the partition they come from."""

    day: date
    events: Mapping[tuple[str, date], ExtractedLinks]
    snapshots: Mapping[str, CurrentSnapshot]

    @property
    def links(self) -> pl.LazyFrame:
        """All of them, each once per partition that has it."""
        parts = [part.links for part in (*self.events.values(), *self.snapshots.values())]
        return pl.concat(parts) if parts else pl.LazyFrame(schema=LINKS)

    @property
    def files(self) -> list[str]:
        """The keys of the files that have them, in the store of the timeline."""
        return [part.links_file for part in (*self.events.values(), *self.snapshots.values())]


class Engine(Protocol):
    """Applies rules 3 to 7 to links. The tests require the same rows of every engine."""

    def resolve(self, links: pl.LazyFrame, rules: Rules) -> Resolution:
        """Resolve links (schema of identity/links; order, direction and repetition never matter).

        Raises
        ------
        LinksError
            If an end is null or empty, or of a type that the rules do not know.
        MemoryLimitError
            If there are more identifiers or links than fit into the memory that this process may use.
        """

    def advance(self, store: Store, links: LinksOfDay, rules: Rules) -> tuple[Resolution, dict[str, Any]]:
        """Resolve the links as of a day, starting from the state that this engine keeps under `_identity/`.

        The rows equal those of `resolve(links.links, rules)`. The notes say how they were computed: `mode`, `why`.
        """
