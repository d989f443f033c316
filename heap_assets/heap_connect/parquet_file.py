"""Parquet files whose columns are encoded on several threads, one column after the other.

Before the footer lies an index of the chunks, for those who read a part's texts by number (see coded_parts).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, pairwise
from pathlib import Path

import polars as pl

from heap_assets.heap_connect.parquet_columns import Encoder, TextColumn
from heap_assets.parquet import KINDS, Chunk, Packing, ParquetFile

INDEX_MAGIC = b"HAI1"

_WORKERS = 2
_FEW_CELLS = 500_000  # threads cost more than they gain below


FOR_LATER = Packing("lz4_raw")
TO_KEEP = Packing("zstd", 1)


def edges_of(heights: Sequence[int], most: int) -> list[int]:
    """Return where row groups begin, and the number of all rows: none reaches across one of the heights' ends."""
    groups = [size for height in heights for size in _equal_parts(height, -(-height // most))]
    return list(accumulate(groups, initial=0))


def _equal_parts(height: int, count: int) -> list[int]:
    return [height * (i + 1) // count - height * i // count for i in range(count)]


def write_file(
    path: Path,
    schema: Mapping[str, pl.DataType],
    column: Callable[[str], TextColumn | pl.Series],
    edges: Sequence[int],
    packing: Packing,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write rows whose columns are asked for one after the other.

    Parameters
    ----------
    schema
        Of the rows; types as :func:`can_hold` takes them.
    column
        Gives a column; called on threads of its own.
    edges
        Where row groups begin, and the number of rows.
    metadata
        For the footer.
    """
    local = threading.local()

    def encoded(name: str) -> list[Chunk]:
        if not hasattr(local, "encoder"):
            local.encoder = Encoder(packing)
        values = column(name)
        return [local.encoder.encode(values, begin, end) for begin, end in pairwise(edges)]

    if edges[-1] * len(schema) < _FEW_CELLS:
        chunks = {name: encoded(name) for name in schema}
    else:
        with ThreadPoolExecutor(_WORKERS, thread_name_prefix="encode") as pool:
            chunks = dict(zip(schema, pool.map(encoded, schema), strict=True))
    heights = [end - begin for begin, end in pairwise(edges)]
    with ParquetFile(path, schema) as file:
        offsets = [
            file.append(height, {name: chunks[name][group] for name in schema}) for group, height in enumerate(heights)
        ]
        if packing == FOR_LATER:
            index = _index({name: KINDS[dtype] for name, dtype in schema.items()}, chunks, offsets, heights)
            file.insert(index + len(index).to_bytes(8, "little") + INDEX_MAGIC)
        file.finish(metadata or {})


def _index(
    kinds: Mapping[str, str],
    chunks: Mapping[str, Sequence[Chunk]],
    offsets: Sequence[Mapping[str, int]],
    heights: Sequence[int],
) -> bytes:
    columns = {
        name: [kind, [[offsets[group][name], *chunk.places] for group, chunk in enumerate(chunks[name])]]
        for name, kind in kinds.items()
    }
    return json.dumps({"rows": heights, "columns": columns}, separators=(",", ":")).encode()
