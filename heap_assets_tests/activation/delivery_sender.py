"""Senders in processes of their own, to be killed: `<lake url> <server url> <batch rows>`, then a line per run.

A line on standard input, `<kind> <rows file>`, forks one sender, as `forking` says.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["POLARS_ALLOW_FORKING_THREAD"] = "1"

import polars as pl

sys.path.insert(0, str(Path(__file__).parent))

import delivery_kit as kit
from forking import fork_runs

from heap_assets.activation import BaseDestination, Retry, SyncSpec, deliver
from heap_assets.activation.connectors.heap import HeapApp
from heap_assets.activation.connectors.heap_events import HeapEvents
from heap_assets.activation.connectors.heap_user_properties import HeapUserProperties
from heap_assets.storage import Store


def send(lake: str, server: str, batch_rows: int, kind: str, rows: str) -> str:
    patience = Retry(attempts=4, first_wait=0.01, longest_wait=0.05, timeout=5)
    properties = {"Plan": "plan", "Seats": "seats"}
    spec = SyncSpec(kind, properties, retry=patience, concurrency=3, rate_share=1.0)
    app = HeapApp(kit.APP, base_url=server)
    destination: BaseDestination = HeapUserProperties(app, batch_rows=batch_rows)
    if kind == "events":
        destination = HeapEvents(app, source="orders", batch_rows=batch_rows)
    return str(deliver(spec, destination, pl.scan_parquet(rows), Store(lake), kit.DAY, "run", confirmed=True).status)


def main(lake: str, server: str, batch_rows: int) -> None:
    def run(line: str) -> str:
        kind, rows = line.split()
        return send(lake, server, batch_rows, kind, rows)

    fork_runs(run)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
