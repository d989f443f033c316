"""From links to people: the one call that applies rules 3 to 7 (design.md, "Identity: the rules, exactly")."""

from __future__ import annotations

import polars as pl

from heap_assets.identity.engine import EngineName, engine_named
from heap_assets.identity.engine.base import Resolution
from heap_assets.identity.rules import Rules


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
