"""A made-up vendor with jobs: start one, add rows, run it, ask until it is done; and a sender of its own process."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

sys.path.insert(0, str(Path(__file__).parent))

import delivery_kit as kit
from forking import fork_runs
from scripted_server import Call, Say

from heap_assets.activation import (
    BaseDestination,
    ClientCredentials,
    Dedupe,
    Exchange,
    Limits,
    Mode,
    Remember,
    Request,
    Response,
    Row,
    RowVerdict,
    Trouble,
    Verdict,
    Wait,
    deliver,
)
from heap_assets.storage import Store


class Jobs(BaseDestination):
    """Rows as jobs, whose results say what became of each."""

    kind = "jobs"

    def __init__(self, url: str, *, batch_rows: int = 10, dedupe: Dedupe | None = None, mode: Mode = Mode.UPSERT):
        self.url, self.mode, self.dedupe = url, mode, dedupe or Dedupe()
        self.required = ("event_key",) if mode is Mode.INSERT else ()
        self.limits = Limits(batch_rows=batch_rows)
        self.auth = ClientCredentials(f"{url}/token", "client", "very-secret-secret")

    @property
    def target(self) -> str:
        return "jobs"

    def element(self, row: Row) -> Any:
        return {"key": row.key, **row.values}

    def trouble(self, response: Response) -> Trouble | None:
        return Trouble.expired() if response.status == 401 else super().trouble(response)

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        return Request(f"{self.url}/jobs", b"{}")

    def exchange(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Exchange:
        job = (yield Request(f"{self.url}/jobs", b"{}", repeatable=True)).json["id"]  # an empty job harms nobody
        yield Remember({"job": job})
        yield Request(f"{self.url}/jobs/{job}/rows", b"[" + b",".join(elements) + b"]", "PUT", repeatable=True)
        yield Request(f"{self.url}/jobs/{job}/run", b"{}", repeatable=True)
        yield Remember({"job": job, "runs": True})
        return (yield from self.resume({"job": job, "runs": True}, rows))

    def resume(self, state: Mapping[str, Any], rows: Sequence[Row]) -> Exchange:
        url = f"{self.url}/jobs/{state['job']}"
        while True:
            job = (yield Request(url, method="GET")).json
            if job["state"] == "open":  # whoever began it did not live to say that it may run
                return Verdict(rest="not_applied")
            if job["state"] == "done":
                results = {result["key"]: result for result in job["results"]}
                return Verdict({i: _row(results[row.key]) for i, row in enumerate(rows) if row.key}, "unknown")
            yield Wait(0.01)


def _row(result: Mapping[str, Any]) -> RowVerdict:
    if "error" in result:
        return RowVerdict("rejected", result["error"])
    return RowVerdict("acknowledged", remote_id=result["id"])


class Vendor:
    """The vendor's side: what it holds, how often a row was applied, and its jobs."""

    def __init__(self, polls: int = 2) -> None:
        self.polls = polls
        self.jobs: list[dict[str, Any]] = []
        self.applied: list[str] = []
        self.tokens: list[str] = []
        self.refused: frozenset[str] = frozenset()
        self.expires_after: int | None = None
        self._calls = 0
        self._lock = threading.Lock()

    def __call__(self, call: Call) -> Say:
        with self._lock:
            return self._token(call) if call.path == "/token" else self._authorised(call)

    def _token(self, call: Call) -> Say:
        if call.form != {
            "grant_type": "client_credentials", "client_id": "client", "client_secret": "very-secret-secret"
        }:  # fmt: skip
            return Say(401, {"error": "invalid_client"})
        self._calls = 0
        self.tokens.append(f"token-number-{len(self.tokens)}")
        return Say(200, {"access_token": self.tokens[-1], "expires_in": 3600})

    def _authorised(self, call: Call) -> Say:
        if not self.tokens or call.headers.get("authorization") != f"Bearer {self.tokens[-1]}":
            return Say(401, {"error": "expired"})
        if self.expires_after is not None and self._calls >= self.expires_after:
            return Say(401, {"error": "expired"})
        self._calls += 1
        if call.path == "/jobs":
            self.jobs.append({"state": "open", "rows": {}, "polls": 0})
            return Say(201, {"id": len(self.jobs) - 1})
        number, _, action = call.path.removeprefix("/jobs/").partition("/")
        job = self.jobs[int(number)]
        if action == "rows":
            job["rows"] = {row["key"]: row for row in json.loads(call.body)}
        elif action == "run" and job["state"] == "open":
            job["state"] = "running"
            self.applied += [key for key in job["rows"] if key not in self.refused]
        elif not action and job["state"] == "running":
            job["polls"] += 1
            job["state"] = "done" if job["polls"] > self.polls else "running"
        results = [
            {"key": key, "error": f"{key} is refused"} if key in self.refused else {"key": key, "id": f"id-{key}"}
            for key in job["rows"]
        ]
        return Say(200, {"state": job["state"], "results": results})


def rows(count: int, mode: Mode = Mode.UPSERT) -> pl.DataFrame:
    people = kit.people(count)
    return people.with_columns(event_key="key") if mode is Mode.INSERT else people


def send(url: str, lake: Store, count: int = 20, run: str = "r", **choices: Any) -> Any:
    made = {name: choices.pop(name) for name in ("batch_rows", "dedupe", "mode") if name in choices}
    frame = rows(count, made.get("mode", Mode.UPSERT))
    return deliver(kit.spec(**choices), Jobs(url, **made), frame.lazy(), lake, kit.DAY, run, confirmed=True)


def main(url: str, lake: str) -> None:
    """Be a sender that is forked per line of standard input, `<mode> <dedupe>`."""

    def run(line: str) -> object:
        mode, dedupe = line.split()
        made: dict[str, Any] = {"mode": Mode(mode), "dedupe": Dedupe(dedupe)}  # type: ignore[arg-type]
        return send(url, Store(lake), concurrency=1, **made).status

    fork_runs(run)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
