"""What Spark runs: reads the orders of a run of Dagster, resolves, and reports. It needs no Dagster but Pipes.

It is submitted as one file, and imports the rest from the heap_assets that the cluster has.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from dagster_pipes import (
    PipesBlobStoreMessageWriter,
    PipesBlobStoreMessageWriterChannel,
    PipesCliArgsParamsLoader,
    PipesContextLoader,
    open_dagster_pipes,
)

from heap_assets.errors import HeapAssetsError
from heap_assets.identity import run_spark_job
from heap_assets.storage import Store

ORDERS = "orders.json"
MESSAGES = "messages"
"""Names in the store of a job."""


class _StoredOrders(PipesContextLoader):
    @contextmanager
    def load_context(self, params: Any) -> Iterator[Any]:
        yield json.loads(Store(params["url"], params["options"]).read(ORDERS))


class _StoredMessages(PipesBlobStoreMessageWriter[Any]):
    def make_channel(self, params: Any) -> _Channel:
        return _Channel(Store(params["url"], params["options"]), self.interval)


class _Channel(PipesBlobStoreMessageWriterChannel):
    def __init__(self, store: Store, interval: float) -> None:
        super().__init__(interval=interval)
        self._store = store

    def upload_messages_chunk(self, payload: IO[str], index: int) -> None:
        self._store.write(f"{MESSAGES}/{index}.json", payload.read().encode())


def main() -> None:
    """Do what the orders say; the exit status is 1 if it could not be done."""
    arguments = PipesCliArgsParamsLoader()  # type: ignore[no-untyped-call]
    if not arguments.is_dagster_pipes_process():
        sys.exit("this is started by a run of Dagster, which gives it its orders")
    pipes = open_dagster_pipes(
        params_loader=arguments, context_loader=_StoredOrders(), message_writer=_StoredMessages()
    )
    with pipes:
        message = _message(dict(pipes.extras))
        pipes.report_custom_message(message)
    if "error" in message:
        sys.exit(1)


def _message(orders: dict[str, Any]) -> dict[str, Any]:
    """Return the results or why there are none; errors of Spark may quote rows, which stay in the job's own log."""
    try:
        return {"results": run_spark_job(orders)}
    except HeapAssetsError as error:
        return {"error": str(error)}
    except Exception as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: the log of the job says more"}


if __name__ == "__main__":
    main()
