"""Shared values, such as a kiosk's device (rule 4), and the components of the links without them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from heap_assets.identity.engine.native import kernel
from heap_assets.identity.engine.native.encode import Encoded, LinkBatch
from heap_assets.identity.engine.native.kernel import U8, U32
from heap_assets.identity.engine.native.memory import in_parts, in_ranges
from heap_assets.identity.rules import Rules
from heap_assets.identity.schemas import SHARED


@dataclass(frozen=True)
class Components:
    """Connected components of the links after rule 4.

    Attributes
    ----------
    labels
        Component of each node, 0 to `count` - 1.
    shared
        1 for shared values.
    report
        node: UInt32; rank (of the stronger type): UInt8; groups: Int64. Which values are shared, and why.
    """

    labels: U32
    count: int
    shared: U8
    report: pl.DataFrame


def components(encoded: Encoded, rules: Rules) -> Components:
    """Find shared values and components in one pass over the types, strongest first, on one union-find.

    At type r the union-find holds exactly the links among strictly stronger types, without values that are shared, so
    each group is a root; identifiers of the other types are groups of their own.
    """
    parent = np.arange(encoded.nodes, dtype=np.uint32)
    shared = np.zeros(encoded.nodes, np.uint8)
    room = np.empty(encoded.nodes, np.uint32)
    reports = []
    for rank, thresholds in enumerate(rules.sharing):
        for stronger, above in thresholds.items():
            groups = _several(encoded, rules, parent, shared, rank, stronger, room)
            reports.append(groups.filter(pl.col("groups") > above).with_columns(judged=pl.lit(rank, pl.UInt8)))
        for report in reports[len(reports) - len(thresholds) :]:
            shared[report["node"].to_numpy()] = 1
        _unite(parent, [(batch, batch.of_rank(rank)) for batch in encoded.batches], shared)
    if shared.any():
        for batch in encoded.batches:
            kernel.union_decided(parent, batch.a, batch.b, batch.tag, shared)
    labels, count = labelled(parent, room)
    empty = pl.DataFrame(schema={"node": pl.UInt32, "rank": pl.UInt8, "groups": pl.Int64, "judged": pl.UInt8})
    return Components(labels, count, shared, pl.concat([empty, *reports]))


def raw_components(encoded: Encoded) -> tuple[U32, int]:
    """Label components of all links, shared values included: one change affects one component only."""
    parent = np.arange(encoded.nodes, dtype=np.uint32)
    _unite(parent, [(batch, slice(None)) for batch in encoded.batches], np.zeros(encoded.nodes, np.uint8))
    return labelled(parent, np.empty(encoded.nodes, np.uint32))


def _unite(parent: U32, links: list[tuple[LinkBatch, slice]], shared: U8) -> None:
    def work(part: int, parts: int) -> None:
        for batch, rows in links[part::parts]:
            kernel.union(parent, batch.a[rows], batch.b[rows], shared)

    in_parts(work)


def labelled(parent: U32, labels: U32) -> tuple[U32, int]:
    """Number components 0, 1, … in the order of their smallest node; writes `labels`, and returns them and how many."""
    in_ranges(parent.size, lambda begin, end: kernel.flatten(parent, begin, end))
    numbers = np.cumsum(parent == np.arange(parent.size, dtype=np.uint32), dtype=np.uint32)
    in_ranges(parent.size, lambda begin, end: np.subtract(numbers[parent[begin:end]], 1, out=labels[begin:end]))
    return labels, int(numbers[-1]) if numbers.size else 0


def shared_table(connected: Components, encoded: Encoded, rules: Rules) -> pl.DataFrame:
    """Return the report as identity/shared."""
    types = pl.Series(rules.types, dtype=pl.String)
    report = connected.report
    return (
        pl.DataFrame(
            {
                "identifier_type": types.gather(report["judged"]),
                "identifier": encoded.texts.take(np.array(report["node"], np.uint32)),
                "stronger_type": types.gather(report["rank"]),
                "groups": report["groups"],
                "judged": report["judged"],
                "rank": report["rank"],
            }
        )
        .sort("judged", "identifier", "rank")
        .select(pl.col(name).cast(dtype) for name, dtype in SHARED.items())
    )


def _several(
    encoded: Encoded, rules: Rules, parent: U32, shared: U8, rank: int, stronger: str | None, group: U32
) -> pl.DataFrame:
    """Count groups of the values of a type that touch two or more: node, rank of the strongest counted, groups.

    `group` has a number per node: memory that is reused costs less than new memory.
    """
    lowest, highest = (0, rank) if stronger is None else (rules.rank(stronger), rules.rank(stronger) + 1)
    group.fill(kernel.NONE)
    several = np.zeros(encoded.nodes, np.uint8)
    sides = list(_sides(encoded, rank, lowest))

    def judge(begin: int, end: int) -> None:
        for counted, judged in sides:
            kernel.several_groups(
                parent, counted, judged, encoded.ranks, lowest, highest, shared, group, several, begin, end
            )

    in_ranges(encoded.nodes, judge)
    used = _list_groups(encoded, parent, shared, several, sides, lowest, highest, 0)[0]
    _, values, groups, strongest = _list_groups(encoded, parent, shared, several, sides, lowest, highest, used)
    return (
        pl.DataFrame({"node": values, "group": groups, "rank": strongest})
        .group_by("node")
        .agg(pl.col("rank").min(), pl.col("group").n_unique().cast(pl.Int64).alias("groups"))
    )


def _list_groups(
    encoded: Encoded, parent: U32, shared: U8, several: U8, sides: list[tuple[U32, U32]],
    lowest: int, highest: int, size: int,
) -> tuple[int, U32, U32, U8]:  # fmt: skip
    values, groups, strongest = np.empty(size, np.uint32), np.empty(size, np.uint32), np.empty(size, np.uint8)
    used = 0
    for counted, judged in sides:
        used = kernel.groups_of(
            parent, counted, judged, encoded.ranks, lowest, highest, shared, several, values, groups, strongest, used
        )
    return used, values, groups, strongest


def _sides(encoded: Encoded, rank: int, lowest: int) -> Iterator[tuple[U32, U32]]:
    """Yield (counted, judged) ends of the links of a type's values, the judged ones."""
    for batch in encoded.batches:
        links = batch.of_rank(max(rank, lowest))
        if lowest < rank:
            yield batch.a[links], batch.b[links]
            continue
        judged_is_a = encoded.ranks[batch.a[links]] == rank
        a, b = batch.a[links][judged_is_a], batch.b[links][judged_is_a]
        yield b, a
        if lowest == rank:
            yield a, b
