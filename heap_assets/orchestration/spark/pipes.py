"""Orders and messages of Pipes as objects of a store: one way for a folder, S3 and Google's store alike.

Orders hold values of people (decisions), which environment variables and arguments would show in consoles; and they
have no limit of size that way.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dagster as dg
from dagster_pipes import PipesBlobStoreMessageWriter

from heap_assets.identity import public_options
from heap_assets.orchestration.spark_job import MESSAGES, ORDERS
from heap_assets.storage import Store


def address(store: Store) -> dict[str, Any]:
    """Return where a store is, without what opens it."""
    return {"url": store.url, "options": public_options(store.options)}


class StoredOrders(dg.PipesContextInjector):
    """Writes the orders of a job into its store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @contextmanager
    def inject_context(self, context: Any) -> Iterator[Mapping[str, Any]]:
        """Write the orders, and give where they are."""
        self._store.write(ORDERS, json.dumps(context).encode())
        yield address(self._store)

    def no_messages_debug_text(self) -> str:
        """Say what a silent job should have done."""
        return f"The orders of the job were in {self._store.uri(ORDERS)}."


class StoredMessages(dg.PipesBlobStoreMessageReader):
    """Reads the messages that a job writes into its store."""

    def __init__(self, store: Store, interval: float) -> None:
        super().__init__(interval=interval)
        self._store = store

    @contextmanager
    def get_params(self) -> Iterator[Mapping[str, Any]]:
        """Give where messages go; what a job prints stays in its own log, for it may hold values of people."""
        yield {**address(self._store), PipesBlobStoreMessageWriter.INCLUDE_STDIO_IN_MESSAGES_KEY: False}

    def messages_are_readable(self, params: Mapping[str, Any]) -> bool:
        """Whether there is a first message."""
        return self._store.exists(f"{MESSAGES}/1.json")

    def download_messages_chunk(self, index: int, params: Mapping[str, Any]) -> str | None:
        """Return the messages of one object, None if there are none yet."""
        try:
            return self._store.read(f"{MESSAGES}/{index}.json").decode()
        except FileNotFoundError:
            return None

    def no_messages_debug_text(self) -> str:
        """Say where messages were expected."""
        return f"Messages of the job were expected below {self._store.uri(MESSAGES)}."
