"""Dagster's event log on SQLite: files stay open, and events that belong together are written together.

A run of 200 tables writes some 5,000 events, each in two or three transactions. Dagster opens the file anew for each of
them, and SQLite, when the last connection closes, moves its write-ahead log into the file and waits for the disk. Here

* a file stays open, and `synchronous=NORMAL` waits at checkpoints only: a killed process loses nothing, and after a
  power cut the newest events may be missing but the file is sound (https://www.sqlite.org/pragma.html#pragma_synchronous);
* a batch of events is one transaction a file. Dagster makes such batches itself, of the planned events of a run for
  instance, if `DAGSTER_EVENT_BATCH_SIZE` is set in the environment;
* the check results of one partition are a batch (`batch_check_events`): all of them are written or, if the process is
  killed before, none, and the run that replaces it evaluates them again;
* the record of a run that goes on is read once for a page of the UI. Dagster reads it for each of the run's assets, and
  that of a run of 200 tables, with the names of a thousand checks, takes 30 ms.

Each event is written by Dagster's own code. What was landed, built and sent is not stored here.
"""

import inspect
import logging
import os
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

# What dagster.yaml defaults to, and what it calls: they have no public names.
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
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
_EVENTS_AT_ONCE = 200  # other runs wait about as many milliseconds for the file
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
}


class EventLog(SqliteEventLogStorage):
    """The default event log in its default place, `$DAGSTER_HOME/history/runs`; named in dagster.yaml."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", str(_EVENTS_AT_ONCE))
        self._open: OrderedDict[str, tuple[int, Engine]] = OrderedDict()
        self._known_tables: set[str] = set()
        self._lock = threading.RLock()
        self._connections: dict[str, Connection] | None = None
        self._batch: list[dg.EventLogEntry] = []
        self._batching_thread = 0  # the thread whose results wait
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
        if self._batching_thread == threading.get_ident() and _is_evaluation(event):
            self._batch.append(event)
        else:
            self.store_event_batch([event])

    def store_event_batch(self, events: Sequence[dg.EventLogEntry]) -> None:
        """Write events in one transaction a file: all or none of them."""
        with self._lock:
            self._flush()
            with self._transaction():
                for entry in events:
                    super().store_event(entry)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Batch check results of this thread until the end, or until anything else is written or read."""
        self._batching_thread = threading.get_ident()
        try:
            yield
        finally:
            self._batching_thread = 0
            with self._lock:
                self._flush()

    def get_asset_status_cache_values(
        self, partitions_defs_by_key: Iterable[tuple[dg.AssetKey, dg.PartitionsDefinition[Any] | None]], context: Any
    ) -> Sequence[AssetStatusCacheValue | None]:
        """Return which partitions of assets are materialized, failed and in progress, as Dagster does."""
        instance: Any = _RunsReadOnce(self._instance)
        dynamic_partitions = getattr(context, "dynamic_partitions_loader", None) or self._instance
        return [
            get_and_update_asset_status_cache_value(instance, key, partitions_def, dynamic_partitions, context)
            for key, partitions_def in partitions_defs_by_key
        ]

    def _flush(self) -> None:
        if not self._batch or self._connections is not None:
            return
        try:
            with self._transaction():
                for entry in self._batch:
                    super().store_event(entry)
            self._batch = []
        except Exception:
            alone, self._batch = self._batch, []
            for entry in alone:  # as Dagster does when a batch is refused
                super().store_event(entry)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connections = {}
        try:
            yield
            for connection in self._connections.values():
                connection.commit()
        finally:
            connections, self._connections = self._connections, None
            for connection in connections.values():
                connection.close()

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._lock:
            self._flush()
            if self._connections is not None:
                if shard not in self._connections:
                    self._connections[shard] = self._engine(shard).connect()
                    self._connections[shard].begin()
                yield self._connections[shard]
            else:
                with self._engine(shard).connect() as connection, connection.begin():
                    yield connection

    def _engine(self, shard: str) -> Engine:
        """Return the engine of a file that was opened before, unless it has been wiped or replaced since."""
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
            pool_size=1,
            connect_args={"timeout": _BUSY_SECONDS, "check_same_thread": False},  # one thread at a time has its turn
        )
        if shard not in self._initialized_dbs or not self._inode(shard):
            self._initdb(engine)
            self._initialized_dbs.add(shard)
        engine.dispose()  # connections from before WAL mode was set lack the listener below
        event.listen(engine, "connect", _wait_at_checkpoints_only)
        return engine

    def _inode(self, shard: str) -> int:
        try:
            return Path(self.path_for_shard(shard)).stat().st_ino
        except FileNotFoundError:
            return 0

    def dispose(self) -> None:
        with self._lock:
            self._flush()
            while self._open:
                self._open.popitem()[1][1].dispose()
        super().dispose()


class _RunsReadOnce:
    """An instance whose `get_runs` reads each run once."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
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
