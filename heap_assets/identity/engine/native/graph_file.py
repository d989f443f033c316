"""identity/graph as a Parquet file, written by pyarrow from the dictionaries that the engine has already."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from heap_assets.identity.engine.native.graph import SCHEMA, ahead, batch, slices

if TYPE_CHECKING:
    from heap_assets.identity.engine.native.tables import Resolved

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
