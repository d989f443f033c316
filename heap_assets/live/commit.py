"""Group commit: calls that arrive together are written and flushed together, and answered when that is done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from heap_assets.errors import HeapAssetsError
from heap_assets.sources.inbox import Arrival, SegmentWriter, SpoolError


class BusyError(HeapAssetsError):
    """More waits to be written than may wait; nothing of this call was kept."""


@dataclass
class _Group:
    """Calls that are written together."""

    arrivals: list[Arrival] = field(default_factory=list)
    records: list[bytes] = field(default_factory=list)
    size: int = 0
    written: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class GroupCommit:
    """Writes arrivals into segments, one group at a time.

    Parameters
    ----------
    pending_bytes
        So much may wait while a group is written.
    committed
        Called with the arrivals of each group once they are on disk.
    """

    def __init__(
        self, writer: SegmentWriter, pending_bytes: int, committed: Callable[[Sequence[Arrival]], None]
    ) -> None:
        self._writer = writer
        self._pending_bytes = pending_bytes
        self._committed = committed
        self._group: _Group | None = None
        self._task: asyncio.Task[None] | None = None
        self.groups = 0

    async def keep(self, arrival: Arrival) -> None:
        """Return once an arrival is on disk.

        Raises
        ------
        BusyError
            Too much waits already.
        SpoolError
            It could not be written.
        """
        record = arrival.record()
        group = self._group
        if group is None:
            group = self._group = _Group()
        if group.size + len(record) > self._pending_bytes and group.records:
            raise BusyError("more messages wait to be written than may wait")
        group.arrivals.append(arrival)
        group.records.append(record)
        group.size += len(record)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._write())
        await asyncio.shield(group.written)

    async def drain(self) -> None:
        """Return once nothing waits to be written."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def _write(self) -> None:
        try:
            while (group := self._group) is not None:
                self._group = None
                try:
                    await asyncio.to_thread(self._writer.append, group.records)
                except SpoolError as error:
                    group.written.set_exception(error)
                    group.written.exception()  # whose caller went away is no fault
                    continue
                self.groups += 1
                self._committed(group.arrivals)
                group.written.set_result(None)
        finally:
            self._task = None
