"""The real webserver and daemon as one process group, and the GraphQL that the UI speaks to them."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx

ROOT = Path(__file__).parent.parent.parent
START_SECONDS = 180
T = TypeVar("T")


@dataclass
class Dagster:
    """A running `dagster dev`."""

    url: str
    log: Path

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        answer = httpx.post(f"{self.url}/graphql", json={"query": query, "variables": variables}, timeout=60)
        answer.raise_for_status()
        body: dict[str, Any] = answer.json()
        assert "errors" not in body, body["errors"]
        data: dict[str, Any] = body["data"]
        return data

    def backfill(self, assets: Sequence[str], partitions: Sequence[str], seconds: float = 300) -> str:
        """Launch a partition backfill as the UI does, wait for its end and return its status."""
        params = {"assetSelection": [{"path": a.split("/")} for a in assets], "partitionNames": list(partitions)}
        launched = self.ask(
            """mutation($p: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $p) {
                 __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }""",
            p=params,
        )["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched

        def status() -> str | None:
            found = self.ask(
                """query($id: String!) { partitionBackfillOrError(backfillId: $id) {
                     ... on PartitionBackfill { status } } }""",
                id=launched["backfillId"],
            )["partitionBackfillOrError"]["status"]
            return found if found.startswith(("COMPLETED", "FAILED", "CANCELED")) else None

        return until(status, seconds, f"backfill of {', '.join(assets)}")

    def materializations(self, asset: str) -> dict[str, dict[str, Any]]:
        """Return partition to metadata of its newest materialization."""
        newest: dict[str, dict[str, Any]] = {}
        for event in self._events(asset):
            newest.setdefault(event["partition"], _values(event))
        return newest

    def _events(self, asset: str) -> list[dict[str, Any]]:
        """Return materializations, the newest first."""
        found: list[dict[str, Any]] = self.ask(
            """query($k: AssetKeyInput!) { assetOrError(assetKey: $k) { ... on Asset {
                 assetMaterializations(limit: 1000) { partition metadataEntries { label
                   ... on IntMetadataEntry { intValue } ... on TextMetadataEntry { text } } } } } }""",
            k={"path": asset.split("/")},
        )["assetOrError"].get("assetMaterializations", [])
        return found

    def counts(self, asset: str) -> dict[str, int]:
        """Return partition to how often it was materialized."""
        counted: dict[str, int] = {}
        for event in self._events(asset):
            counted[event["partition"]] = counted.get(event["partition"], 0) + 1
        return counted

    def landed_by(self, dump_id: str) -> dict[str, set[str]]:
        """Return the days that landing a dump reported, with the tables that it brought rows of."""
        return {
            event["partition"]: set(filter(None, str(_values(event).get("names") or "").split(", ")))
            for event in self._events("heap_connect/landed")
            if str(_values(event).get("dump")) == dump_id
        }

    def total(self, asset: str, label: str) -> int:
        """Return the sum of a number in the metadata of all materializations of an asset."""
        return sum(_values(event).get(label) or 0 for event in self._events(asset))

    def check_results(self, asset: str, check: str) -> dict[str | None, bool]:
        """Return partition to whether the check passed on it, of its newest evaluation."""
        found = self.ask(
            """query($k: AssetKeyInput!, $c: String!) { assetCheckExecutions(assetKey: $k, checkName: $c, limit: 200) {
                 status evaluation { partition success } } }""",
            k={"path": asset.split("/")},
            c=check,
        )["assetCheckExecutions"]
        newest: dict[str | None, bool] = {}
        for execution in found:
            if execution["evaluation"]:
                newest.setdefault(execution["evaluation"]["partition"], execution["evaluation"]["success"])
        return newest


def _values(event: Mapping[str, Any]) -> dict[str, Any]:
    return {entry["label"]: entry.get("intValue", entry.get("text")) for entry in event["metadataEntries"]}


def until(look: Callable[[], T | None], seconds: float, what: str) -> T:
    """Wait for something to be there; fail with its name when time is up."""
    give_up_at = time.monotonic() + seconds
    while time.monotonic() < give_up_at:
        found = look()
        if found is not None:
            return found
        time.sleep(1)
    raise AssertionError(f"{what} did not happen within {seconds:.0f} s")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def dagster_dev(folder: Path, environment: Mapping[str, str]) -> Iterator[Dagster]:
    """Run webserver and daemon on a home of their own; the whole process group ends with the block."""
    home = folder / "dagster_home"
    home.mkdir(parents=True)
    shutil.copy(ROOT / "dagster.yaml", home / "dagster.yaml")
    port = free_port()
    log = folder / "dagster.log"
    env = {**os.environ, **environment, "DAGSTER_HOME": str(home), "DAGSTER_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-m", "dagster", "dev", "-m", "heap_assets.definitions", "-h", "127.0.0.1", "-p"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, str(port)], env=env, cwd=ROOT, stdout=output, stderr=output, start_new_session=True
        )
    dagster = Dagster(f"http://127.0.0.1:{port}", log)
    try:
        until(lambda: _is_up(dagster, process), START_SECONDS, "start of dagster dev")
        yield dagster
    except BaseException:
        print(log.read_text(errors="replace")[-8000:])
        raise
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


def _is_up(dagster: Dagster, process: subprocess.Popen[bytes]) -> bool | None:
    assert process.poll() is None, dagster.log.read_text(errors="replace")[-4000:]
    try:
        answer = dagster.ask("{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }")
    except httpx.TransportError:
        return None
    return True if answer["repositoriesOrError"].get("nodes") else None
