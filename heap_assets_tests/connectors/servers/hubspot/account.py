"""The account: who may come in, what it holds, and batches that write."""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime
from typing import Any

from heap_assets_tests.connectors.servers.core import Answer, Call, Fixed, Limit, Refused, Sliding, VendorServer
from heap_assets_tests.connectors.servers.hubspot.events import EventsAndLists
from heap_assets_tests.connectors.servers.hubspot.properties import STAGES, VERSIONS, Property, objects_path
from heap_assets_tests.connectors.servers.hubspot.reading import Reading

BATCH = {"inputs": [{"idProperty": str, "objectWriteTraceId": str}]}


class HubSpotServer(Reading, EventsAndLists, VendorServer):
    """An account with contacts and companies; `properties[object][name]` is the test's to set.

    Parameters
    ----------
    partial_by_email
        Whether an upsert by e-mail leaves properties that it does not name; else it empties them: not documented.
    email_update
        `batch/update` by e-mail `works`, or is `refused`: both were seen.
    ten_seconds, a_day, searches
        Calls in 10 s and a day, searches in a second: by plan.
    uuid_dedupes, event_value_chars, enterprise
        Of custom events: whether a repeated `uuid` is one event; the longest value; whether the account has them.
    """

    token = "pat-1"
    hub_id = 123

    def __init__(
        self,
        *,
        partial_by_email: bool = True,
        email_update: str = "works",
        ten_seconds: int = 190,
        a_day: int = 650_000,
        searches: int = 5,
        uuid_dedupes: bool = True,
        event_value_chars: int = 1024,
        enterprise: bool = True,
        **core: Any,
    ) -> None:
        self.partial_by_email, self.email_update = partial_by_email, email_update
        self.uuid_dedupes, self.event_value_chars, self.enterprise = uuid_dedupes, event_value_chars, enterprise
        self._amounts = (ten_seconds, a_day, searches)
        common = {
            "hs_object_id": Property("number", read_only=True),
            "createdate": Property("datetime", read_only=True),
            "heap_id": Property(unique=True),
        }
        self.properties: dict[str, dict[str, Property]] = {
            "contacts": common
            | {name: Property() for name in ("firstname", "lastname", "hs_additional_emails")}
            | {"email": Property(unique=True), "lastmodifieddate": Property("datetime", read_only=True)}
            | {"lifecyclestage": Property("enumeration", options=STAGES)},
            "companies": common
            | {"name": Property(), "domain": Property(), "hs_lastmodifieddate": Property("datetime", read_only=True)},
        }
        self.event_definitions: dict[str, set[str]] = {}
        self.scopes = {"crm.objects.contacts.write", "analytics.behavioral_events.send"}
        super().__init__(**core)
        self._unique: dict[tuple[str, str], dict[str, str]] = {}

    def documented_limits(self) -> list[Limit]:
        ten, day, searches = self._amounts
        found = Sliding("SECONDLY", searches, 1, cost=lambda call: call.path.endswith("/search"))
        rest = Sliding("TEN_SECONDLY_ROLLING", ten, 10, cost=lambda call: not call.path.endswith("/search"))
        return [rest, found, Fixed("DAILY", day, zone="UTC")]

    def authorise(self, call: Call) -> None:
        if self.bearer(call) != self.token:
            raise self.refuse(self.unauthorised(call), "the token is sent as Bearer")

    def unauthorised(self, call: Call) -> Answer:
        return self.error(401, "INVALID_AUTHENTICATION", "Authentication credentials not found")

    def throttled(self, call: Call, wait: float, limit: Limit | None, *, code: str = "TEN_SECONDLY_ROLLING") -> Answer:
        policy = limit.name if limit else code
        told = {"status": "error", "message": f"You have reached your {policy.lower()} limit.", "policyName": policy}
        return Answer(429, told | {"errorType": "RATE_LIMIT", "correlationId": "c-1"})

    def broken(self, call: Call, *, status: int = 502, wait: int = 2) -> Answer:
        answer = self.error(status, "SERVER_ERROR", "an internal error")
        if status == 477:
            answer.headers["Retry-After"] = str(wait)
        return answer

    def refused_batch(self, call: Call, *, code: str = "CONFLICT") -> Answer:
        """`CONFLICT` (409), another category (400), or `silent`: 200 and nothing was done."""
        if code == "silent":
            return Answer(200, self._told([], []))
        return self.error(409 if code == "CONFLICT" else 400, code, "refused")

    def error(self, status: int, code: str, message: str) -> Answer:
        category = {"malformed": "VALIDATION_ERROR", "not_found": "OBJECT_NOT_FOUND"}.get(code, code)
        return Answer(status, {"status": "error", "message": message, "correlationId": "c-1", "category": category})

    def finish(self, call: Call, answer: Answer) -> None:
        if self.limits and not call.path.endswith("/search"):
            ten, day, now = self.limits[0], self.limits[-1], self.clock()
            for name, value in {
                "Daily": day.amount,
                "Daily-Remaining": day.left(now),
                "Interval-Milliseconds": 10_000,
                "Max": ten.amount,
                "Remaining": ten.left(now),
            }.items():
                answer.headers[f"X-HubSpot-RateLimit-{name}"] = f"{value:.0f}"

    def wrong(self, rule: str, code: str = "VALIDATION_ERROR", status: int = 400) -> Refused:
        return self.refuse(self.error(status, code, rule), rule)

    # batches

    @objects_path("POST", "/batch/upsert", shape=BATCH)
    def upsert(self, call: Call, of: str, version: str = "2026-03") -> Any:
        return self._batch(call, of, version, "upsert")

    @objects_path("POST", "/batch/update", shape=BATCH)
    def update(self, call: Call, of: str, version: str = "2026-03") -> Any:
        return self._batch(call, of, version, "update")

    @objects_path("POST", "/batch/create", shape=BATCH)
    def create(self, call: Call, of: str, version: str = "2026-03") -> Any:
        return self._batch(call, of, version, "create")

    def _batch(self, call: Call, of: str, version: str, way: str) -> Answer:
        inputs = self.inputs(call, of, version)
        traced = all("objectWriteTraceId" in one for one in inputs)
        known = {"id", "idProperty", "properties", "objectWriteTraceId", "associations"}
        if not all(isinstance(one.get("properties"), dict) and set(one) <= known for one in inputs):
            raise self.wrong("every input has `properties`, and only documented members")
        if not all(isinstance(value, str) for one in inputs for value in one["properties"].values()):
            raise self.wrong("values of properties are texts")
        if way != "create" and not all(isinstance(one.get("id"), str) for one in inputs):
            raise self.wrong("every input has an `id`, a text")
        if way == "upsert" and not all(one.get("idProperty") for one in inputs):
            raise self.wrong("an upsert names the `idProperty`")
        if way == "update" and any("idProperty" not in one and not one["id"].isdigit() for one in inputs):
            self.broke("an id of another kind than the record's needs `idProperty`", call)
            return Answer(200, self._told([], []))  # as was seen: success, and nothing is changed
        if traced and len({one["objectWriteTraceId"] for one in inputs}) < len(inputs):
            raise self.wrong("trace ids are distinct")
        targets = [self._target(of, one, way) for one in inputs]
        keys = Counter(self._key(one, target) for one, target in zip(inputs, targets, strict=True))
        if way != "create" and max(keys.values()) > 1:
            raise self.wrong("no two inputs are one record")
        results, errors, plans = [], [], []
        for one, target in zip(inputs, targets, strict=True):
            code, message = self._problem(call, of, one, target, way)
            if code == "CONFLICT":
                raise self.refuse(self.error(409, code, message))
            if code and not traced:
                raise self.refuse(self.error(400, code, message))
            if code:
                errors.append((code, message, one["objectWriteTraceId"]))
            else:
                plans.append((one, target))
        for one, target in plans:
            full = way == "upsert" and one["idProperty"] == "email" and not self.partial_by_email
            record = self.write(of, target, one["properties"] | self._own(one, way), full=full)
            told = (
                record | {"new": target is None} | ({"objectWriteTraceId": one["objectWriteTraceId"]} if traced else {})
            )
            results.append(told)
        # no order is promised
        return Answer(207 if errors else 201 if way == "create" else 200, self._told(results[::-1], errors))

    def inputs(self, call: Call, of: str, version: str, most: int = 100) -> list[dict[str, Any]]:
        self.object(of, version)
        inputs = call.body.get("inputs") if isinstance(call.body, dict) else None
        if not isinstance(inputs, list) or not inputs or not all(isinstance(one, dict) for one in inputs):
            raise self.wrong("the body has a list of `inputs`")
        if len(inputs) > most:
            raise self.wrong(f"at most {most} inputs a call")
        return inputs

    def object(self, of: str, version: str = "2026-03") -> dict[str, Property]:
        if of not in self.properties or version not in VERSIONS:
            raise self.wrong("the object and the version exist", "OBJECT_NOT_FOUND", 404)
        return self.properties[of]

    def _told(self, results: list[dict[str, Any]], errors: list[tuple[str, str, str]]) -> dict[str, Any]:
        told: dict[str, Any] = {
            "status": "COMPLETE",
            "results": results,
            "startedAt": self.stamp(),
            "completedAt": self.stamp(),
        }
        if errors:
            traces: dict[tuple[str, str], list[str]] = {}
            for code, message, trace in errors:
                traces.setdefault((code, message), []).append(trace)
            told["numErrors"] = len(traces)
            told["errors"] = [
                {"status": "error", "category": code, "message": message, "context": {"objectWriteTraceId": ids}}
                for (code, message), ids in traces.items()
            ]
        return told

    def _own(self, one: dict[str, Any], way: str) -> dict[str, str]:
        return {one["idProperty"]: one["id"]} if way == "upsert" else {}

    def _key(self, one: dict[str, Any], target: str | None) -> str:
        return target or f"{one.get('idProperty')} {one.get('id', '').lower()}"

    def _target(self, of: str, one: dict[str, Any], way: str) -> str | None:
        if way == "create":
            return None
        name = one.get("idProperty", "hs_object_id")
        field = self.object(of).get(name)
        if field is None or not (field.unique or name == "hs_object_id"):
            raise self.wrong("the `idProperty` is unique")
        if way == "update" and name == "email" and self.email_update == "refused":
            raise self.wrong("an update names no non-unique 0-1 property")
        return self.find(of, name, one["id"])

    def find(self, of: str, name: str, value: str) -> str | None:
        """Return the id of the record that has a unique value; secondary e-mails count."""
        if name == "hs_object_id":
            return value if value in self.table(of) and not self.table(of)[value]["archived"] else None
        id = self._unique.setdefault((of, name), {}).get(value.lower() if name == "email" else value)
        return id if id and not self.table(of)[id]["archived"] else None

    def _problem(self, call: Call, of: str, one: dict[str, Any], target: str | None, way: str) -> tuple[str, str]:
        fields = self.object(of)
        values = one["properties"] | self._own(one, way)
        if way == "update" and target is None:
            return "OBJECT_NOT_FOUND", "Could not get some objects, they may be deleted or not exist."
        for name, value in values.items():
            if name not in fields:
                return "PROPERTY_DOESNT_EXIST", f'Property "{name}" does not exist'
            if code := fields[name].problem(value):
                return code, f"{name} was not valid"
            if name == "email" and value and not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", value):
                return "INVALID_EMAIL", "Email address is invalid"
            if fields[name].unique and value and (holder := self.find(of, name, value)) not in (None, target):
                return "CONFLICT", f"{name} already has that value. Existing ID: {holder}"
        if (bad := self.bad_row(values.values(), call)) is not None:
            return bad.get("code", "VALIDATION_ERROR"), bad.get("message", "refused by a rule of the account")
        return "", ""

    def write(self, of: str, target: str | None, values: dict[str, str], *, full: bool = False) -> dict[str, Any]:
        """Write a record as the account's users do, too; returns it."""
        table, now = self.table(of), self.stamp()
        if target is None:
            target = str(1000 + self.next_id())
            table[target] = {"id": target, "properties": {"createdate": now, "hs_object_id": target}, "createdAt": now}
        record = table[target]
        held = {n: v for n, v in record["properties"].items() if not full or n in ("createdate", "hs_object_id")}
        values = {n: v.lower() if n == "email" else v for n, v in values.items()}
        old, new = held.get("lifecyclestage"), values.get("lifecyclestage")
        if old and new and STAGES.index(new) < STAGES.index(old):
            values["lifecyclestage"] = old  # it never moves backwards, and nobody is told
        for name, value in values.items():
            if self.properties[of][name].unique:
                index = self._unique.setdefault((of, name), {})
                index.pop(held.get(name) or "", None)
                index |= {value: target} if value else {}
        for email in filter(None, values.get("hs_additional_emails", "").lower().split(";")):
            self._unique.setdefault((of, "email"), {})[email] = target
        held |= {n: v or None for n, v in values.items()}
        held["lastmodifieddate" if of == "contacts" else "hs_lastmodifieddate"] = now
        table[target] = record | {"properties": held, "updatedAt": now, "archived": False}
        return table[target]

    def stamp(self) -> str:
        return datetime.fromtimestamp(self.clock(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
