"""Dagster's event log on SQLite, without a wait for the disk after every event.

A run of 200 tables writes some 5,000 events, each in two or three transactions. Dagster opens the file anew for each of
them, and SQLite, when the last connection closes, moves its write-ahead log into the file and waits for the disk. Here
a file stays open, and `synchronous=NORMAL` waits at checkpoints only: a killed process loses nothing, and after a power
cut the newest events may be missing but the file is sound (https://www.sqlite.org/pragma.html#pragma_synchronous). What
was landed, built and sent is not kept here.
"""

import os
import sqlite3
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

# What dagster.yaml defaults to: it has no public name.
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._serdes import ConfigurableClassData
from sqlalchemy import create_engine, event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import QueuePool

_OPEN_FILES = 8
_BUSY_SECONDS = 60


class EventLog(SqliteEventLogStorage):
    """The default event log in its default place, `$DAGSTER_HOME/history/runs`; named in dagster.yaml."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._open: OrderedDict[str, tuple[int, Engine]] = OrderedDict()
        self._there: set[str] = set()
        super().__init__(base_dir, inst_data)

    @classmethod
    def config_type(cls) -> Any:
        return {"base_dir": dg.Field(dg.StringSource, is_required=False)}

    @classmethod
    def from_config_value(  # type: ignore[override]
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, str]
    ) -> "EventLog":
        return cls(inst_data=inst_data, base_dir=config_value.get("base_dir") or _default_folder())

    def has_table(self, table_name: str) -> bool:
        """Dagster asks this of the file for every check; a table that is there stays there."""
        if table_name not in self._there and super().has_table(table_name):
            self._there.add(table_name)
        return table_name in self._there

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._db_lock, self._engine(shard).connect() as connection, connection.begin():
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
            connect_args={"timeout": _BUSY_SECONDS, "check_same_thread": False},  # one thread at a time has the lock
        )
        if shard not in self._initialized_dbs or not self._inode(shard):
            self._initdb(engine)
            self._initialized_dbs.add(shard)
        engine.dispose()  # what was opened before the file was write-ahead is not told to wait less
        event.listen(engine, "connect", _wait_at_checkpoints_only)
        return engine

    def _inode(self, shard: str) -> int:
        try:
            return Path(self.path_for_shard(shard)).stat().st_ino
        except FileNotFoundError:
            return 0

    def dispose(self) -> None:
        with self._db_lock:
            while self._open:
                self._open.popitem()[1][1].dispose()
        super().dispose()


def _default_folder() -> str:
    return str(Path(os.environ["DAGSTER_HOME"]) / "history" / "runs")


def _wait_at_checkpoints_only(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute("PRAGMA synchronous=NORMAL")
