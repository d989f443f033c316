"""What Pipedrive's records are made of, and what a call costs of the day's tokens."""

from __future__ import annotations

import re
from datetime import date
from typing import Any

from heap_assets_tests.connectors.servers.core import Call, VendorServer

MARKETING = ("subscribed", "unsubscribed", "no_consent", "archived")
SEARCHABLE = ("address", "varchar", "text", "double", "monetary", "phone")
COSTS = {"search": 20, "list": 10, "GET": 1, "POST": 5, "PATCH": 5, "DELETE": 3}
"""Tokens of a call, from memory; the documents only say that search costs most."""
PERSON = {
    "name": str,
    "emails": list,
    "phones": list,
    "org_id": int,
    "owner_id": int,
    "label_ids": list,
    "marketing_status": str,
    "visible_to": int,
    "custom_fields": dict,
}
DEAL = {
    "title": str,
    "person_id": int,
    "org_id": int,
    "owner_id": int,
    "value": float,
    "currency": str,
    "stage_id": int,
    "pipeline_id": int,
    "status": str,
    "expected_close_date": str,
    "custom_fields": dict,
}
ORGANIZATION = {"name": str, "owner_id": int, "label_ids": list, "visible_to": int, "custom_fields": dict}
OBJECTS = {"persons": PERSON, "organizations": ORGANIZATION, "deals": DEAL}
SEARCHED = {
    "persons": ("name", "email", "phone", "notes", "custom_fields"),
    "organizations": ("name", "address", "notes", "custom_fields"),
    "deals": ("title", "notes", "custom_fields"),
}


class Fields(VendorServer):
    """How `PipedriveServer` judges the body of a write."""

    def check_record(self, call: Call, of: str) -> None:
        known = OBJECTS[of]
        for name, value in call.body.items():
            if name not in known:
                raise self.wrong("fields of v2, custom ones in custom_fields")
            kind = (int, float) if known[name] is float else known[name]
            if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
                raise self.wrong(f"types of fields: {name} is {known[name].__name__}")  # type: ignore[attr-defined]
        for name in ("emails", "phones"):
            for one in call.body.get(name) or ():
                if (
                    not isinstance(one, dict)
                    or not isinstance(one.get("value"), str)
                    or set(one) - {"value", "primary", "label"}
                ):
                    raise self.wrong("e-mails and phones are {value, primary, label}")
        if call.body.get("marketing_status") not in (None, *MARKETING):
            raise self.wrong(f"marketing_status is one of {', '.join(MARKETING)}")
        values = call.body.get("custom_fields") or {}
        for code, value in values.items():
            if code not in self.fields[of]:
                raise self.wrong("keys of custom fields are the hashes of this company")
            if value is not None and not _fits(self.fields[of][code], value):
                self.broke("values of custom fields have their type", call, row=True)
                raise self.refuse(self.error(400, "", f"Invalid value for {code}"))
        plain = [value for value in call.body.values() if not isinstance(value, dict | list)]
        emails = [one["value"] for one in call.body.get("emails") or ()]
        if self.bad_row([*plain, *values.values(), *emails], call) is not None:
            raise self.refuse(self.error(422, "", "refused by a rule of the company"))


def tokens(call: Call) -> float:
    if call.method == "GET":
        last = call.path.rsplit("/", 1)[-1]
        return COSTS["search" if last == "search" else "GET" if last.isdigit() else "list"]
    return COSTS.get(call.method, 1)


def _fits(field: tuple[str, str, dict[int, str]], value: Any) -> bool:
    _, kind, options = field
    if kind == "enum":
        return value in options and not isinstance(value, bool)
    if kind == "set":
        return isinstance(value, list) and set(value) <= options.keys()
    if kind in ("double", "int"):
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "date":
        try:
            return (
                isinstance(value, str)
                and bool(re.fullmatch(r"\d{4}-\d\d-\d\d", value))
                and bool(date.fromisoformat(value))
            )
        except ValueError:
            return False
    return isinstance(value, str) and (kind != "varchar" or len(value) <= 255)
