"""Mixpanel: an import that takes what is right and names the rest in a 400; profiles whose refusal is a 200.

Options are what the documents leave open or contradict: the name of the id in a failed record, the size of a body
(10 or 2 MB), and whether the other profiles of a refused call are taken.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import orjson

from heap_assets_tests.connectors.servers.core import Answer, Call, Limit, Sliding, VendorServer, route
from heap_assets_tests.connectors.servers.shapes import basic, counted, cut, depth, fits, listed

EVENTS, PROFILES, GROUPS, EVENT_BYTES, PROPERTIES, DEPTH, ITEMS, TEXT = 2_000, 2_000, 200, 1 << 20, 255, 3, 255, 255
YEAR_1971, HOUR = 31_536_000, 3600
PLACEHOLDERS = frozenset(
    ("anon", "anonymous", "nil", "none", "null", "n/a", "na", "undefined", "unknown", "<nil>", "0", "-1")
) | {"true", "false", "[]", "{}", "00000000-0000-0000-0000-000000000000"}
OPERATORS = frozenset(("$set", "$set_once", "$add", "$union", "$append", "$remove", "$unset", "$delete"))
_STATUS = {400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 413: "Request Entity Too Large"}
_BODIES = "application/json application/x-www-form-urlencoded"
_INSERT_ID = re.compile(r"[A-Za-z0-9-]{1,36}")


def _rows(call: Call) -> float:
    if call.path != "/import":
        return 0.0
    return float(call.body.count(b"\n") + 1 if isinstance(call.body, bytes) else len(call.body or ()))


def _option(call: Call, name: str) -> Any:
    """Return an option of the query, or of the form that older clients send."""
    return call.query.get(name) or (call.body.get(name) if isinstance(call.body, dict) else None)


class Mixpanel(VendorServer):
    """One project; profiles are in `records["users"]`, groups in `records["groups"]`.

    Parameters
    ----------
    insert_id_name
        Under which name a failed record has its `$insert_id`.
    most_bytes
        Of a body, uncompressed.
    refused_profiles
        Whether the `rest` of a call with a wrong profile is taken, or `none` of it.
    """

    gzip = True

    def __init__(
        self,
        *,
        token: str = "token",
        project: str = "1",
        account: tuple[str, str] = ("service", "secret"),
        insert_id_name: Literal["$insert_id", "insert_id"] = "$insert_id",
        most_bytes: int = 10 << 20,
        refused_profiles: Literal["none", "rest"] = "none",
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.token, self.project, self.account = token, project, account
        self.insert_id_name, self.most_bytes, self.refused_profiles = insert_id_name, most_bytes, refused_profiles
        self.located: set[str] = set()
        """Users who got the place of the sender, because no `ip` was told."""
        self._taken: set[tuple[Any, ...]] = set()

    def documented_limits(self) -> list[Limit]:
        return [
            Sliding("2 GB a minute", 2e9, 60.0, lambda call: float(call.size)),
            Sliding("30,000 events a second over a minute", 1_800_000, 60.0, _rows),
        ]

    def authorise(self, call: Call) -> None:
        if call.path != "/import":
            return
        header = call.headers.get("authorization", "")
        if header == basic(*self.account):
            if call.query.get("project_id") != self.project:
                raise self.refuse(self.error(400, "", "project_id"), "a service account tells project_id")
        elif header != basic(self.token, ""):
            raise self.refuse(self.unauthorised(call), "Basic of a service account, or of the token alone")

    def unauthorised(self, call: Call) -> Answer:
        return self.error(401, "", "Invalid credentials")

    def throttled(self, call: Call, wait: float, limit: Limit | None, **options: Any) -> Answer:
        told = {"code": 429, "error": "Project exceeded rate limits", "status": "Too Many Requests"}
        return Answer(429, told)

    def error(self, status: int, code: str, message: str) -> Answer:
        return Answer(status, {"code": status, "error": message, "status": _STATUS.get(status, "Error")})

    @route("POST", "/import", takes=f"{_BODIES} application/x-ndjson")
    def events_of_project(self, call: Call) -> Answer | dict[str, Any]:
        events = self._body(call)
        if not isinstance(events, list) or not events:
            raise self.refuse(self.error(400, "", "request body must be a list"), "the body is a list of events")
        strict = call.query.get("strict") == "1"
        if not strict:
            self.broke("strict=1 is sent", call)
        if len(events) > EVENTS:
            raise self.refuse(self.error(413, "", "too many events"), f"at most {EVENTS} events")
        failed = []
        for index, event in enumerate(events):
            wrong = self._wrong(event)
            told = wrong or self._made_bad(event, call)
            if told is None:
                self._store(event)
                continue
            properties = event.get("properties") if isinstance(event, dict) else None
            name = properties.get("$insert_id") if isinstance(properties, dict) else None
            failed.append({"index": index, self.insert_id_name: name, "field": told[0], "message": told[1]})
            if wrong:
                self.broke(wrong[1], call, row=True, key=index)
        if not failed or not strict:
            return {"code": 200, "num_records_imported": len(events) - len(failed), "status": "OK"}
        answer = self.error(400, "", "some data points in the request failed validation")
        answer.body |= {"num_records_imported": len(events) - len(failed), "failed_records": failed}
        return answer

    @route("POST", "/engage", takes=_BODIES)
    def profiles(self, call: Call) -> Answer:
        return self._update(call, "users", PROFILES, ("$distinct_id",))

    @route("POST", "/groups", takes=_BODIES)
    def groups(self, call: Call) -> Answer:
        return self._update(call, "groups", GROUPS, ("$group_key", "$group_id"))

    def _body(self, call: Call) -> Any:
        if isinstance(call.body, bytes):
            text = call.body
            try:
                body: Any = [orjson.loads(line) for line in text.splitlines() if line.strip()]
            except orjson.JSONDecodeError as error:
                raise self.refuse(self.malformed(str(error)), "each line is JSON") from error
        elif call.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            text = call.body.get("data", "").encode()
            try:
                body = listed(orjson.loads(text))
            except orjson.JSONDecodeError as error:
                raise self.refuse(self.malformed(str(error)), "the form has data, which is JSON") from error
        else:
            body, text = call.body, b"" if call.size < self.most_bytes // 20 else orjson.dumps(call.body)
        if max(len(text), call.size) > self.most_bytes:
            raise self.refuse(self.error(413, "", "request exceeds max limit"), f"at most {self.most_bytes} bytes")
        return body

    def _made_bad(self, event: dict[str, Any], call: Call) -> tuple[str, str] | None:
        properties = event["properties"]
        if self.is_bad((properties["$insert_id"], properties["distinct_id"]), call):
            return "properties", "'properties' is invalid"
        return None

    def _wrong(self, event: Any) -> tuple[str, str] | None:
        """Return the field of an event that is wrong, and how it is told."""
        if not isinstance(event, dict) or not isinstance(event.get("event"), str) or not event["event"]:
            return "event", "'event' is invalid: must not be missing or empty"
        properties = event.get("properties")
        if not isinstance(properties, dict):
            return "properties", "'properties' is invalid: must be an object"
        at = properties.get("time")
        if isinstance(at, bool) or not isinstance(at, int | float):
            return "properties.time", "'properties.time' is invalid: must be specified as seconds since epoch"
        seconds = at / 1000 if at > 1e11 else at
        if not YEAR_1971 <= seconds <= self.clock() + HOUR:
            return "properties.time", "'properties.time' is invalid: must be after 1971 and not in the future"
        user = properties.get("distinct_id")
        if not isinstance(user, str) or user.lower() in PLACEHOLDERS:
            return "properties.distinct_id", "'properties.distinct_id' is invalid: must not be missing or a placeholder"
        if not isinstance(properties.get("$insert_id"), str) or not _INSERT_ID.fullmatch(properties["$insert_id"]):
            return "properties.$insert_id", "'properties.$insert_id' is invalid: 36 bytes of A-Z, a-z, 0-9 and -"
        if len(properties) >= PROPERTIES or depth(properties) - 1 > DEPTH:
            return "properties", "'properties' is invalid: too many or nested too deep"
        if any(isinstance(value, list) and len(value) >= ITEMS for value in properties.values()):
            return "properties", "'properties' is invalid: a list is too long"
        texts = sum(len(value) for value in properties.values() if isinstance(value, str))
        if texts > EVENT_BYTES // 4 and len(orjson.dumps(event)) >= EVENT_BYTES:
            return "event", "'event' is invalid: 1 MB"
        return None

    def _store(self, event: dict[str, Any]) -> None:
        properties = event["properties"]
        if "ip" not in properties:
            self.located.add(properties["distinct_id"])
        key = (event["event"], properties["time"], properties["distinct_id"], properties["$insert_id"])
        if key not in self._taken:
            self._taken.add(key)
            self.events.append(cut(event, TEXT))

    def _update(self, call: Call, table: str, most: int, ids: tuple[str, ...]) -> Answer:
        body = self._body(call)
        rows = body if isinstance(body, list) else [body]
        if len(rows) > most:
            raise self.refuse(self._told(call, "too many updates", 413), f"at most {most} updates")
        wrong = [index for index, row in enumerate(rows) if not self._updates(row, ids)]
        for index in wrong:
            self.broke("an update has the token, ids and one operator", call, row=True, key=index)
        wrong += [i for i, row in enumerate(rows) if i not in wrong and self.is_bad([row[name] for name in ids], call)]
        if not wrong or self.refused_profiles == "rest":
            for row in (row for index, row in enumerate(rows) if index not in set(wrong)):
                key = "/".join(str(row[name]) for name in ids)
                if table == "users" and _option(call, "ip") != "0" and row.get("$ip") is None:
                    self.located.add(key)
                _apply(self.table(table), key, row)
        return self._told(call, f"{len(wrong)} updates are invalid" if wrong else None)

    def _told(self, call: Call, error: str | None, status: int = 200) -> Answer:
        """Answer the way of profiles: 200 whatever was refused."""
        taken = int(error is None)
        return Answer(status, {"status": taken, "error": error} if _option(call, "verbose") == "1" else str(taken))

    def _updates(self, row: Any, ids: tuple[str, ...]) -> bool:
        if not isinstance(row, dict) or row.get("$token") != self.token:
            return False
        values = [row.get(name) for name in ids]
        if not all(isinstance(value, str) and value and value.lower() not in PLACEHOLDERS for value in values):
            return False
        operators = [name for name in row if name in OPERATORS]
        if len(operators) != 1:
            return False
        names = row[operators[0]]
        kind: Any = {"$unset": [str], "$delete": object}.get(operators[0], dict)
        inner = {"$add": int | float, "$union": list}.get(operators[0])
        return fits(names, kind) and (inner is None or all(isinstance(value, inner) for value in names.values()))


def _apply(table: dict[str, dict[str, Any]], key: str, row: dict[str, Any]) -> None:
    if "$delete" in row:
        table.pop(key, None)
        return
    record = table.setdefault(key, {})
    record.update(cut(row.get("$set", {}), TEXT))
    for name, value in row.get("$set_once", {}).items():
        record.setdefault(name, value)
    for name, value in row.get("$add", {}).items():
        record[name] = counted(record.get(name)) + value
    for name, value in row.get("$append", {}).items():
        record[name] = [*listed(record.get(name)), value]
    for name, value in row.get("$union", {}).items():
        current = listed(record.get(name))
        record[name] = [*current, *(item for item in value if item not in current)]
    for name, value in row.get("$remove", {}).items():
        record[name] = [item for item in listed(record.get(name)) if item != value]
    for name in row.get("$unset", ()):
        record.pop(name, None)
