"""Columns of data extensions in Marketing Cloud, and entry into journeys."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from heap_assets_tests.connectors.servers.core import Answer, Call, VendorServer, route

CENTRAL = timezone(timedelta(hours=-6))
"""Central time without daylight saving, in which dates without a zone are read."""


@dataclass(frozen=True)
class Column:
    """`type` is Text, EmailAddress, Number, Decimal, Boolean or Date."""

    type: str = "Text"
    length: int = 50
    primary: bool = False
    required: bool = False


class Journeys(VendorServer):
    """What `MarketingCloudServer` answers about events by which contacts enter journeys: none is ever deduplicated."""

    @route("POST", "/interaction/v1/events", shape={"ContactKey": str, "EventDefinitionKey": str, "Data": dict})
    def enter(self, call: Call) -> Any:
        body = call.body if isinstance(call.body, dict) else {}
        event = self._event(body.get("EventDefinitionKey"))
        if set(body) - {"ContactKey", "EventDefinitionKey", "Data"} or not body.get("ContactKey"):
            raise self.wrong("an event has ContactKey, EventDefinitionKey and Data")
        if problem := self._entry(call, event, body["ContactKey"], body.get("Data", {})):
            raise self.refuse(self.error(400, "30000", problem))
        return Answer(201, {"eventInstanceId": f"event-{len(self.events)}"})

    @route(
        "POST",
        "/interaction/v1/async/events",
        shape={"eventDefinitionKey": str, "members": [{"contactKey": str, "data": dict}]},
    )
    def enter_many(self, call: Call) -> Any:
        body = call.body if isinstance(call.body, dict) else {}
        event, members = self._event(body.get("eventDefinitionKey")), body.get("members")
        if (
            not isinstance(members, list)
            or not 0 < len(members) <= 100
            or set(body) - {"eventDefinitionKey", "members"}
        ):
            raise self.wrong("`members` are 1 to 100")
        if not all(
            isinstance(one, dict) and one.get("contactKey") and set(one) <= {"contactKey", "data"} for one in members
        ):
            raise self.wrong("a member has contactKey and data")
        wrong = [self._entry(call, event, one["contactKey"], one.get("data", {})) for one in members]
        told = [
            {"contactKey": one["contactKey"]} | ({"errors": [text]} if text else {})
            for one, text in zip(members, wrong, strict=True)
        ]
        bad = sum(map(bool, wrong))
        request = f"request-{self.next_id()}"
        return Answer(201, {"requestId": request, "count": len(told) - bad, "notQueuedCount": bad, "members": told})

    def _event(self, key: Any) -> str:
        if "." in str(key):
            raise self.wrong("the key of an event holds no period")
        if key not in self.event_extensions:
            raise self.wrong("the event is defined")
        return str(key)

    def _entry(self, call: Call, event: str, contact: str, data: dict[str, Any]) -> str | None:
        columns = self.extensions[self.event_extensions[event]]
        if unknown := [name for name in data if name not in columns]:
            return f"the event's data extension has no field {unknown}"
        if missing := [name for name, one in columns.items() if one.required and data.get(name) is None]:
            return f"required fields are missing: {missing}"
        problems = [f"{name}: {wrong}" for name, value in data.items() if (wrong := problem(columns[name], value))]
        if problems:
            return problems[0]
        if (bad := self.bad_row([contact, *data.values()], call)) is not None:
            return str(bad.get("message", "the contact is not active"))
        self.events.append({"event": event, "contact": contact, "data": data})
        return None


def problem(column: Column, value: Any) -> str | None:
    if value is None:
        return "a value is required" if column.required or column.primary else None
    text = str(value)
    if column.type in ("Text", "EmailAddress") and len(text) > column.length:
        return f"longer than {column.length}"
    shapes = {
        "Number": r"-?\d+",
        "Decimal": r"-?\d+(\.\d+)?",
        "Boolean": r"(?i)true|false",
        "Date": r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?)?",
        "EmailAddress": r"[^@\s]+@[^@\s]+\.[^@\s]+",
    }
    return None if re.fullmatch(shapes.get(column.type, "(?s).*"), text) else f"no {column.type}"


def stored(column: Column, value: Any) -> Any:
    if column.type != "Date" or value is None:
        return value
    at = datetime.fromisoformat(value)
    return at.replace(tzinfo=at.tzinfo or CENTRAL).astimezone(UTC).isoformat().replace("+00:00", "Z")
