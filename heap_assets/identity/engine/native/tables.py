"""Resolution as arrays, and the tables made of them, in an order that depends on the content only.

Of identity/graph, slices of profiles become Arrow buffers, for a lazy frame or for a file.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from polars.io.plugins import register_io_source

from heap_assets.identity.engine.native import kernel, texts
from heap_assets.identity.engine.native.apart import ApartNodes, apart_nodes
from heap_assets.identity.engine.native.encode import Encoded, encode
from heap_assets.identity.engine.native.ids import Profiles, profiles, with_ids
from heap_assets.identity.engine.native.kernel import I32, I64, U8, U32, U64
from heap_assets.identity.engine.native.ordered import Clusters, clusters
from heap_assets.identity.engine.native.shared import Components, components
from heap_assets.identity.engine.native.texts import text_series
from heap_assets.identity.rules import Rules
from heap_assets.identity.schemas import CONFLICTS, GRAPH
from heap_assets.values import TIME

_SLICE: Final = 1 << 18
"""Rows of a batch of the stream."""

SCHEMA: Final = pa.schema(
    [
        ("identifier_type", pa.dictionary(pa.int8(), pa.string())),
        ("identifier", pa.large_string()),
        ("profile_id", pa.dictionary(pa.int32(), pa.string())),
        ("first_seen", pa.timestamp("us", "UTC")),
        ("last_seen", pa.timestamp("us", "UTC")),
        ("shared", pa.bool_()),
    ]
)


@dataclass(frozen=True)
class Resolved:
    """A resolution as arrays.

    Attributes
    ----------
    high, low
        The two halves of each cluster's id.
    laid_out
        Of a new resolution; one from a stored state is laid out on first access.
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
        """The number of identifiers."""
        return int(np.count_nonzero(self.encoded.ranks != kernel.NO_TYPE))

    @cached_property
    def profiles(self) -> Profiles:
        """Clusters as runs of nodes, and their ids."""
        if self.laid_out is not None:
            return self.laid_out
        return with_ids(self.encoded, self.clusters.labels, self.high, self.low, self.components.shared)


def resolved(links: pl.LazyFrame, rules: Rules, *, everywhere: bool = False, keep_rows: bool = False) -> Resolved:
    """Resolve links; `everywhere` as in :func:`clusters`, `keep_rows` as in :func:`encode`."""
    encoded = encode(links, rules, keep_rows=keep_rows)
    apart = apart_nodes(encoded, rules)
    if not keep_rows:
        encoded.slots, encoded.size = np.zeros(1, np.uint64), 0  # the hash table is only needed to fold changes
    return decided(encoded, rules, apart, everywhere=everywhere, keep_links=keep_rows)


def decided(
    encoded: Encoded, rules: Rules, apart: ApartNodes, *, everywhere: bool = False, keep_links: bool = False
) -> Resolved:
    """Apply rules 4 to 7 to encoded links, and what people keep apart."""
    connected = components(encoded, rules)
    split = clusters(encoded, connected, rules, apart, everywhere=everywhere)
    if not keep_links:
        encoded.batches.clear()  # a quarter of all memory, before text is copied
    laid_out = profiles(encoded, split.labels, split.count, connected.shared, rules)
    return Resolved(rules, encoded, connected, split, laid_out.high, laid_out.low, laid_out)


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
            "decision": refused["decision"],
            "_a": encoded.ranks[a],
            "_b": encoded.ranks[b],
        }
    )
    return table.sort("_a", "value_a", "_b", "value_b").select(
        pl.col(name).cast(kind) for name, kind in CONFLICTS.items()
    )


def graph_table(result: Resolved) -> pl.LazyFrame:
    """Return identity/graph as a stream."""

    def source(
        columns: list[str] | None, predicate: pl.Expr | None, rows: int | None, _batch: int | None
    ) -> Iterator[pl.DataFrame]:
        remaining = result.identifiers if rows is None else rows
        for piece in prefetched(partial(batch, result), slices(result.profiles, _SLICE)):
            frame = _frame(piece, columns or GRAPH.names()).head(remaining)
            yield frame if predicate is None else frame.filter(predicate)
            remaining -= piece.num_rows
            if remaining <= 0:
                return

    return register_io_source(source, schema=GRAPH)


def _frame(piece: pa.RecordBatch, columns: list[str]) -> pl.DataFrame:
    arrays = {name: piece.column(name) for name in columns}
    plain = {
        name: array.dictionary_decode() if pa.types.is_dictionary(array.type) else array
        for name, array in arrays.items()
    }
    return pl.DataFrame({name: pl.Series(name, array, GRAPH[name]) for name, array in plain.items()})


def slices(laid_out: Profiles, rows: int) -> list[U32]:
    """Split the order of runs into pieces of at least `rows` rows; the run of no profile comes last."""
    order = np.append(laid_out.order, np.uint32(laid_out.high.size))
    ends = np.cumsum(laid_out.starts[order.astype(np.int64) + 1] - laid_out.starts[order])
    cuts = [0]
    while cuts[-1] < order.size:
        before = ends[cuts[-1] - 1] if cuts[-1] else 0
        cuts.append(min(int(np.searchsorted(ends, before + rows)) + 1, order.size))
    return [order[begin:end] for begin, end in pairwise(cuts) if ends[end - 1] > (ends[begin - 1] if begin else 0)]


def prefetched(make: Callable[[U32], pa.RecordBatch], pieces: list[U32]) -> Iterator[pa.RecordBatch]:
    """Make batches in order, two of them ahead."""
    with ThreadPoolExecutor(2) as pool:
        waiting: deque[Future[pa.RecordBatch]] = deque()
        for piece in pieces:
            waiting.append(pool.submit(make, piece))
            if len(waiting) > 2:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def batch(result: Resolved, places: U32) -> pa.RecordBatch:
    """Return the rows of some runs, with :data:`SCHEMA`."""
    runs, encoded = result.profiles, result.encoded
    begins = runs.starts[places]
    sizes = runs.starts[places.astype(np.int64) + 1] - begins
    rows = int(sizes.sum())
    at = np.arange(rows) + np.repeat(begins - (np.cumsum(sizes) - sizes), sizes)
    nodes, keys = runs.nodes[at], runs.keys[at]
    owned = places < runs.high.size
    owners = np.repeat(np.where(owned, np.arange(places.size), 0).astype(np.int32), sizes)
    first, last, offsets, text = encoded.texts.with_times(nodes)
    numbers = places[owned]
    ends = np.arange(0, numbers.size * 32 + 1, 32, dtype=np.int32)
    digits = pa.py_buffer(texts.hexadecimal(runs.high[numbers], runs.low[numbers]))
    ids = pa.Array.from_buffers(pa.string(), numbers.size, [None, pa.py_buffer(ends), digits])
    shared = (keys >> np.uint64(56) & np.uint64(1)).astype(np.uint8)
    columns = [
        texts.dictionary((keys >> np.uint64(57)).astype(np.uint8), result.rules.types),
        pa.Array.from_buffers(pa.large_string(), rows, [None, pa.py_buffer(offsets), pa.py_buffer(text)]),
        pa.DictionaryArray.from_arrays(_masked(pa.int32(), owners, np.repeat(owned, sizes).astype(np.uint8)), ids),
        _masked(pa.timestamp("us", "UTC"), first, (first != kernel.NEVER).astype(np.uint8)),
        _masked(pa.timestamp("us", "UTC"), last, (last != kernel.BEFORE).astype(np.uint8)),
        pa.Array.from_buffers(pa.bool_(), rows, [None, _bits(shared)]),
    ]
    return pa.record_batch(columns, schema=SCHEMA)


def _masked(kind: pa.DataType, values: I32 | I64, valid: U8) -> pa.Array:
    bitmap = None if valid.all() else _bits(valid)
    return pa.Array.from_buffers(kind, values.size, [bitmap, pa.py_buffer(values)])


def _bits(flags: U8) -> pa.Buffer:
    return pa.py_buffer(np.packbits(flags, bitorder="little"))


def profile_ids(result: Resolved, nodes: U32) -> pl.Series:
    """Return the profile ids of some nodes as text, null for those of no profile."""
    labels = result.clusters.labels[nodes]
    owned = labels != kernel.NONE
    ids = np.zeros((2, nodes.size), np.uint64)
    ids[:, owned] = result.high[labels[owned]], result.low[labels[owned]]
    offsets = np.arange(0, nodes.size * 32 + 1, 32, dtype=np.int64)
    return text_series(offsets, texts.hexadecimal(*ids), owned.astype(np.uint8))


def times(values: I64, none: int) -> pl.Series:
    """Make times of microseconds, null where they are `none`."""
    series = pl.Series(values)
    return pl.select(pl.when(series != none).then(series)).to_series().cast(TIME)


_ROWS: Final = 1 << 17
"""Rows of a row group: what a thread works on then stays in the processor's cache."""
_OPTIONS: Final[Mapping[str, Any]] = {
    # times and ids are left as they are: random bits do not compress
    "compression": {
        "identifier": "zstd", "identifier_type": "zstd", "shared": "zstd",
        "profile_id": "none", "first_seen": "none", "last_seen": "none",
    },
    "compression_level": {"identifier": 1, "identifier_type": 1, "shared": 1},
    "use_dictionary": ["identifier_type", "profile_id"],
    "dictionary_pagesize_limit": 1 << 30,
    "write_statistics": ["profile_id"],
    # readers get plain text, not dictionaries
    "store_schema": False,
}  # fmt: skip


def write_graph(result: Resolved, path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write identity/graph, faster than from its lazy frame: ids are dictionaries already.

    The footer has the smallest and largest profile id of each row group, so that readers skip groups. If something
    fails there is no file.
    """
    pieces = slices(result.profiles, _ROWS)
    try:
        with pq.ParquetWriter(path, SCHEMA, **_OPTIONS) as file:
            for record_batch in prefetched(partial(batch, result), pieces):
                file.write_table(pa.Table.from_batches([record_batch]))
            file.add_key_value_metadata(dict(metadata or {}))
    except BaseException:
        path.unlink(missing_ok=True)  # pyarrow finishes a file even then
        raise
