"""What people keep apart, as pairs of nodes: `apart` decisions on the numbers of a graph or of a stored state."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import polars as pl

from heap_assets.identity.decisions import Pair, apart_pairs
from heap_assets.identity.engine.native import kernel_table
from heap_assets.identity.engine.native.encode import encode
from heap_assets.identity.engine.native.kernel import I64, NO_TYPE, NONE, U8, U32, U64
from heap_assets.identity.rules import Rules


class NodeTable(Protocol):
    """A hash table of nodes: that of new links, or that of a state."""

    ranks: U8
    facts: I64
    slots: U64
    size: int


@dataclass(frozen=True)
class ApartNodes:
    """Pairs of nodes that may not come into one profile.

    `by`: the number of the decision in `ids`, which are in the order of their bytes.
    """

    a: U32
    b: U32
    by: U32
    ids: tuple[str, ...]

    @classmethod
    def none(cls) -> ApartNodes:
        nodes = np.empty(0, np.uint32)
        return cls(nodes, nodes, nodes, ())

    def within(self, labels: U32) -> ApartNodes:
        """Return the pairs both ends of which have one label: no other pair can ever meet."""
        return self._of(labels[self.a] == labels[self.b])

    def placed(self, place: U32, is_inside: U8) -> ApartNodes:
        """Return the pairs among some nodes, renumbered."""
        inside = self._of((is_inside[self.a] & is_inside[self.b]) == 1)
        return ApartNodes(place[inside.a], place[inside.b], inside.by, self.ids)

    def _of(self, chosen: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> ApartNodes:
        return ApartNodes(self.a[chosen], self.b[chosen], self.by[chosen], self.ids)

    def names(self, by: U32) -> pl.Series:
        """Return the ids of decisions by their numbers, null for NONE."""
        numbers = pl.Series("decision", by).to_frame().select(pl.when(pl.col("decision") != NONE).then("decision"))
        return pl.Series(self.ids, dtype=pl.String).gather(numbers.to_series()).alias("decision")


def pairs_of(apart: Iterable[tuple[str, ...]]) -> list[Pair]:
    """Return the identifiers of decisions in the form of :attr:`Rules.apart`."""
    return sorted({pair for _, *texts in apart for pair in zip(texts[::2], texts[1::2], strict=True)})


def apart_nodes(table: NodeTable, rules: Rules) -> ApartNodes:
    """Return the pairs of nodes that decisions keep apart; identifiers that are not in the graph are left out."""
    pairs = list(apart_pairs(rules.decisions))
    if not pairs:
        return ApartNodes.none()
    identifiers = sorted({end for _, a, b in pairs for end in (a, b)})
    node_of = dict(zip(identifiers, _looked_up(identifiers, table, rules).tolist(), strict=True))
    ids = tuple(dict.fromkeys(decision for decision, _, _ in pairs))
    number_of = {decision: number for number, decision in enumerate(ids)}
    rows = [(node_of[a], node_of[b], number_of[decision]) for decision, a, b in pairs]
    columns = np.array([row for row in rows if NONE not in row[:2]], np.uint32).reshape(-1, 3)
    a, b, by = (np.ascontiguousarray(columns[:, at]) for at in range(3))
    return ApartNodes(a, b, by, ids)


def nodes_of(identifiers: list[Pair], table: NodeTable, rules: Rules) -> U32:
    """Return the nodes of those identifiers that are in the graph."""
    nodes = _looked_up(identifiers, table, rules)
    existing: U32 = nodes[nodes != NONE]
    return existing


def _looked_up(identifiers: list[Pair], table: NodeTable, rules: Rules) -> U32:
    """Return the node of each identifier; NONE for one that is not in the graph, or of a type without rules."""
    nodes = np.full(len(identifiers), NONE, np.uint32)
    usable = [at for at, (kind, _) in enumerate(identifiers) if kind in rules.types]
    if not usable or not table.size:
        return nodes
    ends = [identifiers[at] for at in usable]
    sightings = pl.LazyFrame(ends, schema={"type_a": pl.String, "value_a": pl.String}, orient="row").with_columns(
        pl.lit(None, pl.String).alias(name) for name in ("type_b", "value_b")
    )
    own = encode(sightings, rules)
    home = np.full(own.nodes, NONE, np.uint32)
    kernel_table.look_up(own.slots, own.size, own.facts, table.slots, table.size, table.facts, home, 0, own.size)
    home[home != NONE] = np.where(table.ranks[home[home != NONE]] == NO_TYPE, NONE, home[home != NONE])
    texts = own.texts.take(np.arange(own.nodes, dtype=np.uint32)).to_list()
    of_own = {(rank, text): node for node, (rank, text) in enumerate(zip(own.ranks.tolist(), texts, strict=True))}
    nodes[usable] = home[[of_own[rules.rank(kind), value] for kind, value in ends]]
    return nodes
