"""Lists of an Iterable project, and how it tells who failed."""

from __future__ import annotations

from typing import Any

from heap_assets_tests.connectors.servers.core import Call, VendorServer, route

KINDS = ("conflict", "forgotten", "invalidData", "invalid", "notFound")


class Lists(VendorServer):
    """What `IterableServer` answers about lists."""

    @route("GET", "/api/lists")
    def show_lists(self, call: Call) -> Any:
        return {
            "lists": [
                {"id": int(id), "name": self.list_names.get(id, "list"), "listType": "Standard"} for id in self.lists
            ]
        }

    @route("POST", "/api/lists", shape={"name": str})
    def make_list(self, call: Call) -> Any:
        if not call.body.get("name"):
            raise self.wrong("a list has a name")
        id = str(self.next_id())
        self.lists[id], self.list_names[id] = set(), call.body["name"]
        return {"listId": int(id)}

    @route("GET", "/api/lists/getUsers")
    def members(self, call: Call) -> Any:
        return "\n".join(sorted(self._list(call.query.get("listId", ""))))

    @route("POST", "/api/lists/subscribe")
    def subscribe(self, call: Call) -> Any:
        people = self._rows(call, "subscribers", {"listId", "subscribers", "updateExistingUsersOnly"})
        members, only = self._list(call.body.get("listId")), call.body.get("updateExistingUsersOnly", False)
        if only and self.project == "email":
            raise self.wrong("updateExistingUsersOnly is for userID and hybrid projects")
        for one in people:
            self._check_person(one, {"email", "userId", "dataFields", "preferUserId"})
        created, dropped = self._learn([one.get("dataFields", {}) for one in people], create=True)
        failures = Failures()
        for one in people:
            why = self._person_problem(call, one)
            if why is None and self._find(one) is None and (only or not self._creates(one)):
                why = "notFound"
            if why is not None:
                failures.add(why, one)
                continue
            self._write(one, dropped)
            members.add(identifier(one))
        told = failures.told(len(people), old=self.old_names)
        return told | {"createdFields": sorted(created), "filteredOutFields": sorted(dropped)}

    @route("POST", "/api/lists/unsubscribe")
    def unsubscribe(self, call: Call) -> Any:
        people = self._rows(call, "subscribers", {"listId", "subscribers", "channelUnsubscribe", "campaignId"})
        members = self._list(call.body.get("listId"))
        if call.body.get("channelUnsubscribe"):
            self.broke("channelUnsubscribe takes people off everything", call)
        failures = Failures()
        for one in people:
            self._check_person(one, {"email", "userId"})
            why = self._person_problem(call, one) or (None if self._find(one) else "notFound")
            if why is not None:
                failures.add(why, one)
                continue
            members.discard(identifier(one))
            if call.body.get("channelUnsubscribe"):
                self.table("user")[identifier(one)]["unsubscribed"] = True
        return failures.told(len(people), old=self.old_names)

    def _list(self, id: Any) -> set[str]:
        if str(id) not in self.lists:
            raise self.wrong("the list exists", "NotFound")
        return self.lists[str(id)]


class Failures:
    """Who failed and why; by bucket and kind of identifier."""

    def __init__(self) -> None:
        self._people: list[tuple[str, str, str]] = []

    def add(self, why: str, row: dict[str, Any]) -> None:
        self._people.append((why, "Emails" if "email" in row else "UserIds", identifier(row)))

    def told(self, rows: int, *, old: bool) -> dict[str, Any]:
        told: dict[str, Any] = {"successCount": rows - len(self._people), "failCount": len(self._people)}
        for name in ("Emails", "UserIds"):
            told[f"invalid{name}"] = [
                key for why, kind, key in self._people if kind == name and why.startswith("invalid")
            ]
        buckets = {
            f"{why}{name}": [key for reason, kind, key in self._people if (reason, kind) == (why, name)]
            for why in KINDS
            for name in ("Emails", "UserIds")
        }
        return told if old else told | {"failedUpdates": buckets}


def identifier(row: dict[str, Any]) -> str:
    return str(row["email"]).lower() if "email" in row else str(row["userId"])
