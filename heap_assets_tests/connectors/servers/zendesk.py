"""A Zendesk account: users by jobs, search, and tickets that are read back by cursor."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

from heap_assets_tests.connectors.servers.core import Answer, Call, Job, Limit, Refused, Sliding, VendorServer, route
from heap_assets_tests.connectors.servers.zendesk_tickets import Tickets, fits_field

USER = {"external_id": str, "name": str, "user_fields": dict}
_TEXTS = ("phone", "alias", "details", "notes", "locale", "time_zone", "signature", "remote_photo_url")
OWN = USER | dict.fromkeys(_TEXTS, str) | {"organization_id": int, "default_group_id": int, "tags": list}
OWN |= {"verified": bool, "shared_phone_number": bool}


class ZendeskServer(Tickets, VendorServer):
    """An account; `user_fields[key]` is the type of a custom field (text, integer, decimal, checkbox, date, tagger).

    `mails` are the addresses that got a verification mail.

    Parameters
    ----------
    a_minute, exports_a_minute
        Calls by plan; calls of incremental exports.
    jobs_at_once
        Jobs that may be queued or running: from memory.
    case_sensitive
        Whether external ids tell `A` from `a`: not documented.
    email_first
        Whether an e-mail finds a user before the external id does: not documented.
    """

    email, api_token, oauth_token = "admin@example.com", "token-1", "oauth-1"
    job_life, jobs_kept = 3600.0, 100

    def __init__(
        self,
        *,
        a_minute: int = 700,
        exports_a_minute: int = 10,
        jobs_at_once: int = 30,
        case_sensitive: bool = False,
        email_first: bool = False,
        **core: Any,
    ) -> None:
        self._amounts = (a_minute, exports_a_minute)
        self.jobs_at_once, self.case_sensitive, self.email_first = jobs_at_once, case_sensitive, email_first
        self.user_fields: dict[str, str] = {}
        self.user_options: dict[str, set[str]] = {}
        self.mails: list[str] = []
        self._keys: dict[tuple[str, str], str] = {}
        super().__init__(**core)

    def documented_limits(self) -> list[Limit]:
        minute, exports = self._amounts
        return [
            Sliding(f"{minute} calls a minute", minute, 60),
            Sliding(f"{exports} exports a minute", exports, 60, cost=lambda call: "/incremental/" in call.path),
        ]

    def authorise(self, call: Call) -> None:
        basic = base64.b64encode(f"{self.email}/token:{self.api_token}".encode()).decode()
        if call.headers.get("authorization") not in (f"Basic {basic}", f"Bearer {self.oauth_token}"):
            raise self.refuse(self.unauthorised(call), "Basic of `<email>/token:<api token>`, or Bearer")

    def unauthorised(self, call: Call) -> Answer:
        return Answer(401, {"error": "Couldn't authenticate you"})

    def throttled(self, call: Call, wait: float, limit: Limit | None, *, code: str = "TooManyRequests") -> Answer:
        answer = self.error(429, code, "Rate limit exceeded")
        # whole seconds, but for faults whose test says so
        answer.headers["Retry-After"] = f"{wait if limit is None else max(1, round(wait)):g}"
        return answer

    def broken(self, call: Call, *, status: int = 503, wait: int = 5) -> Answer:
        answer = self.error(status, "ServiceUnavailable", "try again later")
        if status == 503:
            answer.headers["Retry-After"] = str(wait)
        return answer

    def refused_batch(self, call: Call, *, status: int = 422, code: str = "RecordInvalid") -> Answer:
        return self.error(status, code, "Record validation errors")

    def error(self, status: int, code: str, message: str) -> Answer:
        code = {"malformed": "InvalidJSON", "not_found": "RecordNotFound"}.get(code, code)
        return Answer(status, {"error": code, "description": message, "details": {}})

    def finish(self, call: Call, answer: Answer) -> None:
        if self.limits:
            limit, now = self.limits[0], self.clock()
            answer.headers["X-Rate-Limit"] = f"{limit.amount:g}"
            answer.headers["X-Rate-Limit-Remaining"] = f"{max(0.0, limit.left(now)):g}"
            answer.headers["ratelimit-reset"] = f"{max(0.0, limit.resets(now) - now):.0f}"

    def wrong(self, rule: str, status: int = 400, code: str = "BadRequest") -> Refused:
        return self.refuse(self.error(status, code, rule), rule)

    # jobs

    @route("POST", "/api/v2/users/create_or_update_many.json", shape={"users": [USER]})
    def upsert_many(self, call: Call) -> Any:
        return self._start(call, self._users(call), create=True)

    @route("PUT", "/api/v2/users/update_many.json", shape={"users": [USER], "user": USER})
    def update_many(self, call: Call) -> Any:
        for name in ("external_ids", "ids"):
            if keys := [key for key in call.query.get(name, "").split(",") if key]:
                if len(keys) > 100 or not isinstance(call.body.get("user"), dict):
                    raise self.wrong("at most 100 users, and one change for all in `user`")
                key_name = "external_id" if name == "external_ids" else "id"
                users = [{key_name: int(key) if key_name == "id" else key, **call.body["user"]} for key in keys]
                return self._start(call, users, create=False)
        return self._start(call, self._users(call), create=False)

    def _users(self, call: Call) -> list[dict[str, Any]]:
        users = call.body.get("users") if isinstance(call.body, dict) else None
        if not isinstance(users, list) or not users or not all(isinstance(user, dict) for user in users):
            raise self.wrong("`users` is a list of users")
        if len(users) > 100:
            raise self.wrong("at most 100 users a call", 422, "TooManyUsers")
        return users

    def _start(self, call: Call, users: list[dict[str, Any]], *, create: bool) -> dict[str, Any]:
        running = [job for job in self.jobs.values() if job.ready > self.clock()]
        if len(running) >= self.jobs_at_once:
            raise self.refuse(
                self.throttled(call, 10, None, code="TooManyJobs"), f"limit: {self.jobs_at_once} jobs at once"
            )
        job = self.start_job(call, total=len(users))
        done = len(users) if job.fails is None else job.fails.get("done", 0)
        job.state["results"] = [
            self._upsert(call, index, user, create=create) for index, user in enumerate(users[:done])
        ]
        return {"job_status": self._told(job, asked=False)}

    @route("GET", "/api/v2/job_statuses/{id}.json")
    def poll(self, call: Call, id: str) -> Any:
        job = self.jobs.get(id)
        # jobs vanish within an hour, and only the newest are kept
        if job is None or self.clock() >= job.started + self.job_life or id not in list(self.jobs)[-self.jobs_kept :]:
            raise self.refuse(self.error(404, "RecordNotFound", "Not found"))
        return {"job_status": self._told(job, asked=True)}

    def _told(self, job: Job, *, asked: bool) -> dict[str, Any]:
        first, over = job.polls == self.job_polls, asked and self.is_done(job)
        status = "working" if asked and not first else "queued"
        if over:
            status = "completed" if job.fails is None else job.fails.get("status", "failed")
        return {
            "id": job.id,
            "url": f"{self.url}/api/v2/job_statuses/{job.id}.json",
            "total": job.state["total"],
            "progress": job.state["total"] if over else 0,
            "status": status,
            "message": "Completed" if status == "completed" else None,
            "results": job.state["results"] if over else None,
        }

    def _upsert(self, call: Call, index: int, user: dict[str, Any], *, create: bool) -> dict[str, Any]:
        ids = {
            name: self.find(name, user[name]) for name in ("id", "external_id", "email") if user.get(name) is not None
        }
        known = {id for id in ids.values() if id}
        order = ("id", "email", "external_id") if self.email_first else ("id", "external_id", "email")
        target = next((ids[name] for name in order if ids.get(name)), None)
        wrong = None
        if len(known) > 1:
            wrong = "External has already been taken"
        elif target is None and (not create or "id" in user):
            wrong = "User not found"
        elif target is None and not user.get("name"):
            self.broke("a new user has a name", call, row=True, key=user.get("external_id"))
            wrong = "Name: is too short (minimum one character)"
        wrong = wrong or self._problem(user)
        if (bad := self.bad_row([*user.values(), *user.get("user_fields", {}).values()], call)) is not None:
            wrong = str(bad.get("message", "refused by a rule of the account"))
        if wrong:
            # this id is no user's
            return {"id": index, "status": "Failed", "error": "UserUpdateError", "details": wrong}
        return {"id": self.write(target, user), "status": "Updated" if target else "Created"}

    def _problem(self, user: dict[str, Any]) -> str | None:
        email = user.get("email")
        if email is not None and (not isinstance(email, str) or "@" not in email or " " in email):
            return f"Email: {email} is not properly formatted"
        for name, kind in OWN.items():
            value = user.get(name)
            if value is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
                return f"{name}: is of type {kind.__name__}"
        for name, value in user.get("user_fields", {}).items():
            # a field that does not exist is ignored, and nobody is told
            if name in self.user_fields and value is not None and not self._fits(name, value):
                return f"{name}: invalid value"
        return None

    def _fits(self, name: str, value: Any) -> bool:
        is_option = self.user_fields[name] != "tagger" or value in self.user_options[name]
        return is_option and fits_field(self.user_fields[name], value)

    def find(self, name: str, value: Any) -> str | None:
        """Return the id of a user by id, external id or any of its e-mails."""
        if name == "id":
            return str(value) if str(value) in self.table("user") else None
        return self._keys.get((name, self._key(name, value)))

    def _key(self, name: str, value: Any) -> str:
        return str(value) if name == "external_id" and self.case_sensitive else str(value).lower()

    def write(self, target: str | None, user: dict[str, Any]) -> int:
        """Write a user, as agents do, too; returns its id."""
        id, now = target or str(9000 + self.next_id()), self.stamp()
        held = self.table("user").setdefault(
            id, {"id": int(id), "created_at": now, "role": "end-user", "user_fields": {}}
        )
        fields = {name: value for name, value in user.get("user_fields", {}).items() if name in self.user_fields}
        rest = {n: v for n, v in user.items() if n not in ("id", "user_fields", "email", "skip_verify_email")}
        email = user.get("email")
        if email and held.get("email") and email.lower() != held["email"].lower():
            # another e-mail becomes a second identity, the first stays
            held["identities"] = [*held.get("identities", []), email]
        elif email and "email" not in held:
            held["email"] = email
            if target is None and not user.get("skip_verify_email") and not user.get("verified"):
                self.mails.append(email)
        if (old := held.get("external_id")) is not None and "external_id" in user:
            self._keys.pop(("external_id", self._key("external_id", old)), None)
        for name in ("external_id", "email"):
            if user.get(name) is not None:
                self._keys[name, self._key(name, user[name])] = id
        held |= {**rest, "user_fields": {**held["user_fields"], **fields}, "updated_at": now}
        return int(id)

    def stamp(self) -> str:
        return datetime.fromtimestamp(self.clock(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    # one user

    @route("POST", "/api/v2/users/create_or_update.json", shape={"user": USER})
    def upsert_one(self, call: Call) -> Any:
        if not isinstance(call.body.get("user"), dict):
            raise self.wrong("the body has `user`")
        result = self._upsert(call, 0, call.body["user"], create=True)
        if result["status"] == "Failed":
            raise self.refuse(self.error(422, "RecordInvalid", result["details"]))
        user = self.table("user")[str(result["id"])]
        return Answer(201 if result["status"] == "Created" else 200, {"user": user})

    @route("GET", "/api/v2/users/search.json")
    def search(self, call: Call) -> Any:
        text, external = call.query.get("query", ""), call.query.get("external_id")
        name, _, value = ("external_id", "", external) if external is not None else text.partition(":")
        if name not in ("external_id", "email") or not value:
            raise self.wrong("a search is external_id=…, or query=email:…")
        id = self.find(name, value)
        users = [self.table("user")[id]] if id else []
        return {"users": users, "count": len(users), "next_page": None, "previous_page": None}

    @route("GET", "/api/v2/user_fields.json")
    def fields(self, call: Call) -> Any:
        told = [{"key": key, "type": kind, "title": key, "active": True} for key, kind in self.user_fields.items()]
        return {"user_fields": told, "count": len(told), "next_page": None}

    @route("GET", "/api/v2/users/{id}.json")
    def read(self, call: Call, id: str) -> Any:
        if id not in self.table("user"):
            raise self.refuse(self.error(404, "RecordNotFound", "Not found"))
        return {"user": self.table("user")[id]}
