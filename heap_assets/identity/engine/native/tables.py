"""From resolved arrays to the tables of the design, in an order that depends on the content only."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from heap_assets.identity.engine.native import kernel
from heap_assets.identity.engine.native.encode import Encoded, encode
from heap_assets.identity.engine.native.graph import profile_ids, times
from heap_assets.identity.engine.native.ids import Profiles, profiles, with_ids
from heap_assets.identity.engine.native.kernel import U64
from heap_assets.identity.engine.native.ordered import Clusters, clusters
from heap_assets.identity.engine.native.shared import Components, components
from heap_assets.identity.rules import Rules
from heap_assets.identity.shapes import CONFLICTS


@dataclass(frozen=True)
class Resolved:
    """A resolution as arrays.

    Attributes
    ----------
    high, low
        The two halves of each cluster's id.
    laid_out
        Of a resolution just made; one from a stored state is laid out when it is first asked for.
    """

    rules: Rules
    encoded: Encoded
    components: Components
    clusters: Clusters
    high: U64
    low: U64
    laid_out: Profiles | None = None

    @property
    def identifiers(self) -> int:
        """How many identifiers there are."""
        return int(np.count_nonzero(self.encoded.ranks != kernel.NO_TYPE))

    @cached_property
    def profiles(self) -> Profiles:
        """Clusters laid out, and their ids."""
        if self.laid_out is not None:
            return self.laid_out
        return with_ids(self.encoded, self.clusters.labels, self.high, self.low, self.components.shared, self.rules)


def resolved(links: pl.LazyFrame, rules: Rules, *, everywhere: bool = False, keep_rows: bool = False) -> Resolved:
    """Resolve links; `everywhere` as in :func:`clusters`, `keep_rows` as in :func:`encode`."""
    encoded = encode(links, rules, keep_rows=keep_rows)
    if not keep_rows:
        encoded.forget_table()
    return decided(encoded, rules, everywhere=everywhere, keep_links=keep_rows)


def decided(encoded: Encoded, rules: Rules, *, everywhere: bool = False, keep_links: bool = False) -> Resolved:
    """Apply rules 4 to 7 to links that have been read."""
    found = components(encoded, rules)
    split = clusters(encoded, found, rules, everywhere=everywhere)
    if not keep_links:
        encoded.forget_links()  # a quarter of all memory, while text is about to be made
    found_profiles = profiles(encoded, split.labels, split.count, found.shared, rules)
    return Resolved(rules, encoded, found, split, found_profiles.high, found_profiles.low, found_profiles)


def conflicts_table(result: Resolved) -> pl.DataFrame:
    """Return identity/conflicts: refused links whose ends are in different profiles, by their ends."""
    refused, encoded = result.clusters.refused, result.encoded
    types = pl.Series(result.rules.types, dtype=pl.String)
    a, b = (np.array(refused[end], np.uint32) for end in ("a", "b"))
    limits = pl.Series(result.rules.limits, dtype=pl.Int64)
    names = pl.DataFrame(
        {"code": range(len(encoded.sources)), "name": encoded.sources}, {"code": pl.UInt16, "name": pl.String}
    )
    sources = (
        refused.select(pl.col("sources").alias("code"))
        .with_row_index()
        .explode("code")
        .join(names, on="code", how="left")
        .group_by("index")
        .agg(pl.col("name").unique().sort())
        .sort("index")["name"]
    )
    table = pl.DataFrame(
        {
            "type_a": types.gather(encoded.ranks[a]),
            "value_a": encoded.texts.take(a),
            "type_b": types.gather(encoded.ranks[b]),
            "value_b": encoded.texts.take(b),
            "sources": sources,
            "first_seen": times(np.array(refused["first"], np.int64), kernel.NEVER),
            "limited_type": types.gather(refused["broken"]),
            "limit": limits.gather(refused["broken"]),
            "count_a": refused["count_a"],
            "count_b": refused["count_b"],
            "profile_a": profile_ids(result, a),
            "profile_b": profile_ids(result, b),
            "_a": encoded.ranks[a],
            "_b": encoded.ranks[b],
        }
    )
    return table.sort("_a", "value_a", "_b", "value_b").select(
        pl.col(name).cast(kind) for name, kind in CONFLICTS.items()
    )
