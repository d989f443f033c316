"""What Amplitude refuses in an event, and what the operators of user properties do."""

from __future__ import annotations

from typing import Any

from heap_assets_tests.connectors.servers.shapes import counted, depth, listed

MIN_ID, DEPTH = 5, 40
PLACEHOLDERS = frozenset(
    ("anonymous", "nil", "none", "null", "n/a", "na", "undefined", "unknown", "", "{}", "lmy47d", "0", "-1")
) | {"00000000-0000-0000-0000-000000000000"}
OPERATORS = frozenset(
    ("$set", "$setOnce", "$add", "$append", "$prepend", "$unset", "$preInsert", "$postInsert", "$remove")
)
_PLACE = ("country", "region", "city", "dma")
Faults = dict[str, dict[str, list[int]]]
"""By kind of fault and field: the indices of the events."""


def tell(faults: Faults, kind: str, field: str, index: int) -> None:
    faults.setdefault(f"events_with_{kind}", {}).setdefault(field, []).append(index)


def check(event: Any, index: int, least: int, faults: Faults, *, drops: bool) -> None:
    """Tell what is wrong with an event; ids that are too short are taken out of it if that is all (`drops`)."""
    if not isinstance(event, dict):
        tell(faults, "missing_fields", "event_type", index)
        return
    if not isinstance(event.get("event_type"), str) or not event["event_type"]:
        tell(faults, "missing_fields", "event_type", index)
    at = event.get("time")
    if at is not None and (isinstance(at, bool) or not isinstance(at, int) or not 10**11 < at < 10**14):
        tell(faults, "invalid_fields", "time", index)
    for name in ("event_properties", "user_properties", "groups", "group_properties"):
        value = event.get(name)
        if value is not None and (not isinstance(value, dict) or depth(value) > DEPTH):
            tell(faults, "invalid_fields", name, index)
    if event.get("user_properties") and not properties_fit(event["user_properties"]):
        tell(faults, "invalid_fields", "user_properties", index)
    if "insert_id" in event and not isinstance(event["insert_id"], str):
        tell(faults, "invalid_fields", "insert_id", index)
    check_ids(event, index, least, faults, drops=drops)


def check_ids(event: dict[str, Any], index: int, least: int, faults: Faults, *, drops: bool) -> None:
    for name in ("user_id", "device_id"):
        value = event.get(name)
        if value is None:
            continue
        if not isinstance(value, str) or value.lower() in PLACEHOLDERS:
            tell(faults, "invalid_fields", name, index)
        elif len(value) < least:
            if not drops:
                tell(faults, "invalid_id_lengths", name, index)
            del event[name]
    if event.get("user_id") is None and event.get("device_id") is None:
        tell(faults, "missing_fields", "user_id", index)


def properties_fit(properties: Any) -> bool:
    """Whether these are plain properties or operators, and not both."""
    if not isinstance(properties, dict):
        return False
    operators = [name for name in properties if name.startswith("$")]
    if not operators:
        return True
    known = set(operators) <= OPERATORS and all(isinstance(properties[name], dict) for name in operators)
    return known and len(operators) == len(properties)


def update(user: dict[str, Any], properties: dict[str, Any]) -> None:
    """Apply properties to a profile."""
    if not any(name in OPERATORS for name in properties):
        properties = {"$set": properties}
    for operator, values in properties.items():
        for name, value in values.items():
            _apply(user, operator, name, value)


def _apply(user: dict[str, Any], operator: str, name: str, value: Any) -> None:
    if operator == "$unset":
        user.pop(name, None)
    elif operator == "$add":
        user[name] = counted(user.get(name)) + counted(value)
    elif operator in ("$append", "$postInsert"):
        user[name] = [*listed(user.get(name)), *listed(value)]
    elif operator in ("$prepend", "$preInsert"):
        user[name] = [*listed(value), *listed(user.get(name))]
    elif operator == "$remove":
        user[name] = [item for item in listed(user.get(name)) if item not in listed(value)]
    elif operator == "$set" or name not in user:
        if name in _PLACE:
            # one of them resets the others
            for other in _PLACE:
                user.pop(other, None)
        user[name] = value
