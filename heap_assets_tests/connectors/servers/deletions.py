"""Deletion of users at Segment, Amplitude and Mixpanel: a request now, a status for days.

The three are one server each. Days pass on the server's clock; `deleted` holds who is gone once that is so.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from heap_assets_tests.connectors.servers.core import Answer, Call, Fixed, Job, Limit, Sliding, VendorServer, route
from heap_assets_tests.connectors.servers.shapes import basic, fits

DAY = 86_400.0


class DeletionServer(VendorServer):
    """Requests that end after `days`."""

    days = 0.0

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self.job_seconds, self.job_polls = self.days * DAY, 0

    @property
    def deleted(self) -> set[str]:
        gone = [job.state["ids"] for job in self.jobs.values() if self._ended(job) and job.fails is None]
        return {text for ids in gone for text in ids}

    def age(self, job: Job) -> float:
        """Return how far a request is: 0 when it came in, 1 when it is done."""
        return (self.clock() - job.started) / max(job.ready - job.started, 1.0)

    def _ended(self, job: Job) -> bool:
        return self.clock() >= job.ready and not job.state.get("revoked")


class SegmentDeletion(DeletionServer):
    """Regulations of Segment's public API; `SUPPRESS_*` also blocks (`suppressed`)."""

    days, ids_per_call, users_per_month = 30.0, 5_000, 110_000

    def __init__(self, *, token: str = "token", **common: Any) -> None:
        super().__init__(**common)
        self.token = token
        self.suppressed: set[str] = set()

    def documented_limits(self) -> list[Limit]:
        return [Fixed("users a month", self.users_per_month, 30 * DAY, _subjects)]

    def authorise(self, call: Call) -> None:
        if self.bearer(call) != self.token:
            raise self.refuse(self.error(401, "unauthorized", "Unauthorized"), "calls carry a public API token")

    def error(self, status: int, code: str, message: str) -> Answer:
        return Answer(status, {"errors": [{"type": code, "message": message}]})

    @route("POST", "/regulations")
    def regulate(self, call: Call) -> dict[str, Any]:
        body, types = call.body, {"regulationType": str, "subjectType": str, "subjectIds": [str]}
        if not fits(body, types) or not set(types) <= set(body) or body["subjectType"] != "USER_ID":
            raise self.refuse(self.error(400, "bad-request", "invalid"), "regulationType, subjectType, subjectIds")
        kind, ids = body["regulationType"], body["subjectIds"]
        if kind not in ("SUPPRESS_ONLY", "DELETE_ONLY", "DELETE_INTERNAL", "SUPPRESS_WITH_DELETE", "UNSUPPRESS"):
            raise self.refuse(self.error(400, "bad-request", "invalid"), "regulationType is documented")
        if not 1 <= len(ids) <= self.ids_per_call:
            raise self.refuse(self.error(400, "bad-request", "too many"), f"1 to {self.ids_per_call} subjectIds")
        if kind.startswith("SUPPRESS"):
            self.suppressed.update(ids)
        elif kind == "UNSUPPRESS":
            self.suppressed.difference_update(ids)
        job = self.start_job(call, ids=ids if "DELETE" in kind else [])
        return {"data": {"regulateId": job.id}}

    @route("GET", "/regulations/{number}")
    def regulation(self, call: Call, number: str) -> dict[str, Any]:
        job = self.jobs.get(number)
        if job is None:
            raise self.refuse(self.error(404, "not-found", "Not found"), "the regulation is there")
        age = self.age(job)
        done = "FINISHED" if job.fails is None else job.fails.get("status", "FAILED")
        status = done if age >= 1 else "RUNNING" if age > 0 else "INITIALIZED"
        return {"data": {"regulation": {"id": number, "overallStatus": status}}}


class AmplitudeDeletion(DeletionServer):
    """Amplitude's first version: requests of a day are one job that is submitted after ten days."""

    days, ids_per_call = 13.0, 100

    def __init__(
        self, *, api_key: str = "key", secret_key: str = "secret", known: set[str] | None = None, **common: Any
    ):
        super().__init__(**common)
        self.api_key, self.secret_key, self.known = api_key, secret_key, known

    def documented_limits(self) -> list[Limit]:
        return [Sliding("a request a second", 1, 1.0)]

    def authorise(self, call: Call) -> None:
        if call.headers.get("authorization") != basic(self.api_key, self.secret_key):
            raise self.refuse(self.error(401, "unauthorized", "Unauthorized"), "Basic of api_key and secret_key")

    @route("POST", "/api/2/deletions/users")
    def request(self, call: Call) -> Any:
        body = call.body
        if not fits(body, {"user_ids": [str], "amplitude_ids": [int], "requester": str}) or not isinstance(body, dict):
            raise self.refuse(self.malformed("types"), "user_ids are texts, amplitude_ids numbers")
        ids = [*body.get("user_ids", []), *map(str, body.get("amplitude_ids", []))]
        if not 1 <= len(ids) <= self.ids_per_call:
            raise self.refuse(self.malformed("count"), f"1 to {self.ids_per_call} ids")
        ignores = "true" in (str(body.get(name)).lower() for name in ("ignore_invalid_id", "ignore_invalid_ids"))
        unknown = [text for text in ids if self.known is not None and text not in self.known]
        if unknown and not ignores:
            # one of them fails the whole request
            raise self.refuse(
                self.error(400, "invalid", "Invalid user_id or amplitude_id"), "ids are known, or ignored"
            )
        job = self.start_job(call, ids=[text for text in ids if text not in unknown])
        return [self._job(job)]

    @route("GET", "/api/2/deletions/users")
    def requests(self, call: Call) -> Any:
        first, last = call.query.get("start_day", ""), call.query.get("end_day", "")
        if not first or not last or first > last:
            raise self.refuse(self.malformed("days"), "start_day and end_day")
        return [told for told in map(self._job, self.jobs.values()) if first <= told["day"] <= last]

    @route("DELETE", "/api/2/deletions/users/{user}/{day}")
    def revoke(self, call: Call, user: str, day: str) -> Any:
        for job in self.jobs.values():
            told = self._job(job)
            if told["day"] == day and user in job.state["ids"] and told["status"] == "staging":
                job.state["ids"].remove(user)
                return self._job(job)
        raise self.refuse(self.error(404, "not_found", "Not found"), "a request is taken back while it is staged")

    def _job(self, job: Job) -> dict[str, Any]:
        day = datetime.fromtimestamp(job.started, UTC) + timedelta(days=self.days)
        age = self.age(job)
        status = "done" if age >= 1 else "submitted" if age >= 10 / 13 else "staging"
        ids = [{"user_id": text} for text in job.state["ids"]]
        return {"day": day.date().isoformat(), "status": status, "amplitude_ids": ids, "app": "1"}


class MixpanelDeletion(DeletionServer):
    """Mixpanel's deletion tasks, which take a token of a person and can be cancelled until they start."""

    days, ids_per_call = 30.0, 1_999

    def __init__(self, *, oauth: str = "oauth", token: str = "token", **common: Any) -> None:
        super().__init__(**common)
        self.oauth, self.token = oauth, token

    def documented_limits(self) -> list[Limit]:
        return [Sliding("a request a second", 1, 1.0)]

    def authorise(self, call: Call) -> None:
        if self.bearer(call) != self.oauth:
            raise self.refuse(self._told(401, "Unauthorized"), "calls carry the OAuth token of a person")
        if call.query.get("token") != self.token:
            raise self.refuse(self._told(403, "Forbidden"), "the project's token is in the query")

    def error(self, status: int, code: str, message: str) -> Answer:
        return self._told(status, message)

    @route("POST", "/api/app/data-deletions/v3.0/")
    def request(self, call: Call) -> Any:
        body = call.body
        if not fits(body, {"distinct_ids": [str]}) or body.get("compliance_type") not in ("GDPR", "CCPA"):
            raise self.refuse(self._told(400, "Bad Request"), "distinct_ids, and compliance_type GDPR or CCPA")
        if not 1 <= len(body.get("distinct_ids", ())) <= self.ids_per_call:
            raise self.refuse(self._told(400, "Bad Request"), f"1 to {self.ids_per_call} distinct_ids")
        return {"status": "ok", "results": [{"tracking_id": self.start_job(call, ids=body["distinct_ids"]).id}]}

    @route("GET", "/api/app/data-deletions/v3.0/{number}")
    def status(self, call: Call, number: str) -> Any:
        return {"status": "ok", "results": {"tracking_id": number, "status": self._status(self.jobs.get(number))}}

    @route("DELETE", "/api/app/data-deletions/v3.0/{number}")
    def cancel(self, call: Call, number: str) -> Any:
        job = self.jobs.get(number)
        if self._status(job) not in ("PENDING", "STAGING"):
            raise self.refuse(self._told(400, "Task cannot be cancelled"), "a task is cancelled before it starts")
        self.jobs[number].state["revoked"] = True
        return Answer(204)

    def _status(self, job: Job | None) -> str:
        if job is None:
            return "NOT_FOUND"
        age = self.age(job)
        if job.state.get("revoked"):
            return "REVOKED"
        done = "SUCCESS" if job.fails is None else "FAILURE"
        return done if age >= 1 else "STARTED" if age >= 0.5 else "STAGING" if age > 0 else "PENDING"

    def _told(self, status: int, error: str) -> Answer:
        return Answer(status, {"status": "error", "error": error})


def _subjects(call: Call) -> float:
    body = call.body if fits(call.body, {"subjectIds": list}) else {}
    return float(len(body.get("subjectIds", ())))
