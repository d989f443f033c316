"""A sender in a process of its own, to be killed: url of the lake, url of the server, kind, rows, batch rows."""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl

sys.path.insert(0, str(Path(__file__).parent))

import delivery_kit as kit

from heap_assets.destinations import HeapApp, HeapEvents, Retry, SyncSpec, deliver
from heap_assets.lake import Store


def main(lake: str, server: str, kind: str, rows: str, batch_rows: int) -> None:
    frame = pl.scan_parquet(rows)
    patience = Retry(attempts=4, first_wait=0.01, longest_wait=0.05, timeout=5)
    properties = {"Plan": "plan", "Seats": "seats"}
    spec = SyncSpec(kind, properties, retry=patience, concurrency=3, rate_share=1.0)
    app = HeapApp(kit.APP, base_url=server)
    if kind == "events":
        destination = HeapEvents(app, source="orders", batch_rows=batch_rows)
    else:
        destination = kit.HeapUserProperties(app, batch_rows=batch_rows)  # type: ignore[assignment]
    print("ready", flush=True)
    report = deliver(spec, destination, frame, Store(lake), kit.DAY, "run", confirmed=True)
    print(report.status, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]))
