"""What the shared suite stands on: a deployment with one sync, senders that can be killed, calls as golden files."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

os.environ.setdefault("POLARS_ALLOW_FORKING_THREAD", "1")

import polars as pl

from heap_assets.activation import Log, Retry, SyncReport, changelog, connector_of, deliver, runs, set_aside
from heap_assets.activation.engine.canonical import property_columns
from heap_assets.activation.engine.hashing import hashed_values, salt
from heap_assets.project import open_project
from heap_assets.storage import Inputs
from heap_assets_tests.activation.forking import fork_runs
from heap_assets_tests.connectors.servers.core import Call, VendorServer

DAY = date(2026, 11, 20)
TABLE = "warehouse/people"
GOLDEN = Path(__file__).parent / "golden"
KILLS = int(os.environ.get("CONNECTOR_KILLS", "3"))
"""How often each connector's sender is killed: 30 before a release."""
QUICK = Retry(attempts=4, first_wait=0.02, longest_wait=0.1, timeout=10.0, throttled_for=10.0)
SYNC = "it"
_ANY_KIND = "kind: webhook\nurl: http://127.0.0.1:1/\nkey: id\nproperties: {plan: plan}"
_TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
_SETTINGS = """
start_date: 2026-11-01
lake: ./lake
catalogue: ./heap_catalogue.yaml
heap:
  app_id: "11"
  source: {{kind: folder, path: ./bucket}}
warehouse:
  kind: duckdb
  path: ./warehouse.duckdb
  tables:
    people: {{relation: crm.people, key: id}}
identity:
  identifiers:
    - {{type: heap_identity}}
    - {{type: email, normalise: email}}
    - {{type: heap_user_id}}
sync:
  it:
    limit_share: 1.0
    source: people
{sync}
"""


def day(number: int) -> date:
    return DAY + timedelta(days=number)


class Deployment:
    """A folder with settings of one sync and a lake, read by the real loading."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.project = open_project(file=file)
        self.store = self.project.lake.store
        self.connector = connector_of(self.project, SYNC)

    @classmethod
    def make(cls, folder: Path, sync: str, more: str = "") -> Deployment:
        """Write the settings; `sync` is the section's own text, `more` are further sections."""
        file = folder / "heap_assets.yaml"
        lines = "\n".join(f"    {line}" for line in sync.strip().splitlines())
        file.write_text(_SETTINGS.format(sync=lines) + more)
        (folder / "heap_catalogue.yaml").write_text("{}\n")
        return cls(file)

    def write(self, number: int, rows: Sequence[Mapping[str, Any]], schema: Mapping[str, Any]) -> pl.DataFrame:
        """Store the rows of a day as the source's."""
        frame = pl.DataFrame(rows, schema=dict(schema))
        content = hashlib.sha256(frame.write_json().encode()).hexdigest()
        self.project.lake.write(TABLE, str(day(number)), frame, Inputs({"content": content}))
        return frame

    def send(self, number: int, run: str) -> SyncReport:
        """Send a day, as a run does, but with less patience."""
        self.connector.check()
        self.connector.remember_enabled()
        spec = replace(self.connector.spec(day=day(number)), retry=QUICK)
        destination = self.connector.destination()
        rows = self.connector.rows_to_send(day(number))
        return deliver(spec, destination, rows, self.store, day(number), run, confirmed=True)

    def ledger(self) -> pl.DataFrame:
        return Log(self.store, self.connector.ledger_folder()).ledger().frame

    def settled(self) -> set[str]:
        """Return the keys that the destination has, as far as we know; a member that left has no hash."""
        fields = [column for column in self.ledger().columns if column.startswith("p:")]
        held = self.ledger().filter(pl.col("status").is_in(["acknowledged", "sent"]))
        if "p:(member)" in fields:
            held = held.filter(pl.col("p:(member)").fill_null(0) > 0)
        return set(held["key"])

    def assert_hashes(self, rows: pl.DataFrame, key: str) -> None:
        """Check that the ledger holds what the source's rows say, value by value."""
        spec, ledger, there = self.connector.spec(), self.ledger(), self.connector.destination()
        columns = property_columns(spec, rows.lazy(), there.values, there.recipes)
        values = {name: value.alias(name) for name, (value, _) in columns.items()}
        told = rows.select(pl.col(key).cast(pl.String).alias("key"), **values).join(ledger, on="key", how="inner")
        assert len(told) == len(rows)
        for name in values:
            expected = hashed_values(told[name], salt(self.store)).fill_null(0)
            assert told[f"p:{name}"].fill_null(0).to_list() == expected.to_list(), name

    def open_tables(self) -> str:
        """Return everything that is kept in the open about runs, as text."""
        folder = self.connector.ledger_folder()
        tables = [changelog(self.store, folder), runs(self.store, folder), set_aside(self.store, folder)]
        return "\n".join(str(table.rows()) for table in tables)


class Senders:
    """Runs in processes of their own, to be killed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._ended = False

    def start(self, deployment: Deployment, number: int) -> int:
        """Start a run of a day; returns its process id."""
        assert self._process.stdin
        self._process.stdin.write(f"{number} {deployment.file}\n")
        self._process.stdin.flush()
        self._ended = False
        while not (line := self._line()).startswith("pid "):
            self._ended = True  # it was quicker than the process that tells its id
        return int(line.removeprefix("pid "))

    @staticmethod
    def is_running(process: int) -> bool:
        """Whether a run has not ended."""
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return False
        return True

    def kill(self, process: int) -> bool:
        """Kill a run; whether it had not ended by itself."""
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        killed = not self._ended
        while (line := self._line()) != "end":
            killed = killed and not line.startswith("status")
        return killed

    def _line(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline().strip()
        assert line, "the process that starts runs has died"
        return line


@contextmanager
def senders() -> Iterator[Senders]:
    """Yield senders that are forked from a process which has loaded its libraries and never used them."""
    command = [sys.executable, "-m", "heap_assets_tests.connectors.kit"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Senders(process)
        finally:
            assert process.stdin
            process.stdin.close()


def golden_calls(server: VendorServer) -> list[dict[str, Any]]:
    """Return the calls as a golden file has them; of a call for a token only the names of what it gave."""
    return [_golden(call) for call in server.calls]


def _golden(call: Call) -> dict[str, Any]:
    body = call.body.decode() if isinstance(call.body, bytes) else call.body
    if call.kind == "token":
        body = sorted(body) if isinstance(body, dict) else None
    # times in a query are those of the run
    query = [(name, _TIME.sub("<time>", value)) for name, value in sorted(call.query.multi_items())]
    told = {"method": call.method, "path": call.path, "query": query, "body": body}
    return {name: value for name, value in told.items() if value}


def compare_golden(name: str, calls: list[dict[str, Any]]) -> None:
    """Compare with the file of the name; with `UPDATE_GOLDEN=1` write it, to be read in the diff."""
    path, text = GOLDEN / f"{name}.json", json.dumps(calls, indent=1, ensure_ascii=False) + "\n"
    if os.environ.get("UPDATE_GOLDEN") == "1":
        path.write_text(text)
    assert json.loads(path.read_text()) == json.loads(text)


def main() -> None:
    """Fork a run for each line of standard input, `<number of the day> <settings file>`."""
    with tempfile.TemporaryDirectory() as folder:  # kinds and models are made once, and each run has them
        Deployment.make(Path(folder), _ANY_KIND)

    def run(line: str) -> object:
        number, file = line.split(" ", 1)
        return Deployment(Path(file)).send(int(number), "killed").status

    fork_runs(run)


if __name__ == "__main__":
    main()
