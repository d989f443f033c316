"""Optimizely: the Data Platform (profiles, events, lists, deletion) and the event endpoint of Feature Experimentation.

Not documented and so options: the status of a call over the rate, and whether the event endpoint tells of bad data.
"""

from __future__ import annotations

from typing import Any

from heap_assets_tests.connectors.servers.core import Answer, Call, Limit, Refused, Sliding, VendorServer, route
from heap_assets_tests.connectors.servers.limits import calls_to
from heap_assets_tests.connectors.servers.shapes import fits, values

OBJECTS, RATE, EVENT_BYTES = 500, 10, 3_500_000
IDENTIFIERS = frozenset(("email", "phone", "fs_user_id", "vuid", "customer_id"))
_LAWS = ("gdpr", "ccpa", "lgpd")
_ON_DEMAND = "is not valid for this account"
"""Reason of rows that break no rule."""


class OptimizelyDataPlatform(VendorServer):
    """The Data Platform: profiles are in `records["profiles"]` by their first identifier; `fields` is the schema."""

    def __init__(
        self,
        *,
        key: str = "key",
        fields: frozenset[str] = frozenset(("first_name", "last_name", "plan")),
        throttled_status: int = 429,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.key, self.fields, self.throttled_status = key, set(fields), throttled_status

    def documented_limits(self) -> list[Limit]:
        return [
            Sliding("profiles", RATE, 1.0, calls_to("/v3/profiles")),
            Sliding("subscriptions", RATE, 1.0, calls_to("/v3/lists/subscriptions")),
        ]

    def authorise(self, call: Call) -> None:
        if call.headers.get("x-api-key") != self.key:
            raise self.refuse(self.unauthorised(call), "x-api-key is the account's")

    def unauthorised(self, call: Call) -> Answer:
        return self.error(403, "Forbidden", "The API key is not valid")

    def throttled(self, call: Call, wait: float, limit: Limit | None, **options: Any) -> Answer:
        return self.error(self.throttled_status, "Too Many Requests", "Rate limit exceeded")

    def error(self, status: int, code: str, message: str) -> Answer:
        return Answer(status, {"title": code, "status": status, "detail": {"message": message}})

    @route("POST", "/v3/profiles")
    def profiles(self, call: Call) -> Answer:
        rows = self._objects(call)
        invalid = [told for row in rows for told in self._invalid_profile(row, call)]
        self._refuse_invalid(invalid)
        for row in rows:
            attributes = row["attributes"]
            key = next(str(attributes[name]) for name in attributes if name in IDENTIFIERS and attributes[name])
            self.table("profiles").setdefault(key, {}).update(attributes)
        return self._accepted()

    @route("POST", "/v3/events")
    def events_of_customers(self, call: Call) -> Answer:
        rows = self._objects(call)
        self._refuse_invalid([told for row in rows for told in self._invalid_event(row, call)])
        self.events.extend(rows)
        return self._accepted()

    @route("POST", "/v3/lists/subscriptions")
    def subscriptions(self, call: Call) -> Answer:
        rows = self._objects(call)
        invalid = []
        for row in rows:
            ids = [name for name in row if name in IDENTIFIERS] if isinstance(row, dict) else []
            if not ids or not row.get("list_id") or not isinstance(row["list_id"], str):
                invalid.append({"field": "list_id", "reason": "a list and an identifier are needed"})
            elif self.is_bad(values(row), call):
                invalid.append({"field": "list_id", "reason": _ON_DEMAND})
            elif not isinstance(row.get("subscribed", True), bool):
                invalid.append({"field": "subscribed", "reason": "must be a boolean"})
        self._refuse_invalid(invalid)
        for row in rows:
            members = self.lists.setdefault(row["list_id"], set())
            key = next(str(row[name]) for name in row if name in IDENTIFIERS)
            (members.add if row.get("subscribed", True) else members.discard)(key)
        return self._accepted()

    @route("GET", "/v3/schema/objects/{name}/fields")
    def schema_fields(self, call: Call, name: str) -> list[dict[str, str]]:
        return [{"name": field, "type": "string"} for field in sorted(self.fields | IDENTIFIERS)]

    @route("POST", "/v3/schema/objects/{name}/fields")
    def add_field(self, call: Call, name: str) -> Answer:
        body = call.body if isinstance(call.body, dict) else {}
        if not all(isinstance(body.get(part), str) for part in ("name", "type", "display_name")):
            raise self._refused([{"field": "name", "reason": "name, type and display_name are needed"}])
        self.fields.add(body["name"])
        return Answer(201, body)

    @route("POST", "/v3/compliance/{law}/delete")
    def delete(self, call: Call, law: str) -> Answer:
        rows = self._objects(call)
        wrong = [row for row in rows if not isinstance(row, dict) or not set(row) <= IDENTIFIERS or not row]
        if law not in _LAWS or wrong:
            raise self._refused([{"field": "identifiers", "reason": "must be known identifiers"}])
        for row in rows:
            for value in row.values():
                self.table("profiles").pop(str(value), None)
        return Answer(202, {"request_id": self.start_job(call).id})

    @route("GET", "/v3/compliance/{law}/status/{request}")
    def deletion_status(self, call: Call, law: str, request: str) -> dict[str, str]:
        job = self.jobs.get(request)
        if job is None or law not in _LAWS:
            raise self.refuse(self.error(404, "Not Found", "No such request"), "the request is there")
        return {"request_id": request, "status": "completed" if self.is_done(job) else "processing"}

    def _objects(self, call: Call) -> list[Any]:
        if not isinstance(call.body, list) or not 1 <= len(call.body) <= OBJECTS:
            raise self._refused([{"field": "", "reason": f"1 to {OBJECTS} objects are expected"}])
        return call.body

    def _invalid_profile(self, row: Any, call: Call) -> list[dict[str, str]]:
        attributes = row.get("attributes") if isinstance(row, dict) else None
        if not isinstance(attributes, dict) or not any(attributes.get(name) for name in IDENTIFIERS):
            return [{"field": "attributes", "reason": "an identifier is needed"}]
        unknown = [name for name in attributes if name not in self.fields | IDENTIFIERS]
        invalid = [{"field": f"attributes.{name}", "reason": "is not valid for this object"} for name in unknown]
        if self.is_bad(values(attributes), call):
            invalid.append({"field": f"attributes.{next(iter(attributes))}", "reason": _ON_DEMAND})
        return invalid

    def _invalid_event(self, row: Any, call: Call) -> list[dict[str, str]]:
        if not isinstance(row, dict) or not isinstance(row.get("type"), str):
            return [{"field": "type", "reason": "is required"}]
        identifiers = row.get("identifiers")
        if not isinstance(identifiers, dict) or not set(identifiers) & IDENTIFIERS:
            return [{"field": "identifiers", "reason": "an identifier is needed"}]
        if not isinstance(row.get("data", {}), dict):
            return [{"field": "data", "reason": "is not valid"}]
        return [{"field": "data", "reason": _ON_DEMAND}] if self.is_bad(values(row), call) else []

    def _refuse_invalid(self, invalid: list[dict[str, str]]) -> None:
        if invalid:
            raise self._refused(invalid)

    def _refused(self, invalid: list[dict[str, str]]) -> Refused:
        """Refuse all objects; fields are told, and not of which object."""
        answer = self.error(400, "Bad Request", "Some objects are invalid")
        answer.body["detail"]["invalids"] = invalid
        rules = [f"{one['field']}: {one['reason']}" for one in invalid if one["reason"] != _ON_DEMAND]
        return self.refuse(answer, rules[0] if rules else None)

    def _accepted(self) -> Answer:
        return Answer(202, {"title": "Accepted", "status": 202, "timestamp": int(self.clock())})


class OptimizelyEvents(VendorServer):
    """The event endpoint: no credentials, an empty 204 whatever came in; `tells` makes it answer 400 to bad data."""

    def __init__(self, *, account: str = "1", tells: bool = False, **common: Any) -> None:
        super().__init__(**common)
        self.account, self.tells = account, tells
        self._uuids: set[str] = set()

    @route("POST", "/v1/events")
    def take(self, call: Call) -> Answer:
        body = call.body if isinstance(call.body, dict) else {}
        visitors = body.get("visitors")
        if call.size > EVENT_BYTES:
            raise self.refuse(self.error(413, "too_large", "too large"), f"at most {EVENT_BYTES} bytes")
        fits = body.get("account_id") == self.account and isinstance(visitors, list) and visitors
        if not fits or not isinstance(body.get("anonymize_ip"), bool) or not all(map(_is_visitor, visitors)):
            self.broke("account_id, anonymize_ip, visitors with snapshots of events", call)
            return self.error(400, "invalid", "invalid") if self.tells else Answer(204)
        for visitor in visitors:
            for event in (event for snapshot in visitor["snapshots"] for event in snapshot["events"]):
                if event["uuid"] not in self._uuids and not self.is_bad(values(event), call):
                    self._uuids.add(event["uuid"])
                    self.events.append({"visitor_id": visitor["visitor_id"], **event})
        return Answer(204)


def _is_visitor(visitor: Any) -> bool:
    if not isinstance(visitor, dict) or not isinstance(visitor.get("visitor_id"), str):
        return False
    attributes, snapshots = visitor.get("attributes", []), visitor.get("snapshots")
    if not fits(visitor, {"attributes": [dict], "snapshots": [{"events": [dict]}]}) or snapshots is None:
        return False
    if not all(attribute.get("type") == "custom" and attribute.get("entity_id") for attribute in attributes):
        return False
    return all(_is_snapshot(snapshot) for snapshot in snapshots)


def _is_snapshot(snapshot: Any) -> bool:
    texts = ("entity_id", "key", "uuid")
    return all(
        all(isinstance(event.get(name), str) and event[name] for name in texts)
        and isinstance(event.get("timestamp"), int)
        and event["timestamp"] > 10**11
        and isinstance(event.get("revenue", 0), int)
        for event in snapshot.get("events", [{}])
    )
