"""Hightouch: syncs and sequences are triggered, runs are polled; a run that ends with `warning` had rows that failed.

`outcomes` (by sync) says what the next runs do; `fail("job_fails", status="interrupted", error=…)` ends one otherwise.
Whether a trigger beside an active run returns that run or makes another is an option.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from heap_assets_tests.connectors.servers.core import Answer, Call, Job, Limit, VendorServer, route

DESTINATION: dict[str, Any] = {"id": 3, "type": "salesforce", "slug": "crm", "name": "CRM"}
PENDING = ("queued", "querying", "processing", "reporting")


@dataclass(frozen=True)
class Outcome:
    """Rows of a run: what was planned, and how many of them were refused."""

    added: int = 0
    changed: int = 0
    removed: int = 0
    failed: int = 0

    @property
    def planned(self) -> int:
        return self.added + self.changed + self.removed


class Hightouch(VendorServer):
    """A workspace.

    Parameters
    ----------
    syncs
        Slug of each sync by its id.
    overlap
        A trigger while a run is active returns the `same` run or makes `another`.
    hidden_polls
        How often the list of runs does not have a new run yet.
    """

    job_polls = len(PENDING)

    def __init__(
        self,
        *,
        token: str = "token",
        syncs: dict[str, str] | None = None,
        overlap: Literal["same", "another"] = "same",
        hidden_polls: int = 0,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.token, self.overlap, self.hidden_polls = token, overlap, hidden_polls
        self.syncs = syncs or {"11": "users-to-crm"}
        self.sequences = {"5": ["11"]}
        self.outcomes: dict[str, Outcome] = {}

    def authorise(self, call: Call) -> None:
        if self.bearer(call) != self.token:
            raise self.refuse(self.unauthorised(call), "calls carry the token of the workspace")

    def unauthorised(self, call: Call) -> Answer:
        return self.error(401, "Unauthorized", "Unauthorized")

    def throttled(self, call: Call, wait: float, limit: Limit | None, **options: Any) -> Answer:
        return self.error(429, "TooManyRequests", "Too many requests")

    def error(self, status: int, code: str, message: str) -> Answer:
        return Answer(status, {"message": message, "details": code})

    @route("POST", "/api/v1/syncs/trigger")
    def trigger_any(self, call: Call) -> dict[str, str]:
        body = call.body if isinstance(call.body, dict) else {}
        ids = [sync for sync, slug in self.syncs.items() if body.get("syncSlug") == slug or body.get("syncId") == sync]
        return self._trigger(call, ids[0] if ids else "")

    @route("POST", "/api/v1/syncs/{sync}/trigger", takes="application/json nothing")
    def trigger(self, call: Call, sync: str) -> dict[str, str]:
        return self._trigger(call, sync)

    @route("POST", "/api/v1/sync-sequences/{sequence}/trigger", takes="application/json nothing")
    def trigger_sequence(self, call: Call, sequence: str) -> dict[str, str]:
        if sequence not in self.sequences:
            raise self.refuse(self.error(404, "NotFound", "Sequence not found"), "the sequence is there")
        runs = [self._trigger(call, sync)["id"] for sync in self.sequences[sequence]]
        return {"id": "sequence-" + "-".join(runs)}

    @route("GET", "/api/v1/syncs/{sync}")
    def sync(self, call: Call, sync: str) -> dict[str, Any]:
        self._know(sync)
        return {"id": int(sync), "slug": self.syncs[sync], "destinationId": DESTINATION["id"], "disabled": False}

    @route("GET", "/api/v1/destinations/{destination}")
    def destination(self, call: Call, destination: str) -> dict[str, Any]:
        if destination != str(DESTINATION["id"]):
            raise self.refuse(self.error(404, "NotFound", "Destination not found"), "the destination is there")
        return DESTINATION

    @route("GET", "/api/v1/syncs/{sync}/runs")
    def runs(self, call: Call, sync: str) -> dict[str, Any]:
        self._know(sync)
        named = call.query.get("runId")
        jobs = [job for job in self.jobs.values() if job.state["sync"] == sync and named in (None, _number(job))]
        told = []
        for job in reversed(jobs):
            if job.state["hidden"]:
                job.state["hidden"] -= 1
            else:
                told.append(self._run(job))
        return {"data": told, "hasMore": False}

    def _know(self, sync: str) -> None:
        if sync not in self.syncs:
            raise self.refuse(self.error(404, "NotFound", "Sync not found"), "the sync is there")

    def _trigger(self, call: Call, sync: str) -> dict[str, str]:
        self._know(sync)
        full = (call.body or {}).get("fullResync", False) if isinstance(call.body, dict | None) else None
        if not isinstance(full, bool):
            raise self.refuse(self.error(422, "ValidateError", "fullResync is a boolean"), "fullResync is a boolean")
        active = [job for job in self.jobs.values() if job.state["sync"] == sync and not job.state["ended"]]
        if active and self.overlap == "same":
            return {"id": _number(active[-1])}
        outcome = self.outcomes.get(sync, Outcome())
        job = self.start_job(call, sync=sync, outcome=outcome, hidden=self.hidden_polls, ended=None, full=full)
        return {"id": _number(job)}

    def _run(self, job: Job) -> dict[str, Any]:
        outcome: Outcome = job.state["outcome"]
        told = {
            "id": _number(job),
            "startedAt": _time(job.started),
            "createdAt": _time(job.started),
            "finishedAt": None,
            "error": None,
            "completionRatio": 0,
            "plannedRows": {"addedCount": 0, "changedCount": 0, "removedCount": 0},
            "successfulRows": {"addedCount": 0, "changedCount": 0, "removedCount": 0},
            "failedRows": {"addedCount": 0, "changedCount": 0, "removedCount": 0},
        }
        if not self.is_done(job):
            step = min(self.job_polls - max(job.polls, 0) - 1, len(PENDING) - 1)
            return told | {"status": PENDING[step], "completionRatio": step / len(PENDING)}
        job.state["ended"] = job.state["ended"] or self.clock()
        told |= {"finishedAt": _time(job.state["ended"]), "completionRatio": 1}
        if job.fails is not None:
            return told | {"status": job.fails.get("status", "failed"), "error": job.fails.get("error", "Query failed")}
        return told | {"status": "warning" if outcome.failed else "success"} | _rows(outcome)


def _rows(outcome: Outcome) -> dict[str, dict[str, int]]:
    """Rows fail of those that were added first, then changed, then removed."""
    planned = {"addedCount": outcome.added, "changedCount": outcome.changed, "removedCount": outcome.removed}
    left, failed = outcome.failed, {}
    for name, count in planned.items():
        failed[name] = min(left, count)
        left -= failed[name]
    successful = {name: count - failed[name] for name, count in planned.items()}
    return {"plannedRows": planned, "successfulRows": successful, "failedRows": failed}


def _number(job: Job) -> str:
    return job.id.removeprefix("job-")


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
