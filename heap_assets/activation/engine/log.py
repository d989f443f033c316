"""The append-only log of a sync: intents before a call, outcomes after it, notes from people.

Segments are immutable Parquet objects `_sync/<sync>/log/<fence>-<sequence>-<kind>.parquet`. The fencing number of the
writer comes first in the name, so that what a writer says after it lost its lease sorts before its successor.
"""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import polars as pl

from heap_assets.activation.engine.batches import batches
from heap_assets.activation.engine.hashing import UNKNOWN
from heap_assets.errors import DamagedFileError, DeliveryError
from heap_assets.storage import Store, from_parquet, is_whole, side_by_side, state_keys, to_parquet

FIELD = "p:"
"""Prefix of the columns that hold one keyed hash per property: null = nothing of ours, 0 = empty, 1 = unknown."""

INTENT_SCHEMA = pl.Schema(
    {
        "batch": pl.String(),
        "row": pl.UInt32(),
        "key": pl.String(),
        "op": pl.String(),
        "day": pl.Date(),
        "mapping": pl.String(),
        "row_hash": pl.UInt64(),
        "failures": pl.UInt32(),
        "run_id": pl.String(),
        "fence": pl.Int64(),
        "at": pl.Datetime("us", "UTC"),
    }
)
OUTCOME_SCHEMA = pl.Schema(
    {
        "batch": pl.String(),
        "row": pl.UInt32(),
        "status": pl.String(),
        "http_status": pl.Int32(),
        "reason": pl.String(),
        "attempt": pl.UInt32(),
        "answered_at": pl.Datetime("us", "UTC"),
    }
)
FOUND_SCHEMA = pl.Schema({"until": pl.Datetime("us", "UTC"), "remote_id": pl.String()})
"""What outcomes and the ledger have besides where a destination says it: when a deferred row may be sent, and the id of
a row's record there."""
LEDGER_SCHEMA = pl.Schema(
    {
        "key": pl.String(),
        "day": pl.Date(),
        "mapping": pl.String(),
        "status": pl.String(),
        "acknowledged_at": pl.Datetime("us", "UTC"),
        "failures": pl.UInt32(),
        "failed_hash": pl.UInt64(),
        "failed_fence": pl.Int64(),
        "failed_at": pl.Datetime("us", "UTC"),
        "reason": pl.String(),
    }
)
REFUSED = ("rejected", "invalid", "no_match", "deferred")
"""Statuses of rows that the destination did not take."""
_LOG = logging.getLogger(__name__)
_FOOTER = "heap_assets_log"
_BASE = "base"
_FENCE_DIGITS = 10
_SMALL, _MERGED = 100, 200
"""A frame of few rows takes several times the memory of its bytes: it is kept as such, and so many are made one."""
_GROUP_ROWS = 25_000
"""Rows of a row group of a ledger of many, so that it is read in small pieces."""
_READ_BYTES = 1 << 20
"""A stored state of so many bytes is read at once."""
_OWN_ROWS = 20_000
"""So many rows of the segments that this writer wrote are kept, so that they need not be read to be folded."""
_PART_ROWS = 20_000
"""About so many rows of the log are folded at a time, so that memory does not grow with what a run sent."""


@dataclass(frozen=True)
class Snapshot:
    """A folded state."""

    frame: pl.DataFrame
    folded: frozenset[str] = frozenset()
    """Names of the segments it contains that may still exist."""
    through: str = ""
    """The newest segment it ever contained."""
    base: str = ""
    """Name of the base it was built upon."""


@dataclass(frozen=True)
class Stored:
    """A stored state whose rows are read when they are needed.

    `rows`: a frame if they are few, else a scan; `count`: how many. The others are as in :class:`Snapshot`.
    """

    rows: pl.DataFrame | pl.LazyFrame
    count: int
    folded: frozenset[str]
    through: str
    base: str

    @classmethod
    def of(cls, state: Snapshot) -> Stored:
        """Return a state that was read."""
        return cls(state.frame, len(state.frame), state.folded, state.through, state.base)

    @property
    def empty(self) -> pl.DataFrame:
        """A frame without rows that has the columns."""
        return pl.DataFrame(schema=self.rows.lazy().collect_schema())

    def frame(self) -> pl.DataFrame:
        """Return all rows."""
        return self.rows.lazy().collect()

    def batches(self, rows: int) -> Iterator[pl.DataFrame]:
        """Yield the rows in their order, so many at a time."""
        if isinstance(self.rows, pl.DataFrame):
            return self.rows.iter_slices(rows)
        return batches(self.rows, rows, self.count)


_S = TypeVar("_S", Snapshot, Stored)


class Log:
    """The log of one sync. Reading needs nothing; writing needs the fencing number of a lease."""

    def __init__(self, store: Store, sync: str, fence: int = 0) -> None:
        self.store = store
        self.root = f"{state_keys.SYNC}/{sync}"
        self.fence = fence
        self._sequence = 0
        self._lock = threading.Lock()
        self._own: dict[str, pl.DataFrame | bytes] = {}
        self._written: list[str] = []
        self._own_rows = 0

    def batch(self) -> str:
        """Draw the next batch id; ids sort in the order in which they were drawn."""
        with self._lock:
            self._sequence += 1
            return f"{self.fence:010d}-{self._sequence:08d}"

    def append(self, batch: str, kind: str, frame: pl.DataFrame) -> None:
        """Write one segment. A segment is never replaced.

        Raises DeliveryError if a segment of that name exists: then two writers share a fencing number.
        """
        data = to_parquet(frame, compression="lz4", statistics=False)  # small and often: speed counts
        if not self.store.create(f"{self.root}/log/{batch}-{kind}.parquet", data):
            raise DeliveryError(f"{self.root}/log: segment {batch}-{kind} exists already; two writers are at work")
        with self._lock:
            self._written.append(f"{batch}-{kind}.parquet")
            if self._own_rows + len(frame) <= _OWN_ROWS:
                self._own[f"{batch}-{kind}.parquet"] = frame if len(frame) >= _SMALL else data
                self._own_rows += len(frame)

    def segments(self) -> list[str]:
        """Return the names of all segments, in order, bases left out."""
        names = [info.key.rsplit("/", 1)[-1] for info in self.store.list(f"{self.root}/log")]
        return [name for name in names if not name.endswith(f"-{_BASE}.parquet")]

    def own_segments(self) -> list[str]:
        """Return the names of the segments that this writer wrote, in order, bases left out."""
        return sorted(self._written)

    def base(self) -> Snapshot:
        """Return the newest compacted state, empty if the log was never compacted."""
        name = self._newest_base()
        return self._snapshot(f"{self.root}/log/{name}", name) if name else Snapshot(pl.DataFrame(schema=LEDGER_SCHEMA))

    def ledger(self) -> Snapshot:
        """Return the stored ledger; the base if there is no ledger built upon it."""
        return self._current(self._snapshot) or self.base()

    def stored(self, scratch: Path) -> Stored:
        """Return what :meth:`ledger` does, its rows unread if they are many.

        `scratch`: a folder for a copy of what an object store holds.
        """

        def opened(key: str) -> Stored:
            info = self.store.head(key)
            if info is None or info.size <= _READ_BYTES:
                return Stored.of(self._snapshot(key))
            file = self.store.fetched(key, scratch / "stored")
            if not is_whole(file):
                raise self._damaged(key, ValueError())
            return self._opened(key, file)

        return self._current(opened) or Stored.of(self.base())

    def _current(self, read: Callable[[str], _S]) -> _S | None:
        key = f"{self.root}/ledger.parquet"
        if self.store.exists(key):
            try:
                stored = read(key)
            except DamagedFileError as error:
                _LOG.warning("%s; it is made anew from the log", error)
                return None
            if stored.base == self._newest_base():
                return stored
        return None

    def save(self, state: Snapshot, compact_after: int, rows: pl.LazyFrame | None = None) -> Snapshot:
        """Store the ledger; fold the log into a new base first if it has grown beyond `compact_after` segments.

        `rows`: those of the state, if they are not in memory.
        """
        existing = self.segments()
        state = replace(state, folded=state.folded & set(existing))
        compacting = len(state.folded) > compact_after
        if compacting:
            name = f"{self.batch()}-{_BASE}.parquet"
            self._write_snapshot(f"{self.root}/log/{name}", replace(state, base=name), rows)
            state = replace(state, base=name)
        self._write_snapshot(f"{self.root}/ledger.parquet", state, rows)
        if compacting:
            self._remove_before(state)
        return state

    def _remove_before(self, state: Snapshot) -> None:
        bases = [i.key for i in self.store.list(f"{self.root}/log") if i.key.endswith(f"-{_BASE}.parquet")]
        # A base that sorts later is that of a writer who took over meanwhile: it is kept.
        older = [base for base in bases if base < f"{self.root}/log/{state.base}"]
        obsolete = older + [f"{self.root}/log/{n}" for n in state.folded]
        list(side_by_side(self.store, self.store.delete, obsolete))

    def _newest_base(self) -> str:
        names = [i.key.rsplit("/", 1)[-1] for i in self.store.list(f"{self.root}/log") if f"-{_BASE}." in i.key]
        return names[-1] if names else ""

    def _snapshot(self, key: str, base: str = "") -> Snapshot:
        data = self.store.read(key)
        try:
            frame = from_parquet(data)
            facts = json.loads(pl.read_parquet_metadata(io.BytesIO(data))[_FOOTER])
            return Snapshot(frame, frozenset(facts["folded"]), facts["through"], base or facts["base"])
        except (KeyError, TypeError, ValueError) as error:
            raise self._damaged(key, error) from error

    def _opened(self, key: str, file: Path) -> Stored:
        try:
            facts = json.loads(pl.read_parquet_metadata(file)[_FOOTER])
            rows = pl.scan_parquet(file)
            count = int(rows.select(pl.len()).collect().item())
            return Stored(rows, count, frozenset(facts["folded"]), facts["through"], facts["base"])
        except (KeyError, TypeError, ValueError, pl.exceptions.PolarsError) as error:
            raise self._damaged(key, error) from error

    def _write_snapshot(self, key: str, state: Snapshot, rows: pl.LazyFrame | None) -> None:
        facts = {"folded": sorted(state.folded), "through": state.through, "base": state.base}
        footer = {_FOOTER: json.dumps(facts)}
        if rows is not None:
            self.store.sink(key, rows, footer, group_rows=_GROUP_ROWS)
        else:
            self.store.write(key, to_parquet(state.frame, footer, compression="zstd"))

    def answered(self, batch: str) -> set[int]:
        """Return the rows of a batch that have an outcome."""
        name = f"{batch}-outcome.parquet"
        key = f"{self.root}/log/{name}"
        return set(self._segment(name, self.store.read(key))["row"]) if self.store.exists(key) else set()

    def read(self, names: Sequence[str]) -> pl.DataFrame:
        """Return intents and notes of the segments, one row each in order, with what came of them.

        An intent without an outcome was in flight when its writer stopped: its status is `unknown`.
        """
        parts = list(self.parts(names))
        return pl.concat(parts, how="diagonal_relaxed", rechunk=True) if parts else _paired([], [])

    def parts(self, names: Sequence[str]) -> Iterator[pl.DataFrame]:
        """Yield what :meth:`read` returns, so many whole batches at a time that memory is that of few rows."""
        unread = [f"{self.root}/log/{name}" for name in names if name not in self._own]
        stored = side_by_side(self.store, self.store.read, unread)
        frames: dict[str, list[pl.DataFrame]] = {"intent": [], "outcome": []}
        rows = 0
        for _, batch in groupby(names, lambda name: name.rpartition("-")[0]):
            for name in batch:
                own = self._own[name] if name in self._own else next(stored)
                kind = frames["outcome" if name.endswith("-outcome.parquet") else "intent"]
                kind.append(own if isinstance(own, pl.DataFrame) else self._segment(name, own))
                rows += len(kind[-1])
                if len(kind) == _MERGED:
                    kind[:] = [pl.concat(kind, how="diagonal", rechunk=True)]
            if rows >= 2 * _PART_ROWS:
                yield _paired(frames["intent"], frames["outcome"])
                frames, rows = {"intent": [], "outcome": []}, 0
        if rows:
            yield _paired(frames["intent"], frames["outcome"])

    def _segment(self, name: str, data: bytes) -> pl.DataFrame:
        try:
            return from_parquet(data)
        except ValueError as error:
            raise self._damaged(f"{self.root}/log/{name}", error) from error

    def _damaged(self, key: str, error: Exception) -> DamagedFileError:
        return DamagedFileError(
            f"{self.store.uri(key)} is damaged ({type(error).__name__}): restore it from a backup; without it nobody "
            "knows what was sent"
        )


def field_names(frame: pl.DataFrame) -> list[str]:
    """Return the property hash columns of a frame."""
    return [name for name in frame.columns if name.startswith(FIELD)]


def _paired(intents: Sequence[pl.DataFrame], outcomes: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Join intents with their outcomes."""
    intent = pl.concat([pl.DataFrame(schema=INTENT_SCHEMA), *intents], how="diagonal")
    outcome = pl.concat([pl.DataFrame(schema=OUTCOME_SCHEMA), *outcomes], how="diagonal")
    status = pl.coalesce("status", pl.when(pl.col("op") == "note").then(pl.lit("note")).otherwise(pl.lit("unknown")))
    joined = intent.drop("status", "reason", strict=False).join(outcome, on=["batch", "row"], how="left")
    return joined.with_columns(status=status).sort("batch", "row")


def fold(log: Log, start: Snapshot | None = None) -> Snapshot:
    """Fold the log into the ledger: one row per key, what the destination has acknowledged.

    `start`: A state that contains some segments already; the log's base if not given. Every start gives the same
    result, unless a writer that had lost its lease spoke after `start`: what it sent then counts as unknown.
    """
    start = start or log.base()
    names = [name for name in log.segments() if name not in start.folded]
    if not names:
        return start
    return folded(start, names, log.parts(names))


def folded(start: Snapshot, names: Sequence[str], parts: Iterable[pl.DataFrame]) -> Snapshot:
    """Fold the entries of segments that `start` does not contain, as :meth:`Log.parts` gives them."""
    delta = last_of([changes_of(entries, start.through) for entries in parts])
    through = max(start.through, names[-1])
    return Snapshot(fold_onto(start.frame, delta), start.folded | set(names), through, start.base)


def changes_of(entries: pl.DataFrame, through: str) -> pl.DataFrame:
    """Return what entries change about their keys: what a writer says after others went on counts as unknown.

    `through`: the newest segment of the state that is changed.
    """
    stale = pl.col("batch").str.head(_FENCE_DIGITS) < through[:_FENCE_DIGITS]
    status = pl.when(stale).then(pl.lit("unknown")).otherwise("status")
    return _last_values(entries.with_columns(status=status))


def fold_onto(ledger: pl.DataFrame, delta: pl.DataFrame) -> pl.DataFrame:
    """Put the last values of the keys that changed in the place of those before."""
    fields = sorted({*field_names(ledger), *field_names(delta)})
    found_columns = [name for name in FOUND_SCHEMA if name in ledger.columns or name in delta.columns]
    columns = [name for name in LEDGER_SCHEMA if name != "key"] + found_columns + fields
    schema = pl.Schema(FOUND_SCHEMA | dict.fromkeys(fields, pl.UInt64()))
    delta, ledger = (with_nulls(frame, schema, columns).select("key", *columns) for frame in (delta, ledger))
    if not len(ledger):
        return delta.sort("key")
    untouched = ledger.join(delta.select("key"), on="key", how="anti")
    touched = delta.join(ledger, on="key", how="left", suffix=":old")
    touched = touched.select("key", *(pl.coalesce(name, f"{name}:old").alias(name) for name in columns))
    return pl.concat([untouched, touched]).sort("key")


def last_of(changes: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Reduce changes (in order) to the last value of every column of every key."""
    together = pl.concat([pl.DataFrame(schema=LEDGER_SCHEMA), *changes], how="diagonal")
    if together["key"].is_unique().all():
        return together
    columns = [name for name in together.columns if name != "key"]
    return together.group_by("key", maintain_order=True).agg(pl.col(c).drop_nulls().last() for c in columns)


def _last_values(entries: pl.DataFrame) -> pl.DataFrame:
    """Reduce entries (in order) to the last value of every column of every key."""
    fields = field_names(entries)
    status = pl.col("status")
    acknowledged, unknown = status.is_in(["acknowledged", "sent"]), status == "unknown"
    rejected, note = status == "rejected", status == "note"
    refused = status.is_in(REFUSED)
    retried = note & (pl.col("failures") == 0)
    entries = with_nulls(entries, FOUND_SCHEMA, ["until"] if entries.select(retried.any()).item() else [])
    found_columns = [name for name in FOUND_SCHEMA if name in entries.columns]
    changes = entries.filter(acknowledged | unknown | refused | note).with_columns(
        day=pl.when(acknowledged | note).then("day"),
        mapping=pl.when(acknowledged | note).then("mapping").when(unknown).then(pl.lit("")),
        acknowledged_at=pl.when(acknowledged).then("answered_at"),
        failures=pl.when(rejected).then(pl.col("failures") + 1).when(acknowledged).then(0).when(note).then("failures"),
        failed_hash=pl.when(refused).then("row_hash"),
        failed_fence=pl.when(refused).then("fence"),
        failed_at=pl.when(refused).then("answered_at").when(unknown).then("at"),
        reason=pl.when(refused | unknown)
        .then(pl.col("reason").fill_null("no answer"))
        .when(acknowledged)
        .then(pl.lit("")),
        status=pl.when(note).then(None).otherwise("status"),
        **{
            f: pl.when(acknowledged | note).then(f).when(unknown & pl.col(f).is_not_null()).then(UNKNOWN)
            for f in fields
        },
        **{name: pl.when(retried).then("at").otherwise(name) for name in found_columns if name == "until"},
    )
    return last_of([changes.select(*LEDGER_SCHEMA, *found_columns, *fields)])


def with_nulls(frame: pl.DataFrame, schema: pl.Schema, names: Iterable[str]) -> pl.DataFrame:
    """Return a frame that has these columns of a schema: null where it lacks them."""
    return frame.with_columns(pl.lit(None, schema[name]).alias(name) for name in names if name not in frame.columns)
