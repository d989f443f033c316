"""identity/graph as a Parquet file: pages are written straight from numbers, by several threads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Condition
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from heap_assets.identity import kernel_pages, kernel_text
from heap_assets.identity.graph import slices
from heap_assets.identity.kernel import I64, U8, U32
from heap_assets.identity.shapes import GRAPH
from heap_assets.identity.threads import in_parts
from heap_assets.parquet import AS_IS, Chunk, Packer, Packing, ParquetFile, levels, varint

if TYPE_CHECKING:
    from heap_assets.identity.tables import Resolved

_ROWS: Final = 1 << 17
"""Rows of a row group: what a thread works on then stays in the processor's cache."""
_PACKED: Final = Packing("zstd", 1)
_HEAD: Final = 64
"""Room before the values of a page, for what says which rows have one: all have, or none."""
_SPARE: Final = 16
"""Room behind them: loops write eight bytes at a time."""


def write_graph(result: Resolved, path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write identity/graph, several times faster than its lazy frame would be.

    Types and profile ids are known by number already, so their dictionaries need not be found; times and ids are left
    as they are, since random bits do not compress. The footer tells of each row group between which profile ids it
    lies: a reader who looks for one passes over the others.
    """
    pieces = slices(result.profiles, _ROWS)
    with ParquetFile(path, GRAPH) as file:
        turn = _Turn()

        def work(part: int, parts: int) -> None:
            pages = _Pages(result)
            with turn.or_over():
                for number in range(part, len(pieces), parts):
                    rows, chunks = pages.of(pieces[number])
                    if not turn.comes(number):
                        return
                    file.append(rows, chunks)
                    turn.passes()

        in_parts(work)
        file.finish(metadata or {})


class _Turn:
    """Lets threads write one after the other, in the order of their row groups, until one of them fails."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._next = 0
        self._over = False

    def comes(self, number: int) -> bool:
        """Wait for a row group's turn; says that there will be none if another thread has failed."""
        with self._changed:
            self._changed.wait_for(lambda: self._over or self._next == number)
            return not self._over

    def passes(self) -> None:
        with self._changed:
            self._next += 1
            self._changed.notify_all()

    @contextmanager
    def or_over(self) -> Iterator[None]:
        """Tell the others of an error."""
        try:
            yield
        except BaseException:
            with self._changed:
                self._over = True
                self._changed.notify_all()
            raise


class _Pages:
    """Makes the columns of one row group after the other; memory is used again, so one must be written before the next.

    Memory that a process touches for the first time costs more than all that is done with it here.
    """

    def __init__(self, result: Resolved) -> None:
        self._result = result
        self._as_is, self._packed = Packer(AS_IS), Packer(_PACKED)
        self._memory: dict[str, Any] = {}
        types = [name.encode() for name in result.rules.types]
        self._types = b"".join(len(name).to_bytes(4, "little") + name for name in types)
        self._type_count = len(types)

    def of(self, places: U32) -> tuple[int, dict[str, Chunk]]:
        """Return how many rows some runs have, and their columns."""
        found, encoded = self._result.profiles, self._result.encoded
        rows = int((found.starts[places.astype(np.int64) + 1] - found.starts[places]).sum())
        nodes = self._room("nodes", rows, np.uint32)
        kinds, shared, seen = (self._room(name, rows, np.uint8) for name in ("kinds", "shared", "seen"))
        first, last, begins = (self._room(name, rows, np.int64) for name in ("first", "last", "begins"))
        offsets = self._room("offsets", rows + 1, np.int64)
        kernel_text.take_runs(places, found.starts, found.nodes, found.keys, nodes, kinds, shared)
        kernel_text.take_facts(nodes, encoded.facts, first, last, seen, begins, offsets)
        return rows, {
            "identifier_type": self._kinds(kinds),
            "identifier": self._texts(begins, offsets),
            "profile_id": self._ids(places, rows),
            "first_seen": self._times(first, seen & np.uint8(1)),
            "last_seen": self._times(last, seen >> np.uint8(1)),
            "shared": self._flags(shared),
        }

    def _room(self, name: str, size: int, dtype: Any) -> Any:
        kept = self._memory.get(name)
        if kept is None or kept.size < size:
            kept = self._memory[name] = np.empty(size + size // 8, dtype)
        return kept[:size]

    def _kinds(self, kinds: U8) -> Chunk:
        width = max(1, (self._type_count - 1).bit_length())
        groups = (kinds.size + 7) // 8
        head = levels(kinds.size, kinds.size, None) + bytes([width]) + varint(groups << 1 | 1)
        page = self._room("packed", groups * width, np.uint8)
        kernel_pages.pack(kinds, width, page)
        return self._packed.chunk(kinds.size, kinds.size, [head, page.data], self._types, self._type_count)

    def _texts(self, begins: I64, offsets: I64) -> Chunk:
        rows = begins.size
        page = self._room("texts", _HEAD + 4 * rows + int(offsets[-1]) + _SPARE, np.uint8)
        end = kernel_pages.write_texts(begins, offsets, self._result.encoded.texts.data, page, _HEAD)
        return self._packed.chunk(rows, rows, [_headed(page, levels(rows, rows, None), end)])

    def _ids(self, places: U32, rows: int) -> Chunk:
        found = self._result.profiles
        known = places[places < found.high.size]
        filled = int((found.starts[known.astype(np.int64) + 1] - found.starts[known]).sum())
        bits = None if filled == rows else np.packbits(np.arange(rows) < filled, bitorder="little")
        if not filled:
            return self._as_is.chunk(rows, 0, [levels(rows, 0, None)])
        ids = self._room("ids", known.size * kernel_pages.ID_BYTES, np.uint8)
        kernel_pages.write_ids(known, found.high, found.low, ids)
        width = max(1, (known.size - 1).bit_length())
        head = levels(rows, filled, bits) + bytes([width])
        page = self._room("runs", 16 * known.size + _SPARE, np.uint8)
        end = kernel_pages.write_runs(known, found.starts, (width + 7) // 8, page, 0)
        least, most = ids[4:36].tobytes(), ids[-32:].tobytes()
        return self._as_is.chunk(rows, filled, [head, page[:end].data], ids.data, known.size, least, most)

    def _times(self, values: I64, seen: U8) -> Chunk:
        rows, filled = values.size, int(np.count_nonzero(seen))
        bits = None if filled == rows else np.packbits(seen, bitorder="little")
        known = values if filled == rows else values[seen.view(np.bool_)]
        return self._as_is.chunk(rows, filled, [levels(rows, filled, bits), known.view(np.uint8).data])

    def _flags(self, flags: U8) -> Chunk:
        bits = np.packbits(flags, bitorder="little")
        return self._packed.chunk(flags.size, flags.size, [levels(flags.size, flags.size, None), bits.data])


def _headed(page: U8, head: bytes, end: int) -> memoryview:
    page[_HEAD - len(head) : _HEAD] = np.frombuffer(head, np.uint8)
    return page[_HEAD - len(head) : end].data
