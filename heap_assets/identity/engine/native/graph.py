"""identity/graph from resolved arrays: slices of profiles become Arrow buffers, for a lazy frame or for a file."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from polars.io.plugins import register_io_source

from heap_assets.identity.engine.native import kernel, texts
from heap_assets.identity.engine.native.ids import Profiles
from heap_assets.identity.engine.native.kernel import I32, I64, U8, U32, U64
from heap_assets.identity.engine.native.texts import text_series
from heap_assets.identity.shapes import GRAPH, TIME

if TYPE_CHECKING:
    from heap_assets.identity.engine.native.tables import Resolved


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


def graph_table(result: Resolved) -> pl.LazyFrame:
    """Return identity/graph as a stream."""

    def source(
        columns: list[str] | None, predicate: pl.Expr | None, rows: int | None, _batch: int | None
    ) -> Iterator[pl.DataFrame]:
        left = result.identifiers if rows is None else rows
        for piece in ahead(partial(batch, result), slices(result.profiles, _SLICE)):
            frame = _frame(piece, columns or GRAPH.names()).head(left)
            yield frame if predicate is None else frame.filter(predicate)
            left -= piece.num_rows
            if left <= 0:
                return

    return register_io_source(source, schema=GRAPH)


def _frame(piece: pa.RecordBatch, columns: list[str]) -> pl.DataFrame:
    arrays = {name: piece.column(name) for name in columns}
    plain = {
        name: array.dictionary_decode() if pa.types.is_dictionary(array.type) else array
        for name, array in arrays.items()
    }
    return pl.DataFrame({name: pl.Series(name, array, GRAPH[name]) for name, array in plain.items()})


def slices(found: Profiles, rows: int) -> list[U32]:
    """Cut the order of runs into pieces of about `rows` rows; the run of no profile comes last."""
    order = np.append(found.order, np.uint32(found.high.size))
    cuts = np.empty(order.size + 1, np.int64)
    used = texts.cut_runs(order, found.starts, rows, cuts)
    return [order[begin:end] for begin, end in pairwise(cuts[:used])]


def ahead(make: Callable[[U32], pa.RecordBatch], pieces: list[U32]) -> Iterator[pa.RecordBatch]:
    """Make batches in order, two of them while another one is used."""
    with ThreadPoolExecutor(2) as pool:
        waiting: deque[Future[pa.RecordBatch]] = deque()
        for piece in pieces:
            waiting.append(pool.submit(make, piece))
            if len(waiting) > 2:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def batch(result: Resolved, places: U32) -> pa.RecordBatch:
    """Return the rows of some runs, in the shape of :data:`SCHEMA`."""
    found, facts = result.profiles, result.encoded.facts
    nobody = found.high.size
    sizes = found.starts[places.astype(np.int64) + 1] - found.starts[places]
    rows = int(sizes.sum())
    nodes = np.empty(rows, np.uint32)
    kinds, shared, seen = (np.empty(rows, np.uint8) for _ in range(3))
    texts.take_runs(places, found.starts, found.nodes, found.keys, nodes, kinds, shared)
    known = places < nobody
    owners = np.repeat(np.where(known, np.arange(places.size), 0).astype(np.int32), sizes)
    first, last = np.empty(rows, np.int64), np.empty(rows, np.int64)
    begins, offsets = np.empty(rows, np.int64), np.empty(rows + 1, np.int64)
    texts.take_facts(nodes, facts, first, last, seen, begins, offsets)
    text = np.empty(int(offsets[-1]) + kernel.PADDING, np.uint8)
    texts.take_text(begins, result.encoded.texts.data, offsets, text)
    types = pa.array(result.rules.types, pa.string())
    ids = _hexadecimal(found.high, found.low, places[known])
    columns = [
        pa.DictionaryArray.from_arrays(pa.array(kinds.view(np.int8)), types),
        pa.Array.from_buffers(pa.large_string(), rows, [None, pa.py_buffer(offsets), pa.py_buffer(text)]),
        pa.DictionaryArray.from_arrays(_masked(pa.int32(), owners, np.repeat(known, sizes).astype(np.uint8)), ids),
        _masked(pa.timestamp("us", "UTC"), first, seen & np.uint8(1)),
        _masked(pa.timestamp("us", "UTC"), last, seen >> np.uint8(1)),
        pa.Array.from_buffers(pa.bool_(), rows, [None, _bits(shared)]),
    ]
    return pa.record_batch(columns, schema=SCHEMA)


def _masked(kind: pa.DataType, values: I32 | I64, valid: U8) -> pa.Array:
    bitmap = None if valid.all() else _bits(valid)
    return pa.Array.from_buffers(kind, values.size, [bitmap, pa.py_buffer(values)])


def _bits(flags: U8) -> pa.Buffer:
    return pa.py_buffer(np.packbits(flags, bitorder="little"))


def _hexadecimal(high: U64, low: U64, numbers: U32) -> pa.Array:
    text = np.empty((numbers.size, 4), np.uint64)
    texts.hexadecimal(numbers, high, low, text)
    offsets = np.arange(0, numbers.size * 32 + 1, 32, dtype=np.int32)
    return pa.Array.from_buffers(pa.string(), numbers.size, [None, pa.py_buffer(offsets), pa.py_buffer(text)])


def profile_ids(result: Resolved, nodes: U32) -> pl.Series:
    """Return the profile ids of some nodes as text, null for those of no profile."""
    labels = result.clusters.labels[nodes]
    text = np.zeros((nodes.size, 4), np.uint64)
    texts.hexadecimal(labels, result.high, result.low, text)
    offsets = np.arange(0, nodes.size * 32 + 1, 32, dtype=np.int64)
    return text_series(offsets, text.reshape(-1).view(np.uint8), (labels != kernel.NONE).astype(np.uint8))


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
    """Write identity/graph, in less time than its lazy frame would be: ids are dictionaries already.

    The footer tells of each row group between which profile ids it lies: a reader who looks for one passes over the
    others. If something fails there is no file.
    """
    pieces = slices(result.profiles, _ROWS)
    try:
        with pq.ParquetWriter(path, SCHEMA, **_OPTIONS) as file:
            for made in ahead(partial(batch, result), pieces):
                file.write_table(pa.Table.from_batches([made]))
            file.add_key_value_metadata(dict(metadata or {}))
    except BaseException:
        path.unlink(missing_ok=True)  # pyarrow finishes a file even then
        raise
