"""Meta's custom audiences and conversions: rows by position, counts without names, errors told by codes in the body.

What no document states is an option. `fail("throttle", code=80003)`, `fail("refuse_batch", code=100, subcode=1713230)`
and `fail("server_error", code=2)` choose the error; the status is 400 for most of them.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from typing import Any, Literal
from urllib.parse import parse_qsl

import orjson

from heap_assets_tests.connectors.servers.core import Answer, Call, Limit, Refused, Sliding, VendorServer, route
from heap_assets_tests.connectors.servers.meta_rows import check_event, is_session, member_key, schema_and_rows
from heap_assets_tests.connectors.servers.shapes import values

ROWS, EVENTS, HOUR = 10_000, 1_000, 3600.0
_BODIES = "application/json application/x-www-form-urlencoded"
_TITLES = {
    4: "Application request limit reached",
    190: "Error validating access token",
    463: "Session has expired",
    2655: "Terms of service have not been accepted",
    1713230: "Audience Upload Blocked",
}


class Meta(VendorServer):
    """The Graph API of one ad account.

    Parameters
    ----------
    secret
        The app's; with it each call needs its proof.
    proof
        What the proof signs: the `token`, or the token and the `appsecret_time` of the call (`token|time`).
    calls_an_hour
        What the usage headers are shares of; the documents give a formula of the account's size.
    session_seconds, event_age
        How long a replacement may take, and how old an event may be.
    """

    def __init__(
        self,
        *,
        token: str = "token",
        secret: str | None = None,
        proof: Literal["token", "time"] = "token",
        versions: tuple[str, ...] = ("v24.0", "v25.0"),
        audiences: tuple[str, ...] = ("1001",),
        session_seconds: float = 5400.0,
        event_age: float = 7 * 86_400.0,
        calls_an_hour: int = 5_000,
        **common: Any,
    ) -> None:
        self.calls_an_hour = calls_an_hour
        super().__init__(**common)
        self.token, self.secret, self.proof, self.versions = token, secret, proof, versions
        self.session_seconds, self.event_age = session_seconds, event_age
        self.lists = {audience: set() for audience in audiences}
        self.flagged: set[str] = set()
        """Audiences under review (error 1713230); `gone` are deleted ones (1487366)."""
        self.gone: set[str] = set()
        self._sessions: dict[str, dict[str, Any]] = {}
        self._event_ids: dict[tuple[str, str], float] = {}

    def documented_limits(self) -> list[Limit]:
        return [Sliding("custom_audience", self.calls_an_hour, HOUR)]

    def authorise(self, call: Call) -> None:
        version = call.path.split("/")[1]
        if version not in self.versions:
            raise self._failed(2635, f"version is one of {self.versions}", "You are calling a deprecated version")
        token = self.bearer(call) or self._parameter(call, "access_token")
        if token != self.token:
            raise self._failed(190, "calls carry the token", subcode=463)
        if self.secret is None:
            return
        signed = f"{token}|{self._parameter(call, 'appsecret_time')}" if self.proof == "time" else token
        proof = hmac.new(self.secret.encode(), signed.encode(), hashlib.sha256).hexdigest()
        if self._parameter(call, "appsecret_proof") != proof:
            raise self._failed(100, "appsecret_proof is an HMAC-SHA256", "Invalid appsecret_proof provided")

    def _parameter(self, call: Call, name: str) -> str:
        if (value := call.query.get(name)) is not None:
            return value
        # who calls is asked before the body is decoded
        if call.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            return dict(parse_qsl(call.raw.decode())).get(name, "")
        try:
            body = orjson.loads(call.raw)
        except orjson.JSONDecodeError:
            return ""
        return str(body.get(name, "")) if isinstance(body, dict) else ""

    def unauthorised(self, call: Call) -> Answer:
        return self._error(190, subcode=463)

    def throttled(self, call: Call, wait: float, limit: Limit | None, *, code: int = 80003, **options: Any) -> Answer:
        answer = self._error(code, "There have been too many calls.", status=options.get("status", 400))
        self._usage(answer, 100, wait)
        return answer

    def broken(self, call: Call, *, status: int = 500, code: int = 2, **options: Any) -> Answer:
        return self._error(code, "An unexpected error has occurred.", status=status, transient=True)

    def refused_batch(self, call: Call, *, code: int = 100, subcode: int | None = None, **options: Any) -> Answer:
        return self._error(code, subcode=subcode, status=options.get("status", 400))

    def error(self, status: int, code: str, message: str) -> Answer:
        return self._error(100, message, status=status)

    def finish(self, call: Call, answer: Answer) -> None:
        if "X-Business-Use-Case-Usage" not in answer.headers and self.limits:
            limit = self.limits[0]
            self._usage(answer, int(100 - 100 * limit.left(self.clock()) / limit.amount), 0.0)

    @route("GET", "/{version}/{audience}")
    def read(self, call: Call, version: str, audience: str) -> dict[str, Any]:
        """Return the fields that are asked for; that an audience has these is [M]."""
        if audience not in self.lists or audience in self.gone:
            raise self._failed(100, None, subcode=1487366 if audience in self.gone else 33)
        status = {"code": 471, "description": "flagged"} if audience in self.flagged else {"code": 200}
        known = {"id": audience, "name": "people", "subtype": "CUSTOM", "operation_status": status}
        asked = call.query.get("fields", "id").split(",")
        if unknown := set(asked) - set(known):
            raise self._failed(100, f"an audience has no fields {sorted(unknown)}")
        return {name: known[name] for name in asked}

    @route("POST", "/{version}/{audience}/users", takes=_BODIES)
    def add(self, call: Call, version: str, audience: str) -> dict[str, Any]:
        return self._change(call, audience, "add")

    @route("DELETE", "/{version}/{audience}/users", takes=_BODIES)
    def remove(self, call: Call, version: str, audience: str) -> dict[str, Any]:
        return self._change(call, audience, "remove")

    @route("POST", "/{version}/{audience}/usersreplace", takes=_BODIES)
    def replace(self, call: Call, version: str, audience: str) -> dict[str, Any]:
        return self._change(call, audience, "replace")

    @route("POST", "/{version}/act_{account}/customaudiences", takes=_BODIES)
    def create(self, call: Call, version: str, account: str) -> dict[str, str]:
        body = self._fields(call)
        if body.get("subtype") != "CUSTOM" or not body.get("name") or not body.get("customer_file_source"):
            raise self._failed(100, "name, subtype CUSTOM and customer_file_source are required")
        audience = str(2000 + self.next_id())
        self.lists[audience] = set()
        return {"id": audience}

    @route("POST", "/{version}/{pixel}/events", takes=_BODIES)
    def events_of_pixel(self, call: Call, version: str, pixel: str) -> dict[str, Any]:
        events = self._fields(call).get("data")
        if not isinstance(events, list) or not 1 <= len(events) <= EVENTS:
            raise self._failed(100, f"data is a list of 1 to {EVENTS} events")
        for event in events:
            self._check_event(call, event)
        for event in events:
            key = (event["event_name"], event.get("event_id", f"none-{self.next_id()}"))
            if self.clock() - self._event_ids.get(key, -1e12) > 48 * HOUR:
                self._event_ids[key] = self.clock()
                self.events.append({"pixel": pixel, **event})
        return {"events_received": len(events), "messages": [], "fbtrace_id": "trace"}

    def _check_event(self, call: Call, event: Any) -> None:
        try:
            check_event(event)
        except ValueError as error:
            raise self._failed(100, str(error)) from error
        if not self.clock() - self.event_age <= event["event_time"] <= self.clock() + 60:
            raise self._failed(100, "events are of the last seven days", subcode=2804003)
        if self.is_bad((event.get("event_id"), *values(event["user_data"])), call):
            raise self._failed(100, None)

    def _change(self, call: Call, audience: str, how: Literal["add", "remove", "replace"]) -> dict[str, Any]:
        body = self._fields(call)
        if audience not in self.lists or audience in self.gone:
            raise self._failed(100, "the audience is there", subcode=1487366 if audience in self.gone else 33)
        if audience in self.flagged:
            raise self._failed(100, None, subcode=1713230)
        keys, received = self._members(call, body.get("payload"))
        session = self._stage(audience, body.get("session"), keys, replaces=how == "replace")
        if how == "add":
            self.lists[audience].update(keys)
        elif how == "remove":
            self.lists[audience].difference_update(keys)
        return {
            "audience_id": audience,
            "session_id": str(session or self.next_id()),
            "num_received": received,
            # how many, and never which
            "num_invalid_entries": received - len(keys),
            "invalid_entry_samples": {},
        }

    def _members(self, call: Call, payload: Any) -> tuple[list[str], int]:
        try:
            schema, rows = schema_and_rows(payload, ROWS)
            keys = [member_key(schema, row) for row in rows]
        except ValueError as error:
            raise self._failed(100, str(error)) from error
        good = [key for key, row in zip(keys, rows, strict=True) if key is not None and not self.is_bad(row, call)]
        return good, len(rows)

    def _stage(self, audience: str, session: Any, keys: list[str], *, replaces: bool) -> int | None:
        """Hold the members of a replacement until its last batch; then they are all that are in the audience."""
        if session is None and not replaces:
            return None
        if not is_session(session):
            raise self._failed(100, "a session has session_id, batch_seq from 1, last_batch_flag")
        number, sequence = session["session_id"], session["batch_seq"]
        if not replaces:
            return number
        current = self._sessions.get(audience)
        if current is None or self.clock() - current["started"] > self.session_seconds:
            self._sessions.pop(audience, None)
            if sequence != 1:
                raise self._failed(100, "a replacement begins with batch_seq 1 and ends in time")
            current = self._sessions[audience] = {"id": number, "started": self.clock(), "next": 1, "keys": set()}
        if current["id"] != number:
            raise self._failed(100, "an audience has one replacement at a time")
        # the batch before may come again: its answer may have been lost
        if sequence not in (current["next"], current["next"] - 1):
            raise self._failed(100, "batch_seq counts without a gap")
        current["keys"].update(keys)
        current["next"] = sequence + 1
        if session["last_batch_flag"]:
            self.lists[audience] = self._sessions.pop(audience)["keys"]
        return number

    def _fields(self, call: Call) -> dict[str, Any]:
        """Return the parameters; in a form or a query each is JSON or text."""
        # a DELETE of Meta's own client has them all in the query
        body = {**call.query, **(call.body if isinstance(call.body, dict) else {})}
        names = ("payload", "session", "data")
        try:
            return {n: orjson.loads(v) if n in names and isinstance(v, str) else v for n, v in body.items()}
        except orjson.JSONDecodeError as error:
            raise self._failed(100, "payload, session and data are JSON") from error

    def _failed(self, code: int, rule: str | None, message: str = "", *, subcode: int | None = None) -> Refused:
        return self.refuse(self._error(code, message, subcode=subcode), rule)

    def _error(
        self, code: int, message: str = "", *, subcode: int | None = None, status: int = 400, transient: bool = False
    ) -> Answer:
        title = _TITLES.get(subcode or code, message or "Invalid parameter")
        told: dict[str, Any] = {"message": message or title, "type": "OAuthException", "code": code}
        if subcode is not None:
            told["error_subcode"] = subcode
        told |= {"is_transient": transient, "error_user_title": title, "fbtrace_id": "trace"}
        return Answer(status, {"error": told})

    def _usage(self, answer: Answer, percent: int, wait: float) -> None:
        shares = {"call_count": percent, "total_cputime": percent // 2, "total_time": percent // 2}
        business = {"type": "custom_audience", **shares, "estimated_time_to_regain_access": math.ceil(wait / 60)}
        answer.headers["X-Business-Use-Case-Usage"] = orjson.dumps({"900": [business]}).decode()
        answer.headers["X-App-Usage"] = orjson.dumps(shares).decode()
