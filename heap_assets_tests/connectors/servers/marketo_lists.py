"""Static lists of a Marketo instance."""

from __future__ import annotations

from typing import Any

from heap_assets_tests.connectors.servers.core import Call, VendorServer, route

MEMBERS = {"input": [{"id": int}]}


class StaticLists(VendorServer):
    """What `MarketoServer` answers about static lists: their members are ids of leads."""

    @route("POST", "/rest/asset/v1/staticLists.json", takes="application/x-www-form-urlencoded")
    def make_list(self, call: Call) -> Any:
        if not {"name", "folder"} <= set(call.body or {}):
            raise self.wrong("a list has a name and a folder")
        if call.body["name"] in self.list_names.values():
            raise self.wrong("names of lists are unique", "709")
        id = str(self.next_id())
        self.lists[id], self.list_names[id] = set(), call.body["name"]
        return self.told([{"id": int(id), "name": call.body["name"]}])

    @route("POST", "/rest/v1/lists/{id}/leads.json", takes="application/json nothing", shape=MEMBERS)
    @route("DELETE", "/rest/v1/lists/{id}/leads.json", takes="application/json nothing", shape=MEMBERS)
    def change_list(self, call: Call, id: str) -> Any:
        # the page tells of the query, clients send bodies
        leads = call.query.getlist("id") or [str(row.get("id")) for row in (call.body or {}).get("input", [])]
        if not 0 < len(leads) <= 300 or not all(lead.isdigit() for lead in leads):
            raise self.wrong("1 to 300 ids of leads")
        if id not in self.lists:
            raise self.wrong("the list exists", "1013")
        return self.told([{"id": int(lead)} | self._change(call, id, lead) for lead in leads])

    def _change(self, call: Call, id: str, lead: str) -> dict[str, Any]:
        members, adds = self.lists[id], call.method == "POST"
        if lead not in self.table("lead") or self.bad_row([lead], call) is not None:
            return skipped("1004", "Lead not found")
        if (lead in members) is adds:
            if self.member_words:
                return {"status": "memberof" if adds else "notmemberof"}
            return skipped("1015", "Lead not in list") if not adds else {"status": "skipped", "reasons": []}
        (members.add if adds else members.remove)(lead)
        return {"status": "added" if adds else "removed"}

    @route("GET", "/rest/v1/list/{id}/leads.json")
    @route("GET", "/rest/v1/lists/{id}/leads.json")
    def read_list(self, call: Call, id: str) -> Any:
        leads = [self.table("lead")[one] for one in sorted(self.lists.get(id, ()), key=int)]
        return self.told([{"id": lead["id"], "email": lead.get("email")} for lead in leads])


def skipped(code: str, message: str) -> dict[str, Any]:
    return {"status": "skipped", "reasons": [{"code": code, "message": message}]}
