"""Objects, their fields and what a field takes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

DATE = re.compile(r"\d{4}-\d\d-\d\d")
DATETIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)")
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")
PREFIXES = {"Account": "001", "Contact": "003", "Opportunity": "006", "Lead": "00Q"}


@dataclass(frozen=True)
class Field:
    """A field as `describe` tells it; `required` means on create, `picklist` names all values if it is restricted."""

    type: str = "string"
    length: int = 255
    required: bool = False
    external_id: bool = False
    unique: bool = False
    writable: bool = True
    picklist: tuple[str, ...] = ()
    case_sensitive: bool = False
    """Whether a unique text tells `A` from `a`: a choice of whoever makes the field; by default it does not."""

    def describe(self, name: str) -> dict[str, Any]:
        text = self.type in ("string", "email", "textarea", "picklist", "phone", "url")
        return {
            "name": name,
            "label": name,
            "type": self.type,
            "length": self.length if text else 0,
            "externalId": self.external_id,
            "idLookup": self.external_id or name == "Id",
            "unique": self.unique,
            "caseSensitive": self.case_sensitive,
            "nillable": not self.required,
            "createable": self.writable,
            "updateable": self.writable,
            "custom": name.endswith("__c"),
            "restrictedPicklist": bool(self.picklist),
            "picklistValues": [{"value": value, "label": value, "active": True} for value in self.picklist],
        }

    def key(self, value: Any) -> Any:
        return value.lower() if isinstance(value, str) and not self.case_sensitive else value


_SYSTEM = {
    "Id": Field("id", 18, writable=False),
    "IsDeleted": Field("boolean", writable=False),
    "CreatedDate": Field("datetime", writable=False),
    "LastModifiedDate": Field("datetime", writable=False),
    "LastModifiedById": Field("reference", 18, writable=False),
    "SystemModstamp": Field("datetime", writable=False),
    "OwnerId": Field("reference", 18),
    "Heap_Id__c": Field(length=64, external_id=True, unique=True),
}
_PERSON = {
    "FirstName": Field(length=40),
    "LastName": Field(length=80, required=True),
    "Email": Field("email", 80),
    "Title": Field(length=128),
    "Phone": Field("phone", 40),
    "HasOptedOutOfEmail": Field("boolean"),
}


def standard_objects() -> dict[str, dict[str, Field]]:
    """Return fresh fields by object: those that matter to a sync, and an external id `Heap_Id__c` on each."""
    converted = {
        "IsConverted": Field("boolean", writable=False),
        "ConvertedContactId": Field("reference", 18, writable=False),
    }
    return {
        "Lead": {
            **_SYSTEM,
            **_PERSON,
            **converted,
            "Company": Field(length=255, required=True),
            "Status": Field("picklist", picklist=("Open", "Working", "Closed")),
        },
        "Contact": {**_SYSTEM, **_PERSON, "AccountId": Field("reference", 18)},
        "Account": {**_SYSTEM, "Name": Field(required=True), "Website": Field("url")},
        "Opportunity": {
            **_SYSTEM,
            "Name": Field(length=120, required=True),
            "StageName": Field("picklist", required=True),
            "CloseDate": Field("date", required=True),
            "Amount": Field("double"),
            "AccountId": Field("reference", 18),
        },
    }


def problem(field: Field, name: str, value: Any) -> tuple[str, str] | None:
    """Return the row code and message by which a JSON value is refused; None if the field takes it."""
    if not field.writable:
        return "INVALID_FIELD_FOR_INSERT_UPDATE", f"Unable to create/update fields: {name}."
    if value is None:
        return ("REQUIRED_FIELD_MISSING", f"Required fields are missing: [{name}]") if field.required else None
    if not _fits(field.type, value):
        return "INVALID_TYPE_ON_FIELD_IN_RECORD", f"{name}: value not of required type: {value!r}"
    if isinstance(value, str) and field.type not in ("date", "datetime") and len(value) > field.length:
        return "STRING_TOO_LONG", f"{name}: data value too large: {value} (max length={field.length})"
    if field.type == "email" and not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", value):
        return "INVALID_EMAIL_ADDRESS", f"{name}: invalid email address: {value}"
    if field.picklist and value not in field.picklist:
        return "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", f"{name}: bad value for restricted picklist field: {value}"
    if field.type == "reference" and not re.fullmatch(r"[A-Za-z0-9]{15}([A-Za-z0-9]{3})?", value):
        return "MALFORMED_ID", f"{name}: id value of incorrect type: {value}"
    return None


def from_text(field: Field, text: str) -> Any:
    """Return a CSV cell as the JSON value it stands for; the text itself if it stands for none."""
    if field.type == "boolean":
        return {"true": True, "false": False}.get(text.lower(), text)
    if field.type in ("double", "currency", "percent", "int") and NUMBER.fullmatch(text):
        return int(text) if re.fullmatch(r"[+-]?\d+", text) else float(text)
    return text


def _fits(kind: str, value: Any) -> bool:
    if kind == "boolean":
        return isinstance(value, bool)
    if kind == "int":
        return isinstance(value, int) and not isinstance(value, bool)
    if kind in ("double", "currency", "percent"):
        return isinstance(value, int | float) and not isinstance(value, bool)
    if not isinstance(value, str):
        return False
    if kind not in ("date", "datetime"):
        return True
    if not (DATE if kind == "date" else DATETIME).fullmatch(value):
        return False
    try:
        (date if kind == "date" else datetime).fromisoformat(value)
    except ValueError:
        return False
    return True
