"""From resolved arrays to the tables of the design, in an order that depends on the content only."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Final

import numpy as np
import polars as pl
from polars.io.plugins import register_io_source

from heap_assets.identity import kernel, kernel_text
from heap_assets.identity.encode import Encoded, encode
from heap_assets.identity.ids import Profiles, profiles
from heap_assets.identity.kernel import I64, U8, U16, U32, U64
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
    high: U64
    low: U64
    lay_out: Callable[[], Profiles]

    @property
    def identifiers(self) -> int:
        """How many identifiers there are."""
        return int(np.count_nonzero(self.encoded.ranks != kernel.NO_TYPE))

    @cached_property
    def profiles(self) -> Profiles:
        """Clusters laid out, and their ids; computed when first asked for."""
        return self.lay_out()


def resolved(links: pl.LazyFrame, rules: Rules, *, everywhere: bool = False, keep_rows: bool = False) -> Resolved:
    """Resolve links; `everywhere` as in :func:`clusters`, `keep_rows` as in :func:`encode`."""
    encoded = encode(links, rules, keep_rows=keep_rows)
    found = components(encoded, rules)
    split = clusters(encoded, found, rules, everywhere=everywhere)
    if not keep_rows:
        encoded.forget_links()  # a quarter of all memory, while text is about to be made
    found_profiles = profiles(encoded, split.labels, split.count, found.shared, rules)
    return Resolved(rules, encoded, found, split, found_profiles.high, found_profiles.low, lambda: found_profiles)


def graph_table(result: Resolved) -> pl.LazyFrame:
    """Return identity/graph as a stream: a slice at a time is made into text, the next ones in the background."""

    def source(
        columns: list[str] | None, predicate: pl.Expr | None, rows: int | None, _batch: int | None
    ) -> Iterator[pl.DataFrame]:
        left = result.identifiers if rows is None else rows
        for piece in _ahead(partial(_graph_slice, result), _slices(result.profiles)):
            chosen = piece.head(left) if columns is None else piece.head(left).select(columns)
            yield chosen if predicate is None else chosen.filter(predicate)
            left -= piece.height
            if left <= 0:
                return

    return register_io_source(source, schema=GRAPH)


def _slices(found: Profiles) -> list[U32]:
    """Cut the order of runs into pieces of about a million rows; the run of no profile comes last."""
    order = np.append(found.order, np.uint32(found.high.size))
    ends = np.cumsum(found.starts[order.astype(np.int64) + 1] - found.starts[order])
    cuts = np.searchsorted(ends, np.arange(_SLICE, max(ends[-1], 1), _SLICE)) + 1
    return [piece for piece in np.split(order, np.unique(cuts)) if piece.size]


def _ahead(make: Callable[[U32], pl.DataFrame], pieces: list[U32]) -> Iterator[pl.DataFrame]:
    with ThreadPoolExecutor(2) as pool:
        waiting: deque[Future[pl.DataFrame]] = deque()
        for piece in pieces:
            waiting.append(pool.submit(make, piece))
            if len(waiting) > 2:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _graph_slice(result: Resolved, places: U32) -> pl.DataFrame:
    found, encoded = result.profiles, result.encoded
    sizes = found.starts[places.astype(np.int64) + 1] - found.starts[places]
    rows = int(sizes.sum())
    nodes, keys = np.empty(rows, np.uint32), np.empty(rows, np.uint64)
    first, last = np.empty(rows, np.int64), np.empty(rows, np.int64)
    ids, known = np.zeros((rows, 4), np.uint64), np.zeros(rows, np.uint8)
    kernel_text.take_runs(places, found.starts, found.nodes, found.keys, nodes, keys)
    kernel_text.take_seen(nodes, encoded.seen, first, last)
    some = places < found.high.size
    of = np.where(some, places, 0)
    if found.high.size:
        kernel_text.write_ids(sizes, found.high[of], found.low[of], some.astype(np.uint8), ids, known)
    flags = (keys >> np.uint64(56)).astype(np.uint8)
    return pl.DataFrame(
        {
            "identifier_type": pl.Series(result.rules.types, dtype=pl.String).gather(flags >> 1),
            "identifier": encoded.texts.take(nodes),
            "profile_id": _id_series(ids, known),
            "first_seen": _times(first, kernel.NEVER),
            "last_seen": _times(last, kernel.BEFORE),
            "shared": pl.Series((flags & 1) == 1),
        }
    )


def hexadecimal_ids(result: Resolved, nodes: U32) -> pl.Series:
    """Return the profile ids of some nodes as text, null for those of no profile."""
    labels = result.clusters.labels[nodes]
    text = np.zeros((nodes.size, 16), np.uint16)
    kernel_text.hexadecimal(labels, result.high, result.low, text)
    return _id_series(text, (labels != kernel.NONE).astype(np.uint8))


def _id_series(text: U16 | U64, known: U8) -> pl.Series:
    offsets = np.arange(0, known.size * 32 + 1, 32, dtype=np.int64)
    return text_series(offsets, text.reshape(-1).view(np.uint8), known)


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
