"""The first load of a company that has used Heap for years: `init`, `dev`, and nothing else.

python benchmarks/first_load.py --dumps 700 --tables 200

Prints once a minute what `heap-assets status` says is left, the memory of all processes together, and how long the UI
takes for its page of all assets; at the end the time that the load took, and the largest of these.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fastavro
import httpx

sys.path.insert(0, str(Path(__file__).parents[1]))
from heap_assets_tests.end_to_end.dagster_process import free_port

_NULLABLE_TEXT, _NULLABLE_LONG = ["null", "string"], ["null", "long"]
_SCHEMA = {
    "type": "record",
    "name": "topLevelRecord",
    "fields": [
        *({"name": name, "type": _NULLABLE_LONG} for name in ("event_id", "user_id", "session_id")),
        *({"name": name, "type": _NULLABLE_TEXT} for name in ("time", "device", "country", "plan", "path")),
    ],
}
_USERS = {
    "type": "record",
    "name": "topLevelRecord",
    "fields": [
        {"name": "user_id", "type": _NULLABLE_LONG},
        *({"name": name, "type": _NULLABLE_TEXT} for name in ("identity", "email", "joindate", "last_modified")),
    ],
}
_MIGRATIONS = {
    "type": "record",
    "name": "topLevelRecord",
    "fields": [
        *({"name": name, "type": _NULLABLE_LONG} for name in ("from_user_id", "to_user_id")),
        {"name": "time", "type": _NULLABLE_TEXT},
    ],
}
_ASSETS = "{ assetNodes { assetKey { path } groupName partitionStats { numMaterialized numPartitions } } }"
_PEOPLE = 1_000
_PATIENCE = 120.0
"""Seconds for the UI's page of all assets."""


def write_bucket(folder: Path, dumps: int, tables: int, rows: int) -> None:
    """Write a dump a day, each with `rows` rows of that day in each of `tables` event tables, and its changed users."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    for number in range(1, dumps + 1):
        day = today - timedelta(days=dumps - number + 1)
        entries = []
        for table in range(tables):
            name = f"event_{table:03d}"
            records = [
                {"event_id": number * 1000 + row, "user_id": row % _PEOPLE, "session_id": row, "device": "phone",
                 "time": f"{day:%Y-%m-%d} 12:{row // 60 % 60:02d}:{row % 60:02d}.000000", "country": "NL",
                 "plan": f"plan {row % 3}", "path": f"/{table}"}
                for row in range(rows)
            ]  # fmt: skip
            entries.append(_write(folder, number, name, _SCHEMA, records, incremental=True))
        users = [
            {"user_id": user, "identity": f"person{user}@acme.example", "email": f"person{user}@acme.example",
             "joindate": "2020-01-01 00:00:00", "last_modified": f"{day:%Y-%m-%d} 00:00:00"}
            for user in range(number % 10, _PEOPLE, 10)
        ]  # fmt: skip
        entries.append(_write(folder, number, "users", _USERS, users, incremental=True))
        migrated = [
            {"from_user_id": _PEOPLE + user, "to_user_id": user, "time": "2020-01-02 00:00:00"} for user in range(9)
        ]
        entries.append(_write(folder, number, "user_migrations", _MIGRATIONS, migrated, incremental=False))
        manifest = folder / "manifests" / f"sync_{number}.json"
        manifest.parent.mkdir(exist_ok=True)
        manifest.write_text(json.dumps({"dump_id": number, "tables": entries, "property_definitions": None}))
        stamp = (day + timedelta(days=1, hours=6)).timestamp()
        os.utime(manifest, (stamp, stamp))


def _write(folder: Path, dump: int, table: str, schema: Any, records: Any, *, incremental: bool) -> dict[str, Any]:
    key = f"sync_{dump}/{table}/part-00000-c000.avro"
    path = folder / key
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        fastavro.writer(file, schema, records, codec="snappy")
    columns = [field["name"] for field in schema["fields"]]
    return {"name": table, "files": [f"s3://heap-rs3-acme/{key}"], "columns": columns, "incremental": incremental}


@contextmanager
def dev(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run `heap-assets dev` in a folder; gives the process and the address of the UI."""
    port = free_port()
    with (folder / "dev.log").open("wb") as log:
        command = [sys.executable, "-m", "heap_assets.cli", "dev", "--port", str(port)]
        process = subprocess.Popen(
            command, cwd=folder, env=_environment(), stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield process, f"http://127.0.0.1:{port}/graphql"
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(60)


def _environment() -> dict[str, str]:
    return {**os.environ, "HEAP_APP_ID": "11", "PYTHONPATH": str(Path(__file__).resolve().parents[1])}


def _command(folder: Path, *arguments: str) -> str:
    run = [sys.executable, "-m", "heap_assets.cli", *arguments]
    return subprocess.run(run, cwd=folder, env=_environment(), capture_output=True, text=True, check=True).stdout


def memory_of(pid: int) -> int:
    """Return the bytes that a process and its descendants hold, shared pages counted once."""
    total = 0
    for line in (Path(f"/proc/{pid}/smaps_rollup")).read_text().splitlines():
        if line.startswith("Pss:"):
            total += int(line.split()[1]) * 1024
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        try:
            total += memory_of(int(child))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


def page_seconds(address: str) -> float:
    """Return how long the UI takes for all assets with their partitions; the time limit if it gives up."""
    began = time.monotonic()
    with suppress(httpx.ReadTimeout):
        httpx.post(address, json={"query": _ASSETS}, timeout=_PATIENCE, trust_env=False).raise_for_status()
    return time.monotonic() - began


def _wait_until_up(address: str) -> None:
    while True:
        try:
            page_seconds(address)
        except httpx.TransportError:
            time.sleep(1)
        else:
            return


def main() -> None:
    """Write the bucket, load it, and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dumps", type=int, default=700)
    parser.add_argument("--tables", type=int, default=200)
    parser.add_argument("--rows", type=int, default=20, help="Rows of a table and day")
    parser.add_argument("--every", type=float, default=60, help="Seconds between two looks")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="first-load-") as scratch:
        folder = Path(scratch)
        write_bucket(folder / "bucket", options.dumps, options.tables, options.rows)
        print(f"{options.dumps} dumps of {options.tables} event tables, {options.rows} rows of each a day", flush=True)
        _command(folder, "init", "--folder", str(folder / "bucket"))
        began, memory, page = time.monotonic(), 0, 0.0
        with dev(folder) as (process, address):
            _wait_until_up(address)
            while process.poll() is None:
                time.sleep(options.every)
                seen = json.loads(_command(folder, "status", "--json"))
                memory, page = max(memory, memory_of(process.pid)), max(page, page_seconds(address))
                dumps, days = seen["backlogs"]["dumps"], seen["backlogs"]["days"]
                states = {item["asset"]: item["state"] for item in seen["assets"]}
                print(
                    f"{time.monotonic() - began:7,.0f} s: {dumps['left']:,} dumps left ({_left(dumps)}), "
                    f"{days['left']:,} days left ({_left(days)}); "
                    f"{memory_of(process.pid) / 1e6:,.0f} MB; all assets in {page_seconds(address):.1f} s",
                    flush=True,
                )
                if not dumps["left"] and not days["left"] and states["profiles"] == "ok":
                    break
            else:
                sys.exit((folder / "dev.log").read_text()[-5_000:])
        print(
            f"loaded and resolved after {(time.monotonic() - began) / 60:,.1f} min; at most {memory / 1e6:,.0f} MB in "
            f"all processes; the UI's page of all assets took {page:.1f} s at most"
        )


def _left(backlog: dict[str, Any]) -> str:
    seconds = backlog["remaining_seconds"]
    return "-" if seconds is None else f"{seconds / 60:,.0f} min"


if __name__ == "__main__":
    main()
