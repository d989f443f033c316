"""The search of an Intercom workspace."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from heap_assets_tests.connectors.servers.core import Call, VendorServer, route

STANDARD = {
    "role": str,
    "external_id": str,
    "email": str,
    "name": str,
    "phone": str,
    "avatar": str,
    "signed_up_at": int,
    "last_seen_at": int,
    "owner_id": int,
    "unsubscribed_from_emails": bool,
    "custom_attributes": dict,
}
OPERATORS = ("=", "!=", "IN", "NIN", "<", ">", "~", "!~", "^", "$")
DATES = ("created_at", "updated_at", "signed_up_at", "last_seen_at")


class Search(VendorServer):
    """What `IntercomServer` answers to searches: of what its index knows, dates by day."""

    @route("POST", "/contacts/search", "read", shape={"pagination": dict})
    def search(self, call: Call) -> Any:
        query = call.body.get("query")
        paging = call.body.get("pagination", {})
        size, after = paging.get("per_page", 50), paging.get("starting_after") or "0"
        if not isinstance(size, int) or not 0 < size <= 150 or not str(after).isdigit():
            raise self.wrong("a page has at most 150 and goes on after a cursor that was given")
        self._check_query(query, 1)
        contacts = self.table("contact")
        rows = [
            row
            for id, row in ((id, contacts[id]) for id in self._candidates(query))
            if not row["archived"]
            and id not in self.merged
            and row["updated_at"] + self.index_seconds <= self.clock()
            and self._fits_query(query, row)
        ]
        start = int(after)
        more = {"next": {"starting_after": str(start + size)}} if start + size < len(rows) else {}
        told = {"type": "list", "data": rows[start : start + size], "total_count": len(rows)}
        return told | {"pages": {"type": "pages", "page": start // size + 1, "per_page": size} | more}

    def _candidates(self, query: dict[str, Any]) -> Iterable[str]:
        """Return the ids of the contacts that may fit, from an index where one helps."""
        if query["operator"] == "AND" and len(query["value"]) == 1:
            return self._candidates(query["value"][0])
        if query.get("field") not in ("external_id", "email") or query["operator"] not in ("=", "IN"):
            return self.table("contact")
        values = query["value"] if query["operator"] == "IN" else [query["value"]]
        if None in values:
            return self.table("contact")
        return sorted({id for value in values for id in self.find(query["field"], str(value))})

    def _check_query(self, query: Any, level: int) -> None:
        if not isinstance(query, dict):
            raise self.wrong("a search has a query")
        if query.get("operator") in ("AND", "OR"):
            values = query.get("value")
            if level > 2 or not isinstance(values, list) or not 0 < len(values) <= 15:
                raise self.wrong("groups have 1 to 15 filters, on 2 levels")
            for one in values:
                self._check_query(one, level + 1)
            return
        name = str(query.get("field"))
        if query.get("operator") not in OPERATORS:
            raise self.wrong(f"the operator is one of {' '.join(OPERATORS)}", "invalid_operator")
        custom = name.removeprefix("custom_attributes.")
        if name not in (*STANDARD, *DATES, "id") and (custom == name or custom not in self.attributes):
            raise self.wrong("a filter is about a field that is there", "invalid_field")
        if isinstance(query.get("value"), list) is not (query["operator"] in ("IN", "NIN")):
            raise self.wrong("IN and NIN take lists, others a value", "invalid_value")

    def _fits_query(self, query: dict[str, Any], row: dict[str, Any]) -> bool:
        sign, value = query["operator"], query["value"]
        if sign in ("AND", "OR"):
            return (all if sign == "AND" else any)(self._fits_query(one, row) for one in value)
        name = query["field"]
        custom = name.removeprefix("custom_attributes.")
        held = row.get(name) if custom == name else row["custom_attributes"].get(custom)
        if name in DATES or self.attributes.get(custom) == "date":
            # by calendar day of the workspace: `>` begins with the next one
            held, value = (None if one is None else self._day(int(one)) for one in (held, value))
        if sign in ("IN", "NIN"):
            return (held in value) is (sign == "IN")
        if sign in ("=", "!="):
            return (held == value) is (sign == "=")
        if held is None:
            return sign == "!~"
        if sign in ("<", ">"):
            return bool(held < value if sign == "<" else held > value)
        text, part = str(held).lower(), str(value).lower()
        return {"~": part in text, "!~": part not in text, "^": text.startswith(part), "$": text.endswith(part)}[sign]

    def _day(self, seconds: int) -> str:
        return str(datetime.fromtimestamp(seconds, self.zone).date())
