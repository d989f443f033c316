"""From resolved arrays to the tables of the design, in an order that depends on the content only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import polars as pl
from polars.io.plugins import register_io_source

from heap_assets.identity import kernel, kernel_text
from heap_assets.identity.encode import Encoded, encode
from heap_assets.identity.ids import ProfileIds, profile_ids
from heap_assets.identity.kernel import I64, U32
from heap_assets.identity.ordered import Clusters, clusters
from heap_assets.identity.rules import Rules
from heap_assets.identity.shapes import CONFLICTS, GRAPH, TIME
from heap_assets.identity.shared import Components, components
from heap_assets.identity.texts import text_series

_SLICE: Final = 1 << 20


@dataclass(frozen=True)
class Resolved:
    """A resolution as arrays."""

    rules: Rules
    encoded: Encoded
    components: Components
    clusters: Clusters
    ids: ProfileIds

    @property
    def profiles(self) -> int:
        """How many profiles there are."""
        return int(np.count_nonzero(self.ids.node != kernel.NONE))

    @cached_property
    def order(self) -> U32:
        """Nodes by profile id, rank and value; those of no profile last."""
        places = np.empty(self.clusters.count, np.uint32)
        by_id = np.argsort(self.ids.high, kind="stable")
        high = self.ids.high[by_id]
        if (high[1:] == high[:-1]).any():
            by_id = np.lexsort((self.ids.low, self.ids.high))
        places[by_id] = np.arange(places.size, dtype=np.uint32)
        order = np.empty(self.encoded.nodes, np.uint32)
        starts = np.zeros(places.size + 2, np.int64)
        texts = self.encoded.texts
        kernel_text.order_nodes(
            self.clusters.labels, places, self.encoded.ranks, texts.offsets, texts.data, order, starts
        )
        return order


def resolved(links: pl.LazyFrame, rules: Rules, *, everywhere: bool = False) -> Resolved:
    """Resolve links; `everywhere` as in :func:`clusters`."""
    encoded = encode(links, rules)
    found = components(encoded, rules)
    split = clusters(encoded, found, rules, everywhere=everywhere)
    return Resolved(rules, encoded, found, split, profile_ids(encoded, split, rules))


def graph_table(result: Resolved) -> pl.LazyFrame:
    """Return identity/graph as a stream: a slice at a time is made into text."""

    def source(
        columns: list[str] | None, predicate: pl.Expr | None, rows: int | None, _batch: int | None
    ) -> Iterator[pl.DataFrame]:
        end = result.encoded.nodes if rows is None else min(rows, result.encoded.nodes)
        for begin in range(0, max(end, 1), _SLICE):
            piece = _graph_slice(result, result.order[begin : min(begin + _SLICE, end)])
            if columns is not None:
                piece = piece.select(columns)
            yield piece if predicate is None else piece.filter(predicate)

    return register_io_source(source, schema=GRAPH)


def _graph_slice(result: Resolved, nodes: U32) -> pl.DataFrame:
    encoded = result.encoded
    return pl.DataFrame(
        {
            "identifier_type": pl.Series(result.rules.types, dtype=pl.String).gather(encoded.ranks[nodes]),
            "identifier": encoded.texts.take(nodes),
            "profile_id": hexadecimal_ids(result, nodes),
            "first_seen": _times(encoded.first[nodes], kernel.NEVER),
            "last_seen": _times(encoded.last[nodes], kernel.BEFORE),
            "shared": pl.Series(result.components.shared[nodes] == 1),
        }
    )


def hexadecimal_ids(result: Resolved, nodes: U32) -> pl.Series:
    """Return the profile ids of some nodes as text, null for those of no profile."""
    labels = result.clusters.labels[nodes]
    text = np.zeros(nodes.size * 32, np.uint8)
    kernel_text.hexadecimal(labels, result.ids.high, result.ids.low, text)
    offsets = np.arange(0, text.size + 1, 32, dtype=np.int64)
    return text_series(offsets, text, (labels != kernel.NONE).astype(np.uint8))


def _times(values: I64, none: int) -> pl.Series:
    series = pl.Series(values)
    return pl.select(pl.when(series != none).then(series)).to_series().cast(TIME)


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
        .agg(pl.col("name").sort())
        .sort("index")["name"]
    )
    table = pl.DataFrame(
        {
            "type_a": types.gather(encoded.ranks[a]),
            "value_a": encoded.texts.take(a),
            "type_b": types.gather(encoded.ranks[b]),
            "value_b": encoded.texts.take(b),
            "sources": sources,
            "first_seen": _times(np.array(refused["first"], np.int64), kernel.NEVER),
            "limited_type": types.gather(refused["broken"]),
            "limit": limits.gather(refused["broken"]),
            "count_a": refused["count_a"],
            "count_b": refused["count_b"],
            "profile_a": hexadecimal_ids(result, a),
            "profile_b": hexadecimal_ids(result, b),
            "_a": encoded.ranks[a],
            "_b": encoded.ranks[b],
        }
    )
    return table.sort("_a", "value_a", "_b", "value_b").select(
        pl.col(name).cast(kind) for name, kind in CONFLICTS.items()
    )
