"""Dagster's event log on SQLite: files stay open, and events that belong together are written together.

A run of 200 tables writes some 5,000 events, each in two or three transactions. Dagster opens the file anew for each of
them, and SQLite, when the last connection closes, moves its write-ahead log into the file and waits for the disk. Here

* a file stays open, and `synchronous=NORMAL` waits at checkpoints only: a killed process loses nothing, and after a
  power cut the newest events may be missing but the file is sound (https://www.sqlite.org/pragma.html#pragma_synchronous);
* whether a file has its tables is looked up once in a process, not by each instance that a sensor makes;
* processes write into the index in turns: who waits is woken when the file is free. SQLite's own way to wait is to look
  every tenth of a second, and beside a process that writes without a pause, such as the backfill daemon with the plan
  of a year, the file is never free at such a moment;
* a thread that reads waits for nobody, a writer in its own process included;
* a batch of events is one transaction a file. Dagster makes such batches itself, of the planned events of a run for
  instance, if `DAGSTER_EVENT_BATCH_SIZE` is set in the environment;
* the check results of one partition are a batch (`batch_check_events`): all of them are written or, if the process is
  killed before, none, and the run that replaces it evaluates them again;
* the record of a run that goes on is read once for a page of the UI. Dagster reads it for each of the run's assets, and
  that of a run of 200 tables, with the names of a thousand checks, takes 30 ms;
* which partitions of assets are built, as a page or a sensor worked it out, is stored in one transaction for all.

Each event is written by Dagster's own code. What was landed, built and sent is not stored here.
"""

import fcntl
import inspect
import logging
import os
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import dagster as dg

# What dagster.yaml defaults to, and what it calls: they have no public names.
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME, SqliteEventLogStorage
from dagster._core.storage.partition_status_cache import (
    AssetStatusCacheValue,
    get_and_update_asset_status_cache_value,
)
from dagster._serdes import ConfigurableClassData
from sqlalchemy import create_engine, event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import QueuePool

_OPEN_FILES = 8
_BUSY_SECONDS = 60
_EVENTS_AT_ONCE = 50  # others wait some milliseconds for each of them
_READERS = 8  # connections of a file that stay open
_INITIALIZED: set[tuple[str, int]] = set()  # files that this process knows to have their tables, with their inodes
_CHANGED = "Dagster %s has another %s in its SQLite event log: heap_assets leaves the log to Dagster, which is slower"
_SIGNATURES = {  # what is called or replaced here, with its parameters
    "__init__": ["self", "base_dir", "inst_data"],
    "_connect": ["self", "shard"],
    "_initdb": ["self", "engine", "for_index_shard"],
    "conn_string_for_shard": ["self", "shard_name"],
    "dispose": ["self"],
    "get_asset_status_cache_values": ["self", "partitions_defs_by_key", "context"],
    "has_table": ["self", "table_name"],
    "path_for_shard": ["self", "run_id"],
    "store_event": ["self", "event"],
    "store_event_batch": ["self", "events"],
    "update_asset_cached_status_data": ["self", "asset_key", "cache_values"],
}


class _OfThread(threading.local):
    """What a thread has in hand.

    Attributes
    ----------
    batch, is_batching
        Check results that wait, and whether more of them do.
    connections
        By file, of the transaction that is open over several events.
    depth, turn
        How many connections are open, and the file that is locked since one of them wrote into the index.
    """

    def __init__(self) -> None:
        self.batch: list[dg.EventLogEntry] = []
        self.is_batching = False
        self.connections: dict[str, Connection] | None = None
        self.depth = 0
        self.turn: int | None = None


class EventLog(SqliteEventLogStorage):
    """The default event log in its default place, `$DAGSTER_HOME/history/runs`; named in dagster.yaml."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", str(_EVENTS_AT_ONCE))
        self._open: OrderedDict[str, tuple[int, Engine]] = OrderedDict()
        self._known_tables: set[str] = set()
        self._lock = threading.RLock()  # of what is open
        self._own = _OfThread()
        super().__init__(base_dir, inst_data)

    @classmethod
    def config_type(cls) -> Any:
        return {"base_dir": dg.Field(dg.StringSource, is_required=False)}

    @classmethod
    def from_config_value(  # type: ignore[override]
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, str]
    ) -> SqliteEventLogStorage:
        """Return the log; Dagster's own, which is slower, if this version of Dagster has other methods."""
        base_dir = config_value.get("base_dir") or _default_folder()
        changed = _changed(SqliteEventLogStorage)
        if not changed:
            return cls(base_dir, inst_data)
        logging.getLogger(__name__).warning(_CHANGED, dg.__version__, ", ".join(changed))
        return SqliteEventLogStorage(base_dir, inst_data)

    def has_table(self, table_name: str) -> bool:
        """Cache the answer: Dagster queries the file for every check, and a table that exists is never dropped."""
        if table_name not in self._known_tables and super().has_table(table_name):
            self._known_tables.add(table_name)
        return table_name in self._known_tables

    def store_event(self, event: dg.EventLogEntry) -> None:
        """Write an event; a check result of a thread that batches them waits for the batch."""
        if self._own.is_batching and _is_evaluation(event):
            self._own.batch.append(event)
        else:
            self.store_event_batch([event])

    def store_event_batch(self, events: Sequence[dg.EventLogEntry]) -> None:
        """Write events in one transaction a file: all or none of them."""
        self._flush()
        with self._transaction():
            for entry in events:
                super().store_event(entry)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Batch check results of this thread until the end, or until it writes or reads anything else."""
        self._own.is_batching = True
        try:
            yield
        finally:
            self._own.is_batching = False
            self._flush()

    def get_asset_status_cache_values(
        self, partitions_defs_by_key: Iterable[tuple[dg.AssetKey, dg.PartitionsDefinition[Any] | None]], context: Any
    ) -> Sequence[AssetStatusCacheValue | None]:
        """Return which partitions of assets are materialized, failed and in progress, as Dagster does."""
        instance: Any = _ForOnePage(self._instance)
        dynamic_partitions = getattr(context, "dynamic_partitions_loader", None) or self._instance
        statuses = [
            get_and_update_asset_status_cache_value(instance, key, partitions_def, dynamic_partitions, context)
            for key, partitions_def in partitions_defs_by_key
        ]
        if instance.changed:
            with self._transaction():
                for key, status in instance.changed:
                    self.update_asset_cached_status_data(key, status)
        return statuses

    def _flush(self) -> None:
        if not self._own.batch or self._own.connections is not None:
            return
        try:
            with self._transaction():
                for entry in self._own.batch:
                    super().store_event(entry)
            self._own.batch = []
        except Exception:
            alone, self._own.batch = self._own.batch, []
            for entry in alone:  # as Dagster does when a batch is refused
                super().store_event(entry)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        own = self._own
        own.connections = {}
        with self._turn_until_the_end():
            try:
                yield
                for connection in own.connections.values():
                    connection.commit()
            finally:
                connections, own.connections = own.connections, None
                for connection in connections.values():
                    connection.close()

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        self._flush()
        connections = self._own.connections
        if connections is None:
            with self._turn_until_the_end(), self._engine(shard).connect() as connection, connection.begin():
                yield connection
        else:
            if shard not in connections:
                connections[shard] = self._engine(shard).connect()
                connections[shard].begin()
            yield connections[shard]

    @contextmanager
    def _turn_until_the_end(self) -> Iterator[None]:
        """Give back the turn to write into the index, if it was taken, when this thread's last connection ends."""
        own = self._own
        own.depth += 1
        try:
            yield
        finally:
            own.depth -= 1
            if own.depth == 0 and own.turn is not None:
                descriptor, own.turn = own.turn, None
                os.close(descriptor)

    def _take_turn(self, *arguments: Any) -> None:
        """Wait for the turn to write into the index, before the first statement that does."""
        context = arguments[4]
        if self._own.turn is None and (context is None or context.isinsert or context.isupdate or context.isdelete):
            descriptor = os.open(f"{self.path_for_shard(INDEX_SHARD_NAME)}.turn", os.O_RDWR | os.O_CREAT, 0o600)
            self._own.turn = descriptor
            with suppress(OSError):  # where files have no such locks, SQLite's own keep writers apart, less fairly
                fcntl.flock(descriptor, fcntl.LOCK_EX)  # a process that is killed gives it back

    def _engine(self, shard: str) -> Engine:
        """Return the engine of a file that was opened before, unless it has been wiped or replaced since."""
        with self._lock:
            inode, engine = self._open.pop(shard, (0, None))
            if engine is not None and inode != self._inode(shard):
                engine.dispose()
                engine = None
            if engine is None:
                engine = self._opened(shard)
            self._open[shard] = self._inode(shard), engine
            if len(self._open) > _OPEN_FILES:
                self._open.popitem(last=False)[1][1].dispose()
            return engine

    def _opened(self, shard: str) -> Engine:
        engine = create_engine(
            self.conn_string_for_shard(shard),
            poolclass=QueuePool,
            pool_size=_READERS,
            max_overflow=-1,
            connect_args={"timeout": _BUSY_SECONDS, "check_same_thread": False},  # one thread at a time has it
        )
        if (self.path_for_shard(shard), self._inode(shard)) not in _INITIALIZED:
            self._initdb(engine)
            _INITIALIZED.add((self.path_for_shard(shard), self._inode(shard)))
        engine.dispose()  # connections from before WAL mode was set lack the listener below
        event.listen(engine, "connect", _wait_at_checkpoints_only)
        if shard == INDEX_SHARD_NAME:
            event.listen(engine, "before_cursor_execute", self._take_turn)
        return engine

    def _inode(self, shard: str) -> int:
        try:
            return Path(self.path_for_shard(shard)).stat().st_ino
        except FileNotFoundError:
            return 0

    def dispose(self) -> None:
        self._flush()
        with self._lock:
            while self._open:
                self._open.popitem()[1][1].dispose()
        super().dispose()


class _ForOnePage:
    """An instance that reads each run once, and remembers in `changed` what is to be stored of assets."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.changed: list[tuple[dg.AssetKey, AssetStatusCacheValue]] = []
        self._instance = instance
        self._runs: dict[str, dg.DagsterRun | None] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._instance, name)

    def get_runs(self, filters: dg.RunsFilter) -> list[dg.DagsterRun]:
        run_ids = [*(filters.run_ids or ())]
        if unread := [run_id for run_id in run_ids if run_id not in self._runs]:
            read = {run.run_id: run for run in self._instance.get_runs(dg.RunsFilter(run_ids=unread))}
            self._runs.update({run_id: read.get(run_id) for run_id in unread})
        return [run for run_id in run_ids if (run := self._runs[run_id]) is not None]

    def update_asset_cached_status_data(self, asset_key: dg.AssetKey, cache_values: AssetStatusCacheValue) -> None:
        self.changed.append((asset_key, cache_values))


@contextmanager
def batch_check_events(instance: dg.DagsterInstance) -> Iterator[None]:
    """Write the check results of a block in one batch at its end; any other event log writes each by itself."""
    log = instance.event_log_storage
    if isinstance(log, EventLog):
        with log.batch():
            yield
    else:
        yield


def _is_evaluation(entry: dg.EventLogEntry) -> bool:
    return entry.is_dagster_event and entry.dagster_event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION


def _changed(kind: type) -> list[str]:
    """Return the methods used here that `kind` lacks, or whose parameters differ."""
    signatures = {
        name: list(inspect.signature(m).parameters) for name in _SIGNATURES if (m := getattr(kind, name, None))
    }
    return [name for name, parameters in _SIGNATURES.items() if signatures.get(name) != parameters]


def _default_folder() -> str:
    return str(Path(os.environ["DAGSTER_HOME"]) / "history" / "runs")


def _wait_at_checkpoints_only(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute("PRAGMA synchronous=NORMAL")
