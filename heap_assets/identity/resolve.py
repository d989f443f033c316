"""From links to people: the one call that applies rules 3 to 7 (design.md, "Identity: the rules, exactly")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from heap_assets.identity.rules import Rules

if TYPE_CHECKING:
    from heap_assets.identity.engine.native.tables import Resolved


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
    """

    graph: pl.LazyFrame
    conflicts: pl.LazyFrame
    shared: pl.LazyFrame
    result: Resolved = field(repr=False)

    @property
    def profiles(self) -> int:
        """How many profiles there are."""
        return self.result.profiles.order.size

    @property
    def identifiers(self) -> int:
        """How many identifiers there are."""
        return self.result.identifiers

    def write_graph(self, path: Path, metadata: Mapping[str, str] | None = None) -> None:
        """Write :attr:`graph` as a Parquet file, faster than its lazy frame would be.

        Parameters
        ----------
        metadata
            Goes into the file's footer.
        """
        from heap_assets.identity.engine.native.graph_file import write_graph

        write_graph(self.result, path, metadata)


def resolve(links: pl.LazyFrame, rules: Rules) -> Resolution:
    """Resolve links into profiles.

    The result depends on the set of links only: not on their order, direction, repetition or partitioning.

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
    # numba and its compiled loops are loaded by the first resolution, not by importing the package
    from heap_assets.identity.engine.native.memory import failing_clearly
    from heap_assets.identity.engine.native.tables import resolved

    with failing_clearly("resolving links"):
        return as_resolution(resolved(links, rules))


def as_resolution(result: Resolved) -> Resolution:
    """Present arrays as lazy frames."""
    from heap_assets.identity.engine.native.graph import graph_table
    from heap_assets.identity.engine.native.shared import shared_table
    from heap_assets.identity.engine.native.tables import conflicts_table

    return Resolution(
        graph=graph_table(result),
        conflicts=conflicts_table(result).lazy(),
        shared=shared_table(result.components, result.encoded, result.rules).lazy(),
        result=result,
    )
