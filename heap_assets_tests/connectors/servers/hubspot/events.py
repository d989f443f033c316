"""Custom events and static lists."""

from __future__ import annotations

import re
from typing import Any

from heap_assets_tests.connectors.servers.core import Answer, Call, VendorServer, route
from heap_assets_tests.connectors.servers.hubspot.properties import moment

EVENT = {"eventName": str, "uuid": str, "properties": dict}


class EventsAndLists(VendorServer):
    """What `HubSpotServer` answers about them; `event_definitions[name]` are the properties of a defined event."""

    @route("POST", "/events/v3/send", shape=EVENT)
    @route("POST", "/events/2026-03/send", shape=EVENT)
    @route("POST", "/events/custom/2026-09/send", shape=EVENT)
    def send(self, call: Call) -> Any:
        return self._take_events(call, [call.body])

    @route("POST", "/events/v3/send/batch", shape={"inputs": [EVENT]})
    @route("POST", "/events/2026-03/send/batch", shape={"inputs": [EVENT]})
    @route("POST", "/events/custom/2026-09/send/batch", shape={"inputs": [EVENT]})
    def send_batch(self, call: Call) -> Any:
        inputs = call.body.get("inputs") if isinstance(call.body, dict) else None
        if not isinstance(inputs, list) or not 0 < len(inputs) <= 500:
            raise self.wrong("`inputs` are 1 to 500 events")
        return self._take_events(call, inputs)

    def _take_events(self, call: Call, events: list[Any]) -> None:
        if not self.enterprise:
            raise self.wrong("custom events need an Enterprise hub", "MISSING_SCOPES", 403)
        for event in events:
            self._check(event)
        held = {event.get("uuid") for event in self.events} if self.uuid_dedupes else set()
        for event in events:
            # 204 tells nothing of a row: a bad one is lost
            if self.bad_row([*event.values(), *event.get("properties", {}).values()], call) is not None:
                continue
            if event.get("uuid") is None or event["uuid"] not in held:
                self.events.append(event)
                held |= {event.get("uuid")} if self.uuid_dedupes else set()

    def _check(self, event: Any) -> None:
        known = {"eventName", "email", "utk", "objectId", "occurredAt", "uuid", "properties"}
        if not isinstance(event, dict) or set(event) - known:
            raise self.wrong(f"an event has only {', '.join(sorted(known))}")
        name, values = event.get("eventName"), event.get("properties", {})
        rules = {
            f"eventName is the full name pe{self.hub_id}_…, of an event that is defined": name in self.event_definitions
            and str(name).startswith(f"pe{self.hub_id}_"),
            "an event has an email, utk or objectId": bool({"email", "utk", "objectId"} & set(event)),
            "occurredAt is ISO 8601": moment(str(event.get("occurredAt", "2026-01-01"))) is not None,
            "at most 50 properties": len(values) <= 50,
            "properties are named [a-z][a-z0-9_]*, at most 50 characters": all(
                re.fullmatch(r"[a-z][a-z0-9_]{0,49}", one) for one in values
            ),
            "properties of an event are defined": set(values) <= self.event_definitions.get(str(name), set()),
            f"values have at most {self.event_value_chars} characters": all(
                len(str(value)) <= self.event_value_chars for value in values.values()
            ),
        }
        if broken := [rule for rule, kept in rules.items() if not kept]:
            raise self.wrong(broken[0])

    @route("POST", "/crm/v3/lists", shape=dict)
    @route("POST", "/crm/v3/lists/", shape=dict)
    def make_list(self, call: Call) -> Any:
        if not {"name", "objectTypeId", "processingType"} <= set(call.body):
            raise self.wrong("a list has name, objectTypeId and processingType")
        id = str(self.next_id())
        self.lists[id] = set()
        return {"list": {"listId": id, **call.body}}

    @route("PUT", "/crm/v3/lists/{id}/memberships/add-and-remove", shape=dict)
    def change_list(self, call: Call, id: str) -> Any:
        members = self._list(id)
        body = call.body if isinstance(call.body, dict) else {}
        add, remove = body.get("recordIdsToAdd"), body.get("recordIdsToRemove")
        if not isinstance(add, list) or not isinstance(remove, list):
            raise self.wrong("members to add and to remove are lists of record ids")
        if not all(isinstance(one, str | int) and str(one).isdigit() for one in (*add, *remove)):
            raise self.wrong("members are record ids")
        asked = [str(one) for one in add]
        there = [one for one in asked if self.find("contacts", "hs_object_id", one)]
        added = [one for one in there if one not in members]
        removed = [str(one) for one in remove if str(one) in members]
        self.lists[id] = members.union(added).difference(removed)
        missing = [one for one in asked if one not in there]
        return {"recordsIdsAdded": added, "recordIdsRemoved": removed, "recordIdsMissing": missing}

    @route("GET", "/crm/v3/lists/{id}/memberships")
    def read_list(self, call: Call, id: str) -> Any:
        return Answer(200, {"results": [{"recordId": one} for one in sorted(self._list(id))]})

    def _list(self, id: str) -> set[str]:
        if id not in self.lists:
            raise self.refuse(self.error(404, "OBJECT_NOT_FOUND", "List does not exist"))
        return self.lists[id]
