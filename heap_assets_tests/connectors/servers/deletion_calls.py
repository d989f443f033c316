"""Deletion of users at Braze, Iterable, Intercom, HubSpot, mParticle and Optimizely, as destinations_b.md 5 has it.

`people` are those whom the destination knows by the key; calls in another shape are refused, and `deleted` and
`blocked` hold what became of keys. HubSpot's trap is kept: an address that it does not know is put on its block list.
"""

from __future__ import annotations

from typing import Any

from heap_assets_tests.connectors.servers.core import Answer, Call, VendorServer, route
from heap_assets_tests.connectors.servers.shapes import basic, fits

_BRAZE = {"external_ids", "user_aliases", "braze_ids", "email_addresses", "phone_numbers"}


class DeletionCalls(VendorServer):
    """One account of each vendor."""

    def __init__(self, people: dict[str, str], **common: Any) -> None:
        super().__init__(**common)
        self.people = people
        self.deleted: set[str] = set()
        self.blocked: set[str] = set()
        self.done = False

    def authorise(self, call: Call) -> None:
        headers = call.headers
        token = headers.get("api-key") or headers.get("x-api-key") or self.bearer(call)
        if token != "token" and headers.get("authorization") != basic("token", "secret"):
            raise self.refuse(self.error(401, "unauthorized", "Unauthorized"), "calls carry their key")

    def error(self, status: int, code: str, message: str) -> Answer:
        return Answer(status, {"code": code, "message": message})

    @route("POST", "/users/delete")
    def braze(self, call: Call) -> Answer:
        kinds = set(call.body) & _BRAZE
        if len(kinds) != 1 or len(call.body) != 1 or not 1 <= len(next(iter(call.body.values()))) <= 50:
            raise self.refuse(self.error(400, "bad", "one of the kinds"), "one kind of ids, up to 50")
        self.deleted |= set(next(iter(call.body.values()))) & set(self.people)
        return Answer(201, {"deleted": len(self.deleted), "message": "success"})

    @route("POST", "/api/users/forget")
    def iterable(self, call: Call) -> Answer:
        if set(call.body) not in ({"email"}, {"userId"}):
            raise self.refuse(self.error(400, "bad", "email or userId"), "email or userId")
        self.deleted |= set(call.body.values())
        self.blocked |= set(call.body.values())
        return Answer(200, {"code": "Success"})

    @route("POST", "/contacts/search")
    def intercom_search(self, call: Call) -> dict[str, Any]:
        wanted = set(call.body["query"]["value"][0]["value"])
        hits = [{"id": own, "email": key} for key, own in self.people.items() if key in wanted]
        return {"type": "list", "data": hits, "pages": {}}

    @route("POST", "/user_delete_requests")
    def intercom(self, call: Call) -> dict[str, Any]:
        own = call.body.get("intercom_user_id")
        if own not in self.people.values():
            raise self.refuse(self.error(404, "not_found", "User Not Found"), "Intercom's own id, looked up first")
        self.deleted |= {key for key, one in self.people.items() if one == own}
        return {"id": own}

    @route("POST", "/crm/v3/objects/contacts/batch/read")
    def hubspot_read(self, call: Call) -> dict[str, Any]:
        keys = [one["id"] for one in call.body["inputs"]]
        return {"results": [{"id": self.people[key], "properties": {}} for key in keys if key in self.people]}

    @route("POST", "/crm/v3/objects/contacts/gdpr-delete")
    def hubspot(self, call: Call) -> Answer:
        if call.body.get("idProperty") == "email" and call.body["objectId"] not in self.people:
            self.blocked.add(call.body["objectId"])
        elif call.body.get("objectId") not in self.people.values():
            raise self.refuse(self.error(404, "not_found", "no such contact"), "the id of a contact")
        self.deleted |= {key for key, one in self.people.items() if one == call.body["objectId"]}
        return Answer(204)

    @route("POST", "/v3/requests")
    def mparticle(self, call: Call) -> Answer:
        shape = {
            "regulation": str,
            "subject_request_id": str,
            "subject_request_type": str,
            "submitted_time": str,
            "subject_identities": dict,
            "api_version": str,
        }
        body = call.body
        if not fits(body, shape) or set(body) != set(shape) or body["subject_request_type"] != "erasure":
            raise self.refuse(self.error(400, "bad", "OpenDSR"), "an OpenDSR request")
        self.deleted |= {one["value"] for one in body["subject_identities"].values()}
        return Answer(201, {"subject_request_id": body["subject_request_id"]})

    @route("GET", "/v3/requests/{number}")
    def mparticle_status(self, call: Call, number: str) -> dict[str, Any]:
        return {"subject_request_id": number, "request_status": "completed" if self.done else "in_progress"}

    @route("POST", "/v3/compliance/gdpr/delete")
    def optimizely(self, call: Call) -> Answer:
        if not isinstance(call.body, list) or not all(len(one) == 1 for one in call.body):
            raise self.refuse(self.error(400, "bad", "an array"), "an array of identifiers")
        self.deleted |= {value for one in call.body for value in one.values()}
        return Answer(202, {"request_id": "r-1"})

    @route("GET", "/v3/compliance/gdpr/status/{number}")
    def optimizely_status(self, call: Call, number: str) -> dict[str, Any]:
        return {"request_id": number, "status": "completed" if self.done else "processing"}
