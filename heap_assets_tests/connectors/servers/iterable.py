"""An Iterable project: users, events and lists in bulk; field types are fixed for ever, failures name the person."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from heap_assets_tests.connectors.servers.core import Answer, Call, Limit, Refused, Sliding, VendorServer, route
from heap_assets_tests.connectors.servers.iterable_lists import Failures, Lists, identifier

FORBIDDEN = ("emailListIds", "unsubscribedChannelIds", "unsubscribedMessageTypeIds", "subscribedMessageTypeIds")
"""Names in `dataFields` that write consent without an event."""


class IterableServer(Lists, VendorServer):
    """A project; users are in `records["user"]` by e-mail or user id, known fields in `field_types`.

    Parameters
    ----------
    project
        What decides who a user is: `email`, `userID` or `hybrid`.
    rows
        Users or events of a call: about 1,000 by the documents.
    old_names
        Whether failures are told by the old names only (`invalidEmails`, `invalidUserIds` at the top).
    lists_a_second
        Calls to lists in a second: from memory.
    """

    api_key = "key-1"
    body_bytes = 4 << 20
    field_names = 1_000

    def __init__(
        self,
        *,
        project: str = "userID",
        rows: int = 1_000,
        old_names: bool = False,
        lists_a_second: int = 5,
        **core: Any,
    ) -> None:
        self.project, self.rows, self.old_names, self._lists_a_second = project, rows, old_names, lists_a_second
        self.field_types: dict[str, str] = {}
        self.event_types: dict[str, dict[str, str]] = {}
        self.forgotten: set[str] = set()
        self.list_names: dict[str, str] = {}
        self._places: dict[Any, int] = {}
        self.disallowed_events: set[str] = set()
        super().__init__(**core)

    def documented_limits(self) -> list[Limit]:
        counted = {"/api/users/bulkUpdate": 5, "/api/events/trackBulk": 10, "/api/lists/": self._lists_a_second}
        return [
            Sliding(f"{n} calls a second to {path}", n, 1, cost=lambda call, path=path: path in call.path)
            for path, n in counted.items()
        ]

    def authorise(self, call: Call) -> None:
        if call.headers.get("api-key") != self.api_key:
            raise self.refuse(self.unauthorised(call), "the key is sent as `Api-Key`")
        if call.size > self.body_bytes:
            raise self.refuse(self.error(413, "BatchTooLarge", "too large"), "a body has at most 4 MB")

    def unauthorised(self, call: Call) -> Answer:
        return self.error(401, "BadApiKey", "Invalid API key")

    def throttled(self, call: Call, wait: float, limit: Limit | None, **options: Any) -> Answer:
        return self.error(429, "RateLimitExceeded", "You have exceeded the rate limit")

    def broken(self, call: Call, *, status: int = 500, code: str = "DatabaseError") -> Answer:
        return self.error(status, code, "An error occurred")

    def refused_batch(self, call: Call, *, code: str = "RequestFieldsTypesMismatched") -> Answer:
        return self.error(400, code, "refused")

    def error(self, status: int, code: str, message: str) -> Answer:
        code = {"malformed": "BadJsonBody", "not_found": "NotFound"}.get(code, code)
        return Answer(status, {"code": code, "msg": message, "params": None})

    def wrong(self, rule: str, code: str = "BadParams") -> Refused:
        return self.refuse(self.error(400, code, rule), rule)

    # users

    @route(
        "POST",
        "/api/users/bulkUpdate",
        shape={"createNewFields": bool, "users": [{"mergeNestedObjects": bool, "preferUserId": bool}]},
    )
    def update(self, call: Call) -> Any:
        users = self._rows(call, "users", {"users", "createNewFields"})
        known = {"email", "userId", "preferUserId", "mergeNestedObjects", "dataFields"}
        for user in users:
            self._check_person(user, known)
            if set(user.get("dataFields", {})) & set(FORBIDDEN):
                raise self.wrong("consent is not written through dataFields")
        fields = [user.get("dataFields", {}) for user in users]
        created, dropped = self._learn(fields, create=call.body.get("createNewFields", False))
        failures = Failures()
        for user in users:
            why = self._person_problem(call, user)
            if why is None and self._find(user) is None and not self._creates(user):
                why = "notFound"
            if why is not None:
                failures.add(why, user)
                continue
            self._write(user, dropped)
        told = failures.told(len(users), old=self.old_names)
        return told | {"createdFields": sorted(created), "filteredOutFields": sorted(dropped)}

    def _rows(self, call: Call, name: str, members: set[str]) -> list[dict[str, Any]]:
        rows = call.body.get(name) if isinstance(call.body, dict) else None
        if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
            raise self.wrong(f"`{name}` is a list of objects")
        if set(call.body) - members:
            raise self.wrong(f"beside it there are only {', '.join(sorted(members))}")
        if len(rows) > self.rows:
            raise self.wrong(f"at most {self.rows} {name} a call", "BatchTooLarge")
        return rows

    def _check_person(self, row: dict[str, Any], known: set[str]) -> None:
        if set(row) - known:
            raise self.wrong(f"a row has only {', '.join(sorted(known))}")
        if ("email" in row) is ("userId" in row):
            raise self.wrong("a person has an email or a userId, not both")
        if not isinstance(row.get("email", row.get("userId")), str) or not isinstance(row.get("dataFields", {}), dict):
            raise self.wrong("identifiers are texts and dataFields an object")

    def _learn(self, fields: Iterable[dict[str, Any]], *, create: bool) -> tuple[set[str], set[str]]:
        """Fix the types of new fields; returns the names that were made and those that are dropped."""
        created, dropped, types = set(), set(), dict(self.field_types)
        for name, value in ((name, value) for one in fields for name, value in one.items()):
            if value is None:
                continue
            if name not in types:
                if not create:
                    dropped.add(name)
                    continue
                types[name] = _type(value)
                created.add(name)
            if types[name] != _type(value):
                # a value of another type refuses the whole batch
                raise self.refuse(self.error(400, "RequestFieldsTypesMismatched", f"{name} is a {types[name]}"))
        if len(types) > self.field_names:
            raise self.wrong(f"a project has at most {self.field_names} fields", "UniqueFieldsLimitExceeded")
        self.field_types = types
        return created, dropped

    def _person_problem(self, call: Call, row: dict[str, Any]) -> str | None:
        key = identifier(row)
        if key in self.forgotten:
            return "forgotten"
        if ("email" in row and ("@" not in key or " " in key)) or key == "":
            return "invalid"
        bad = self.bad_row([key, row.get("id"), *row.get("dataFields", {}).values()], call)
        return None if bad is None else str(bad.get("bucket", "invalidData"))

    def _write(self, row: dict[str, Any], dropped: set[str]) -> None:
        new = {name: row[name] for name in ("email", "userId") if name in row}
        held = self.table("user").setdefault(identifier(row), new)
        data = {name: value for name, value in row.get("dataFields", {}).items() if name not in dropped}
        held["dataFields"] = _merged(held.get("dataFields", {}), data, nested=row.get("mergeNestedObjects", False))

    def _find(self, row: dict[str, Any]) -> str | None:
        key = identifier(row)
        return key if key in self.table("user") else None

    def _creates(self, user: dict[str, Any]) -> bool:
        # an e-mail always makes a user; in projects by e-mail a user id does on request only
        return "email" in user or self.project != "email" or user.get("preferUserId") is True

    @route("GET", "/api/users/getFields")
    def fields(self, call: Call) -> Any:
        return {"fields": self.field_types}

    @route("GET", "/api/users/byUserId/{key}")
    @route("GET", "/api/users/{key}")
    def read(self, call: Call, key: str) -> Any:
        user = self.table("user").get(key.lower() if "@" in key else key)
        return {"user": user} if user else {}

    # events

    @route("POST", "/api/events/trackBulk", shape={"events": [{"id": str, "eventName": str}]})
    def track(self, call: Call) -> Any:
        events = self._rows(call, "events", {"events"})
        known = {
            "email",
            "userId",
            "eventName",
            "id",
            "createdAt",
            "dataFields",
            "campaignId",
            "templateId",
            "createNewFields",
        }
        types = {name: dict(fields) for name, fields in self.event_types.items()}
        for event in events:
            self._check_person(event, known)
            at = event.get("createdAt")
            rules = {
                "an event has a name": isinstance(event.get("eventName"), str) and bool(event["eventName"]),
                "createdAt is in Unix seconds": at is None or (isinstance(at, int) and 0 < at < 100_000_000_000),
                "an id has at most 512 bytes": len(str(event.get("id", "")).encode()) <= 512,
            }
            if broken := [rule for rule, kept in rules.items() if not kept]:
                raise self.wrong(broken[0])
            fields = types.setdefault(event["eventName"], {})
            for name, value in event.get("dataFields", {}).items():
                if value is not None and fields.setdefault(name, _type(value)) != _type(value):
                    text = f"{name} is a {fields[name]}"
                    raise self.refuse(self.error(400, "RequestFieldsTypesMismatched", text))
            if len(fields) > 8_000:
                raise self.wrong("an event has at most 8,000 fields", "UniqueFieldsLimitExceeded")
        self.event_types = types
        failures, disallowed = Failures(), set()
        for event in events:
            if event["eventName"] in self.disallowed_events:
                disallowed.add(event["eventName"])
            elif (why := self._person_problem(call, event)) is not None:
                failures.add(why, event)
            else:
                # the id is an upsert key: a repeat overwrites
                place = self._places.setdefault(event.get("id", object()), len(self.events))
                self.events[place : place + 1] = [event]
        return failures.told(len(events), old=self.old_names) | {"disallowedEventNames": sorted(disallowed)}


def _type(value: Any) -> str:
    names = {bool: "boolean", int: "number", float: "number", str: "string", list: "array", dict: "object"}
    return names[type(value)]


def _merged(held: dict[str, Any], new: dict[str, Any], *, nested: bool) -> dict[str, Any]:
    """Overwrite top-level fields, or with `nested` merge objects; null clears."""
    merged = dict(held)
    for name, value in new.items():
        if nested and isinstance(value, dict) and isinstance(held.get(name), dict):
            value = _merged(held[name], value, nested=True)
        merged[name] = value
    return {name: value for name, value in merged.items() if value is not None}
