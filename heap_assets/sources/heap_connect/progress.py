"""What a landing has done so far, written to the dump's record while it goes on."""

from __future__ import annotations

import time as clock
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import date
from types import TracebackType

from heap_assets.sources.heap_connect.outcome import touched_days
from heap_assets.sources.heap_connect.record_store import Records
from heap_assets.sources.heap_connect.records import DumpRecord, TableRecord

_SAVE_SECONDS = 0.5


class Progress:
    """Results of tables on their way into the record of their dump. Use as a context manager.

    A record is written whole, which for each of 200 small tables would cost more than the tables: it is written twice
    a second, and at the end. A table that no record names yet is outstanding, and lands again if the process dies.

    Attributes
    ----------
    record
        The record as it was last written.
    landed
        What landed or failed, in order.
    """

    def __init__(self, records: Records, before: Mapping[int, DumpRecord], record: DumpRecord) -> None:
        self.record = record
        self.landed: list[TableRecord] = []
        self._records = records
        self._before = before
        self._done: set[str] = set()
        self._results: list[TableRecord] = []
        self._saved = clock.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is None:
            self._save()
            return
        with suppress(Exception):  # the first error is the one to tell
            self._save()

    def add(self, table: str, result: TableRecord | None) -> None:
        """Take the outcome of one table, None if nothing was to be done."""
        self._done.add(table)
        if result is not None:
            self._results.append(result)
            self.landed.append(result)
        if clock.monotonic() - self._saved > _SAVE_SECONDS:
            self._save()

    def _save(self) -> None:
        self.record = self._records.update(self.record.dump_id, self._applied)
        self._done, self._results = set(), []
        self._saved = clock.monotonic()

    def _applied(self, current: DumpRecord | None) -> DumpRecord:
        record = current or self.record
        for result in self._results:
            record = record.with_table(result)
        after = {**self._before, record.dump_id: record}
        after = {dump_id: after[dump_id] for dump_id in sorted(after)}
        touched: dict[str, frozenset[date]] = dict(record.unannounced)
        for result in self._results:
            days = touched_days(after, record, result) if result.failure is None else frozenset()
            if days:
                touched[result.table] = touched.get(result.table, frozenset()) | days
        left = tuple(name for name in record.outstanding or () if name not in self._done)
        return replace(record, outstanding=left, unannounced=touched)
