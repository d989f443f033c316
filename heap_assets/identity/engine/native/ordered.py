"""Merging links in one total order under merge limits (rules 5 and 6), in components that exceed one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from heap_assets.identity.engine.native import kernel
from heap_assets.identity.engine.native.apart import ApartNodes
from heap_assets.identity.engine.native.encode import Encoded, LinkBatch
from heap_assets.identity.engine.native.kernel import U8, U32
from heap_assets.identity.engine.native.memory import in_parts
from heap_assets.identity.engine.native.shared import Components, labelled
from heap_assets.identity.rules import Rules


@dataclass(frozen=True)
class Clusters:
    """Profiles as numbers.

    Attributes
    ----------
    labels
        Cluster of each node; NONE for a shared value that nothing ties to a profile.
    count
        Clusters are numbered below this; a number may be unused.
    refused
        One row per refused link whose ends are in different clusters: a, b: UInt32 (stronger end first), first: Int64,
        sources: List(UInt16), broken: UInt8 (rank of the limited type), count_a, count_b: Int64, decision: String (the
        one that refused it; then broken and the counts are null).
    """

    labels: U32
    count: int
    refused: pl.DataFrame


def clusters(
    encoded: Encoded, connected: Components, rules: Rules, apart: ApartNodes | None = None, *, everywhere: bool = False
) -> Clusters:
    """Apply merge limits and `apart` decisions; the labels of the components `connected` become those of the clusters.

    A component that meets all limits and holds no two nodes that are apart is a cluster as it is: no link in it could
    be refused (proof: reference, identity.md 3.3). The others are resolved link by link.

    `everywhere`: resolve all components link by link, for the proof that both ways agree.
    """
    labels, limits = connected.labels, np.array([-1 if limit is None else limit for limit in rules.limits], np.int64)
    over = np.full(connected.count, everywhere)
    for rank in np.flatnonzero(limits >= 0):
        over |= np.bincount(labels[encoded.ranks == rank], minlength=connected.count) > limits[rank]
    count, refused = connected.count, pl.DataFrame(schema=_REFUSED)
    apart = (apart or ApartNodes.none()).within(labels)
    over[labels[apart.a]] = True
    if over.any():
        inside = over[labels].view(np.uint8)
        links = ordered_links(encoded, connected, inside, rules)
        count, refused = _resolve(encoded, connected, links, inside, limits, apart)
    if connected.shared.any():  # one that is a cluster of its own belongs to no profile
        shared = np.flatnonzero(connected.shared)
        alone = np.bincount(labels, minlength=count)[labels[shared]] == 1
        labels[shared[alone]] = kernel.NONE
    return Clusters(labels, count, refused)


_REFUSED: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    "a": pl.UInt32, "b": pl.UInt32, "first": pl.Int64, "sources": pl.List(pl.UInt16), "broken": pl.UInt8,
    "count_a": pl.Int64, "count_b": pl.Int64, "decision": pl.String,
}  # fmt: skip


def ordered_links(encoded: Encoded, connected: Components, inside: U8, rules: Rules) -> pl.DataFrame:
    """Return the links between marked nodes, which are whole components, in the total order of rule 5.

    Returns a, b: UInt32, of one type the smaller value first; first: Int64; decided: UInt8; sources: List(UInt16).
    """

    def work(part: int, parts: int) -> list[pl.DataFrame]:
        return [_links_inside(batch, connected.shared, inside) for batch in encoded.batches[part::parts]]

    copied = pl.concat([frame for frames in in_parts(work) for frame in frames])
    nodes = np.unique(np.concatenate([copied["a"].to_numpy(), copied["b"].to_numpy()]))
    place = encoded.texts.take(nodes).rank("dense").cast(pl.UInt32)
    ends = pl.DataFrame({"node": nodes, "rank": encoded.ranks[nodes], "place": place})
    links = copied.join(ends, left_on="a", right_on="node", maintain_order="left").join(
        ends, left_on="b", right_on="node", suffix="_b", maintain_order="left"
    )
    flipped = (pl.col("rank") == pl.col("rank_b")) & (pl.col("place") > pl.col("place_b"))
    either = [pl.when(flipped).then(y).otherwise(x).alias(x) for x, y in (("a", "b"), ("place", "place_b"))]
    other = [pl.when(flipped).then(x).otherwise(y).alias(y) for x, y in (("a", "b"), ("place", "place_b"))]
    when = [pl.col("first")] if rules.order == "first_seen" else []
    order = [*when, pl.col("decided") == 0, "rank_b", "rank", "first", "place", "place_b"]
    return (
        links.with_columns(*either, *other)
        .group_by("a", "b")
        .agg(
            pl.col("first").min(),
            pl.col("decided").max(),
            pl.col("sources").unique().sort(),
            pl.col("rank", "rank_b", "place", "place_b").first(),
        )
        .sort(order)
        .select("a", "b", "first", "decided", "sources")
    )


def _links_inside(batch: LinkBatch, shared: U8, inside: U8) -> pl.DataFrame:
    """Return the links between marked nodes; those of shared values only if they are authoritative.

    Marked nodes are whole components of the links that count, so one marked end is enough.
    """
    rows = np.flatnonzero(inside[batch.a])
    a, b, tag = batch.a[rows], batch.b[rows], batch.tag[rows]
    counts = ((shared[a] | shared[b]) == 0) | (tag & 1 == 1)
    a, b, first, tag = a[counts], b[counts], batch.first[rows[counts]], tag[counts]
    return pl.DataFrame({"a": a, "b": b, "first": first, "decided": (tag & 1).astype(np.uint8), "sources": tag >> 1})


def _resolve(
    encoded: Encoded, connected: Components, links: pl.DataFrame, marked: U8, limits: kernel.I64, apart: ApartNodes
) -> tuple[int, pl.DataFrame]:
    """Split marked components; writes new labels, returns their number and the refused links."""
    inside = np.flatnonzero(marked).astype(np.uint32)
    a, b = (np.searchsorted(inside, links[end].to_numpy()).astype(np.uint32) for end in ("a", "b"))
    parent = np.arange(inside.size, dtype=np.uint32)
    broken, state = np.zeros(a.size, np.uint8), np.zeros(a.size, np.uint8)
    count_a, count_b = np.zeros(a.size, np.int64), np.zeros(a.size, np.int64)
    by = np.full(a.size, kernel.NONE, np.uint32)
    decided = links["decided"].to_numpy()
    apart_a, apart_b = (np.searchsorted(inside, nodes).astype(np.uint32) for nodes in (apart.a, apart.b))
    kernel.merge_in_order(
        parent, a, b, decided, encoded.ranks[inside], limits, apart_a, apart_b, apart.by,
        broken, count_a, count_b, by, state,
    )  # fmt: skip
    inner, parts = labelled(parent, np.empty(inside.size, np.uint32))
    connected.labels[inside] = inner + np.uint32(connected.count)
    conflict = (state == 2) & (inner[a] != inner[b])
    numbers: dict[str, U8 | kernel.I64] = {"broken": broken, "count_a": count_a, "count_b": count_b}
    refused = (
        links.with_columns(pl.Series(name, values) for name, values in numbers.items())
        .with_columns(apart.names(by))
        .filter(pl.Series(conflict))
        .with_columns(pl.when(pl.col("decision").is_null()).then(pl.col(name)).alias(name) for name in numbers)
    )
    return connected.count + parts, refused.select(list(_REFUSED))
