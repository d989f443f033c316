"""Census (Fivetran Activations): syncs are triggered, runs polled; the envelope says `success` whatever the run says.

Version 1 answers until it is retired and takes any token; version 2 takes a personal access token. A trigger beside an
active run makes one that is skipped. `outcomes` (by sync) says what the next runs do; `job_fails` ends one as failed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from heap_assets_tests.connectors.servers.core import Answer, Call, Job, VendorServer, route
from heap_assets_tests.connectors.servers.shapes import basic

_ENDS = ("source_attributes", "destination_attributes")
V1_ENDS = datetime(2027, 1, 15, tzinfo=UTC).timestamp()


@dataclass(frozen=True)
class Outcome:
    """Rows of a run: of the source, taken, refused by the destination, left out as invalid."""

    source: int = 0
    updated: int = 0
    failed: int = 0
    invalid: int = 0


class Census(VendorServer):
    """A workspace with its key and a personal access token."""

    job_polls = 2

    def __init__(
        self, *, key: str = "key", personal: str = "personal", syncs: tuple[int, ...] = (21,), **common: Any
    ) -> None:
        super().__init__(**common)
        self.key, self.personal, self.syncs = key, personal, syncs
        self.outcomes: dict[int, Outcome] = {}

    def authorise(self, call: Call) -> None:
        first = call.path.startswith("/api/v1/")
        if first and self.clock() >= V1_ENDS:
            raise self.refuse(self.error(410, "gone", "API V1 was retired on 2027-01-15"), "version 1 has ended")
        token, header = self.bearer(call), call.headers.get("authorization")
        old = header == basic("bearer", f"secret-token:{self.key}")
        if token != self.personal and not (first and (token in (self.key, f"secret-token:{self.key}") or old)):
            raise self.refuse(self.unauthorised(call), "version 2 takes a personal access token, version 1 any")

    def unauthorised(self, call: Call) -> Answer:
        return self.error(401, "unauthorized", "Access token is not valid")

    def error(self, status: int, code: str, message: str) -> Answer:
        return Answer(status, {"status": code, "message": message})

    @route("GET", "/api/v1/syncs/{sync:int}")
    @route("GET", "/api/v2/syncs/{sync:int}")
    def sync(self, call: Call, sync: int) -> dict[str, Any]:
        self._know(sync)
        ends = {name: {"connection_id": 1, "object": {"name": "users"}} for name in _ENDS}
        return {"status": "success", "data": {"id": sync, "label": "users", "paused": False, "mappings": [], **ends}}

    @route("GET", "/api/v1/sources/{number:int}")
    @route("GET", "/api/v1/destinations/{number:int}")
    @route("GET", "/api/v2/sources/{number:int}")
    @route("GET", "/api/v2/destinations/{number:int}")
    def connection(self, call: Call, number: int) -> dict[str, Any]:
        return {"status": "success", "data": {"id": number, "name": "connection"}}

    @route("POST", "/api/v1/syncs/{sync:int}/trigger", takes="application/json nothing")
    @route("POST", "/api/v2/syncs/{sync:int}/trigger", takes="application/json nothing")
    def trigger(self, call: Call, sync: int) -> dict[str, Any]:
        self._know(sync)
        # a client of Dagster's sends it in the body
        body = call.body if isinstance(call.body, dict) else {}
        full = call.query.get("force_full_sync") or str(body.get("force_full_sync", False)).lower()
        if full not in ("true", "false"):
            raise self.refuse(self.error(400, "invalid", "force_full_sync"), "force_full_sync is true or false")
        # a run that nobody looks at goes on, too: every trigger is a poll of it
        running = [job for job in self.jobs.values() if job.state["sync"] == sync and not self._has_ended(job)]
        active = bool(running)
        outcome = self.outcomes.get(sync, Outcome())
        ended = self.clock() if active else None
        job = self.start_job(call, sync=sync, outcome=outcome, full=full == "true", ended=ended, skipped=active)
        return {"status": "success", "data": {"sync_run_id": int(job.id.removeprefix("job-"))}}

    @route("GET", "/api/v1/sync_runs/{run:int}")
    @route("GET", "/api/v2/sync_runs/{run:int}")
    def run(self, call: Call, run: int) -> dict[str, Any]:
        job = self.jobs.get(f"job-{run}")
        if job is None:
            raise self.refuse(self.error(404, "not_found", "Sync run not found"), "the run is there")
        return {"status": "success", "data": {"id": run, **self._told(job)}}

    def _know(self, sync: int) -> None:
        if sync not in self.syncs:
            raise self.refuse(self.error(404, "not_found", "Sync not found"), "the sync is there")

    def _has_ended(self, job: Job) -> bool:
        if job.state["ended"] is None and self.is_done(job):
            job.state["ended"] = self.clock()
        return job.state["ended"] is not None

    def _told(self, job: Job) -> dict[str, Any]:
        outcome: Outcome = job.state["outcome"]
        told: dict[str, Any] = {
            "sync_id": job.state["sync"],
            "full_sync": job.state["full"],
            "canceled": False,
            "source_record_count": None,
            "records_processed": None,
            "records_updated": None,
            "records_failed": None,
            "records_invalid": None,
            "error_code": None,
            "error_message": None,
            "error_detail": None,
            "completed_at": None,
        }
        if not self._has_ended(job):
            return told | {"status": "working"}
        told["completed_at"] = datetime.fromtimestamp(job.state["ended"], UTC).isoformat().replace("+00:00", "Z")
        if job.state["skipped"]:
            return told | {"status": "skipped"}
        if job.fails is not None:
            told |= {"canceled": job.fails.get("canceled", False), "error_code": job.fails.get("code", "unload")}
            return told | {"status": "failed", "error_message": job.fails.get("error", "The query failed")}
        return told | {
            "status": "completed",
            "source_record_count": outcome.source,
            "records_processed": outcome.updated + outcome.failed,
            "records_updated": outcome.updated,
            "records_failed": outcome.failed,
            "records_invalid": outcome.invalid,
        }
