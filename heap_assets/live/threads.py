"""Work in threads that is waited for: a thread goes on when the task that waits for it is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def to_its_end(work: Callable[[], T], hurry: Callable[[], object] = lambda: None) -> T:
    """Run work in a thread; a task that is cancelled meanwhile ends after the work, not beside it.

    `hurry`: called when the task is cancelled, before the end of the work is waited for.
    """
    thread = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError as cancelled:
        hurry()
        await asyncio.wait([thread])
        raise cancelled from thread.exception()
