"""Encoding links of text as integers, in batches: memory grows with identifiers, and by 18 bytes per link."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from heap_assets.identity.engine.native import kernel, kernel_table
from heap_assets.identity.engine.native.kernel import I64, PADDING, PLACE, PLACE_SHIFT, U8, U16, U32, U64
from heap_assets.identity.engine.native.memory import Blocks, Growing, in_parts
from heap_assets.identity.engine.native.rows import Rows, RowTable
from heap_assets.identity.engine.native.texts import Texts, flat
from heap_assets.identity.rules import LinksError, MemoryLimitError, Rules
from heap_assets.identity.schemas import as_links
from heap_assets.machine import memory_left

_BATCH: Final = 1 << 17
_MORSEL: Final = 50_000
"""Rows of a morsel of Polars: more need more memory where reading is faster than encoding."""
_PIECE: Final = 1 << 14
"""Chunks of fewer rows, on average, are merged."""
_BACKLOG: Final = 12
_SEEDS: Final = (0x5EED, 0xFEED5EED)
_MAX_SOURCES: Final = 1 << 15
_SHARE: Final = 2
"""Encoded links may take 1/2 of the free memory: reading and the later steps need the rest."""
_FIRST_SIZE: Final = 1 << 12
_AHEAD: Final = 1 << 21
"""Numbers (8 bytes) that are prefaulted at a time, ahead of those in use; not for small graphs."""
_LARGE_SIZE: Final = 1 << 26
MOST_NUMBERS: Final = int(kernel.NONE)
"""Identifiers that 32 bits can number."""
SPILL: Final = 1 << 16
"""Slots beyond the size of a table; searches go there only if its last slots are crowded."""


@dataclass(frozen=True)
class LinkBatch:
    """Links by rank of their weaker end: bucket r is `starts[r]:starts[r + 1]`; `a` is the stronger end.

    `tag` is the number of the source times two, plus one if the link is authoritative.
    """

    a: U32
    b: U32
    first: I64
    tag: U16
    starts: I64

    @classmethod
    def of(
        cls, a: U32, b: U32, rank_a: U8, rank_b: U8, first: I64, tag: U16, types: int, room: Blocks
    ) -> LinkBatch:  # fmt: skip
        """Sort links into memory of `room`; sightings and links of a node to itself are left out."""
        weaker, is_flipped = np.maximum(rank_a, rank_b), rank_a > rank_b
        links = np.flatnonzero((b != kernel.NONE) & (a != b)).astype(np.uint32)
        order = links[np.argsort(weaker[links], kind="stable")]

        def sorted_by_rank(column: NDArray[Any]) -> NDArray[Any]:
            return column.take(order, out=room.take(order.size, column.dtype), mode="clip")

        strong, weak = np.where(is_flipped, b, a), np.where(is_flipped, a, b)
        starts = np.zeros(types + 1, np.int64)
        np.cumsum(np.bincount(weaker[links], minlength=types), out=starts[1:])
        a, b, first, tag = (sorted_by_rank(column) for column in (strong, weak, first, tag))
        return cls(a, b, first, tag, starts)

    def of_rank(self, rank: int) -> slice:
        return slice(int(self.starts[rank]), int(self.starts[rank + 1]))


@dataclass
class Encoded:
    """All identifiers as dense nodes, all links as pairs of them.

    Attributes
    ----------
    ranks
        Type of each node; 0 is the strongest.
    facts
        A row per node and one more; columns KEY, FIRST, LAST, PLACE of the kernel. NEVER and BEFORE without dates.
    slots, size
        The hash table of the nodes, see the kernel.
    batches
        All links; a link that was read several times may be repeated.
    rows
        All links and sightings, each once per source, with `keep_rows`.
    """

    ranks: U8
    facts: I64
    slots: U64
    size: int
    texts: Texts
    sources: list[str] = field(default_factory=list)
    batches: list[LinkBatch] = field(default_factory=list)
    rows: Rows = field(default_factory=Rows.none)

    @property
    def nodes(self) -> int:
        return self.ranks.size


def encode(links: pl.LazyFrame, rules: Rules, *, keep_rows: bool = False) -> Encoded:
    """Read links once, in a stream; `keep_rows` keeps them as rows too, so that changes can be folded into them.

    Raises LinksError if an end is null or empty, or of a type that the rules do not know.
    """
    encoder = _Encoder(rules, keep_rows=keep_rows)
    for batch in _batches(links, rules, encoder.sources):
        encoder.add(batch)
    return encoder.finished()


def _batches(links: pl.LazyFrame, rules: Rules, sources: pl.Categories) -> Iterator[pl.DataFrame]:
    kinds = pl.Enum(rules.types)
    absent = pl.lit(kernel.NO_TYPE, pl.UInt8)
    code_a, code_b = (
        pl.col(name).cast(kinds, strict=False).to_physical().cast(pl.UInt8).fill_null(absent)
        for name in ("type_a", "type_b")
    )
    sighting = pl.col("type_b").is_null()
    wrong = (
        (code_a == absent) | pl.col("value_a").is_null() | (pl.col("value_a") == "")
        | (sighting != pl.col("value_b").is_null()) | (~sighting & ((code_b == absent) | (pl.col("value_b") == "")))
    ).fill_null(False)  # fmt: skip
    prepared = as_links(links).select(
        "value_a", "value_b",
        pl.col("value_a").hash(_SEEDS[0]).alias("a1"), pl.col("value_a").hash(_SEEDS[1]).alias("a2"),
        pl.col("value_b").hash(_SEEDS[0]).alias("b1"), pl.col("value_b").hash(_SEEDS[1]).alias("b2"),
        *(pl.col(f"value_{end}").str.len_bytes().fill_null(0).alias(f"{end}_bytes") for end in ("a", "b")),
        code_a.alias("ta"), code_b.alias("tb"),
        pl.col("first_seen").to_physical().fill_null(kernel.NEVER).alias("first"),
        pl.col("last_seen").to_physical().fill_null(kernel.BEFORE).alias("last"),
        (
            pl.col("source").fill_null("").cast(pl.Categorical(sources)).to_physical().cast(pl.UInt16) * 2
            + pl.col("authoritative").fill_null(False).cast(pl.UInt16)
        ).alias("tag"),
        wrong.alias("wrong"),
    )  # fmt: skip
    with pl.Config(streaming_chunk_size=_MORSEL):
        for batch in prepared.collect_batches(chunk_size=_BATCH, maintain_order=False, engine="streaming"):
            if batch["wrong"].any():
                raise _wrong(links, rules, int(batch["wrong"].sum()))
            yield from _pieces(batch)


def _pieces(batch: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Split a batch at its chunks if these are large: merging them would copy them."""
    sizes = batch["value_a"].chunk_lengths()
    if batch.height < _PIECE * len(sizes):
        sizes = [batch.height]
    for begin, size in zip(accumulate(sizes, initial=0), sizes, strict=False):
        yield batch.slice(begin, size).rechunk()


def _wrong(links: pl.LazyFrame, rules: Rules, rows: int) -> LinksError:
    """Return what is wrong with links; reads types a second time, since few links are ever wrong."""
    types = pl.concat([links.select(pl.col(name).alias("type")) for name in ("type_a", "type_b")])
    unknown = types.filter(~pl.col("type").is_in(list(rules.types))).unique().collect()["type"].sort().to_list()
    if unknown:
        return LinksError(
            f"links name identifier types that the rules do not know: {', '.join(map(repr, unknown[:5]))}; "
            f"known are {', '.join(rules.types)}"
        )
    return LinksError(
        f"{rows} links have an end with a null or empty type or value: links come from extract(), which "
        "refuses such values and counts them; a sighting has both type_b and value_b null"
    )


class _Encoder:
    """Grows with every batch; a second thread, a batch behind, does all that does not assign dense ids."""

    def __init__(self, rules: Rules, *, keep_rows: bool) -> None:
        self.types = len(rules.types)
        self.sources = pl.Categories.random("heap_assets_sources", pl.UInt16)
        # Polars drops the names once no series of the categories is left
        self.names = pl.Series(dtype=pl.Categorical(self.sources))
        self.known = 0
        self.prefaulted = {"facts": 0, "slots": 0}
        self.most_bytes = memory_left() // _SHARE
        self.facts_room = Growing(np.int64, 4 * _FIRST_SIZE)
        self.ranks_room = Growing(np.uint8, _FIRST_SIZE)
        self.data_room = Growing(np.uint8, _FIRST_SIZE)
        self.size = _FIRST_SIZE
        self.slots_room = Growing(np.uint64, self.size + SPILL)
        self.rows = RowTable() if keep_rows else None
        self.batches: list[LinkBatch] = []
        self.blocks = Blocks()
        self.worker = ThreadPoolExecutor(1)
        self.pending: deque[Future[None]] = deque()
        self.rooms: deque[U32] = deque()

    def add(self, batch: pl.DataFrame) -> None:
        if batch.height == 0:
            return
        first, last = batch["first"].to_numpy(), batch["last"].to_numpy()
        # room for the nodes and fresh rows of both ends, of a finished batch if there is one
        room = self.rooms.popleft() if self.rooms else np.empty((4, 0), np.uint32)
        if room.shape[1] < batch.height:
            room = np.empty((4, batch.height), np.uint32)
        a, b = (
            self._encoded(batch, end, first, last, ids[: batch.height], fresh)
            for end, ids, fresh in (("a", room[0], room[1]), ("b", room[2], room[3]))
        )
        self._submit(self._link, batch, a, b, room)

    def _encoded(self, batch: pl.DataFrame, end: str, first: I64, last: I64, ids: U32, fresh: U32) -> U32:
        lengths = batch[f"{end}_bytes"]
        self._make_room(batch.height, int(lengths.sum()))
        before = self.known
        self.known = kernel_table.encode(
            batch[f"{end}1"].to_numpy(), batch[f"{end}2"].to_numpy(), lengths.to_numpy(), batch[f"t{end}"].to_numpy(),
            first, last, self.slots_room.array, self.size, self.facts, self.ranks_room.array, before, ids, fresh,
        )  # fmt: skip
        self._submit(self._copy, batch[f"value_{end}"], fresh[: self.known - before], self._text_end(before))
        return ids

    @property
    def facts(self) -> I64:
        return self.facts_room.array.reshape(-1, 4)

    def _text_end(self, nodes: int) -> int:
        return int(self.facts[nodes, PLACE] >> PLACE_SHIFT)

    def _submit(self, work: Callable[..., None], *arguments: Any) -> None:
        self.pending.append(self.worker.submit(work, *arguments))
        while len(self.pending) > _BACKLOG:
            self.pending.popleft().result()

    def _copy(self, values: pl.Series, rows: U32, at: int) -> None:
        text = flat(values.gather(rows))
        self.data_room.array[at : at + text.size] = text

    def _link(self, batch: pl.DataFrame, a: U32, b: U32, room: U32) -> None:
        first, last, tag = (batch[name].to_numpy() for name in ("first", "last", "tag"))
        if self.rows is not None:
            self.rows.add(a, b, first, last, tag)
        else:
            ranks = (batch["ta"].to_numpy(), batch["tb"].to_numpy())
            self.batches.append(LinkBatch.of(a, b, *ranks, first, tag, self.types, self.blocks))
        self.rooms.append(room)

    def _make_room(self, nodes: int, text: int) -> None:
        """Grow for so many more identifiers and bytes of text.

        Raises MemoryLimitError if they do not fit into the memory that this process may use, or 32 bits do not number
        them.
        """
        if self.known + nodes > MOST_NUMBERS:
            raise MemoryLimitError(
                f"links name more than {self.known} identifiers, and this engine numbers {MOST_NUMBERS} at most: "
                "resolve them on Spark (identity.engine: {spark: …})"
            )
        used = self._text_end(self.known)
        rows = self.blocks.nbytes if self.rows is None else self.rows.nbytes
        if self.known * 33 + self.size * 8 + used + rows > self.most_bytes:
            raise self._too_many()
        if self.known > self.size * 13 // 20:  # it will grow at fourteen
            self._grow(self.slots_room, _next_size(self.size) + SPILL)
            self._prefault("slots", self.size, _next_size(self.size))
        size = grown(self.size, self.known + nodes)
        if size > self.size:
            self._grow(self.slots_room, size + SPILL)
            kernel_table.rehash(self.slots_room.array, self.size, size)
            self.size = size
        self._grow(self.facts_room, (self.known + nodes + 1) * 4 + 2 * _AHEAD)
        self._grow(self.ranks_room, self.known + nodes)
        self._grow(self.data_room, used + text + PADDING)
        self._prefault("facts", 0, self.known * 4 + _AHEAD)

    def _too_many(self) -> MemoryLimitError:
        return MemoryLimitError(
            f"links name more than {self.known} identifiers: what is kept of them would take more than "
            f"{self.most_bytes // 1_000_000} MB, 1/{_SHARE} of the memory that was left to this process: give it more"
        )

    def _grow(self, room: Growing, size: int) -> None:
        if size <= room.size:
            return
        self._drain()  # the other thread may hold no array that moves
        try:
            room.grow(size)
        except MemoryError as error:
            raise self._too_many() from error

    def _drain(self) -> None:
        while self.pending:
            self.pending.popleft().result()

    def _prefault(self, name: str, begin: int, end: int) -> None:
        begin = max(begin, self.prefaulted[name])
        room = self.facts_room if name == "facts" else self.slots_room
        if end >= 2 * _AHEAD and begin < end and begin + _AHEAD <= room.size:
            # the array is looked up by the other thread: until it is done, nothing grows
            self._submit(lambda: kernel_table.prefault(room.array, begin, begin + _AHEAD))
            self.prefaulted[name] = begin + _AHEAD

    def finished(self) -> Encoded:
        self._drain()
        self.worker.shutdown()
        names = self.sources.to_series().to_list() if self.known else []
        if len(names) >= _MAX_SOURCES:
            raise LinksError(f"links name {len(names)} sources, expected fewer than {_MAX_SOURCES}: one per table")
        facts, ranks = self.facts[: self.known + 1], self.ranks_room.array[: self.known]
        texts = Texts(facts, self.data_room.array)
        slots = self.slots_room.array[: self.size + SPILL]
        rows = Rows.none() if self.rows is None else self.rows.rows
        batches = self.batches if self.rows is None else _batches_of(rows, ranks, self.types)
        return Encoded(ranks, facts, slots, self.size, texts, names, batches, rows)


def _batches_of(rows: Rows, ranks: U8, types: int) -> list[LinkBatch]:
    """Sort the links among some rows; `ranks` are those of all nodes."""

    def work(worker: int, workers: int) -> list[LinkBatch]:
        room = Blocks()
        return [
            LinkBatch.of(
                part.a, part.b, ranks.take(part.a), ranks.take(part.b, mode="clip"), part.first, part.tag, types, room
            )
            for part in (rows[at : at + _BATCH] for at in range(worker * _BATCH, rows.a.size, workers * _BATCH))
        ]

    return [batch for batches in in_parts(work) for batch in batches]


def grown(size: int, nodes: int) -> int:
    """Return the size of a table for some nodes: at most seven tenths full, in small steps if it is large."""
    while nodes > size * 7 // 10:
        size = _next_size(size)
    return size


def _next_size(size: int) -> int:
    return size * 2 if size < _LARGE_SIZE else size * 7 // 5
