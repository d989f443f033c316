"""Tickets of a Zendesk account and the field that is written back; the incremental exports of tickets and users."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from heap_assets_tests.connectors.servers.core import Call, VendorServer, route


def fits_field(kind: str, value: Any) -> bool:
    """Whether a field of a user or a ticket takes a value; one of no type takes any."""
    if value is None or not kind:
        return True
    if kind == "checkbox":
        return isinstance(value, bool)
    if kind in ("integer", "decimal"):
        return isinstance(value, int if kind == "integer" else int | float) and not isinstance(value, bool)
    if kind == "date":
        try:
            return isinstance(value, str) and len(value) == 10 and bool(datetime.fromisoformat(value))
        except ValueError:
            return False
    return isinstance(value, str)


class Tickets(VendorServer):
    """What `ZendeskServer` answers about tickets; a page has `page_rows`.

    `ticket_fields` are the fields that there are: id to type, as of `user_fields`.
    """

    page_rows = 1_000
    ticket_fields: Mapping[int, str] = {1: "text"}

    def put_ticket(self, id: int | None = None, **values: Any) -> int:
        """Make or change a ticket, as people there do; returns its id."""
        id = id or self.next_id()
        held = self.table("ticket").setdefault(str(id), {"id": id, "status": "new", "custom_fields": []})
        # the order of the export: by the moment of the last change
        held |= {**values, "updated_at": self.stamp(), "generated_timestamp": int(self.clock())}
        return id

    @route("GET", "/api/v2/incremental/tickets/cursor.json")
    def export_tickets(self, call: Call) -> Any:
        rows = {id: (int(row["generated_timestamp"]), row) for id, row in self.table("ticket").items()}
        return self._export(call, "tickets", rows)

    @route("GET", "/api/v2/incremental/users/cursor.json")
    def export_users(self, call: Call) -> Any:
        """The same for users: the fact sheet has it for tickets only."""
        moments = {id: datetime.fromisoformat(row["updated_at"]) for id, row in self.table("user").items()}
        rows = {id: (int(moments[id].timestamp()), row) for id, row in self.table("user").items()}
        return self._export(call, "users", rows)

    def remove_user(self, id: int | str) -> None:
        """Delete a user, as agents do."""
        self.table("user")[str(id)] |= {"active": False, "updated_at": self.stamp()}

    def _export(self, call: Call, of: str, held: dict[str, tuple[int, dict[str, Any]]]) -> Any:
        start, cursor = call.query.get("start_time"), call.query.get("cursor")
        if (start is None) is (cursor is None):
            raise self.wrong("an export has a start_time, or a cursor that was given")
        size = int(call.query.get("per_page", self.page_rows))
        if not 0 < size <= 1_000:
            raise self.wrong("a page has at most 1,000 tickets")
        now, after = self.clock(), (0, 0)
        if start is not None:
            if not start.isdigit() or int(start) > now - 60:
                raise self.wrong("start_time is in Unix seconds and at least a minute old", 422, "InvalidValue")
            after = (int(start), -1)
        else:
            try:
                moment, _, id = base64.b64decode(cursor or "", validate=True).decode().partition("|")
                after = (int(moment), int(id))
            except (binascii.Error, ValueError) as fault:
                raise self.wrong("the cursor is one that was given", 422, "InvalidValue") from fault
        rows = sorted((moment, row["id"], row) for moment, row in held.values() if moment <= now - 60)
        rows = [row for row in rows if row[:2] > after]
        if rows:
            after = rows[:size][-1][:2]
        page = [row for *_, row in rows[:size]]
        text = base64.b64encode(f"{after[0]}|{after[1]}".encode()).decode()
        if call.query.get("exclude_deleted") == "true":
            page = [row for row in page if row.get("status") != "deleted"]
        return {
            of: page,
            "after_cursor": text,
            "after_url": f"{self.url}{call.path}?cursor={text}",
            "before_cursor": None,
            "before_url": None,
            "end_of_stream": len(rows) <= size,
        }

    @route("GET", "/api/v2/ticket_fields.json")
    def list_ticket_fields(self, call: Call) -> Any:
        fields = [{"id": id, "type": kind, "title": str(id), "active": True} for id, kind in self.ticket_fields.items()]
        return {"ticket_fields": fields, "count": len(fields), "next_page": None}

    @route("PUT", "/api/v2/tickets/{id}.json", shape={"ticket": {"custom_fields": [{"id": int}]}})
    def update_ticket(self, call: Call, id: str) -> Any:
        ticket = call.body.get("ticket") if isinstance(call.body, dict) else None
        if not isinstance(ticket, dict):
            raise self.wrong("the body has `ticket`")
        if id not in self.table("ticket") or self.table("ticket")[id]["status"] == "deleted":
            raise self.refuse(self.error(404, "RecordNotFound", "Not found"))
        fields = ticket.get("custom_fields", [])
        if not all(isinstance(one, dict) and set(one) == {"id", "value"} for one in fields):
            raise self.wrong("custom_fields are {id, value}")
        if self.table("ticket")[id]["status"] == "closed":
            text = "Status: closed prevents ticket update"
            raise self.refuse(self.error(422, "RecordInvalid", text))
        values = [one["value"] for one in fields]
        if self.bad_row(values, call) is not None or not all(
            fits_field(self.ticket_fields.get(one["id"], ""), one["value"]) for one in fields
        ):
            raise self.refuse(self.error(422, "RecordInvalid", "Record validation errors"))
        # fields that do not exist are ignored
        new = {one["id"]: one["value"] for one in fields if one["id"] in self.ticket_fields}
        held = {one["id"]: one["value"] for one in self.table("ticket")[id]["custom_fields"]} | new
        rest = {name: value for name, value in ticket.items() if name != "custom_fields"}
        self.put_ticket(int(id), **rest, custom_fields=[{"id": key, "value": value} for key, value in held.items()])
        return {"ticket": self.table("ticket")[id]}
