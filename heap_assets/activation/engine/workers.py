"""Threads that carry out the tasks of a run, several at once, until there are none or the run stops."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from heap_assets.activation.engine.http_client import RetryingClient

Task = Callable[[], None]


class Workers:
    """At most `most` threads. `client`: is stopped if a task fails, and stops them if something else fails."""

    def __init__(self, client: RetryingClient, most: int) -> None:
        self._client, self._most = client, most
        self._failure: BaseException | None = None

    def carry_out(self, tasks: Iterator[Task], count: int) -> None:
        """Carry out about `count` tasks; raises what one of them raised."""
        threads = [
            threading.Thread(target=self._work, args=(tasks,), name=f"deliver-{n}", daemon=True)
            for n in range(min(self._most, count))
        ]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        except BaseException:  # the run is interrupted: nothing may be sent after the lease is gone
            self._client.stop("interrupted")
            for thread in threads:
                if thread.is_alive():  # one that has not begun sends nothing any more
                    thread.join()
            raise
        if self._failure is not None:
            raise self._failure

    def _work(self, tasks: Iterator[Task]) -> None:
        try:
            while not self._client.stopped:
                with self._client.lock:
                    task = next(tasks, None)
                if task is None:
                    return
                task()
        except BaseException as error:  # raised again by carry_out()
            with self._client.lock:
                self._failure = self._failure or error
            self._client.stop()
