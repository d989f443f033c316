"""Rows of Meta: which keys a schema has, how each value is written, what an event needs."""

from __future__ import annotations

import re
from typing import Any

from heap_assets_tests.connectors.servers.shapes import fits, is_sha256

_HASHED = frozenset(("EMAIL", "PHONE", "GEN", "DOBY", "DOBM", "DOBD", "LN", "FN", "FI", "CT", "ST", "ZIP", "COUNTRY"))
_PLAIN = frozenset(("EXTERN_ID", "MADID", "LOOKALIKE_VALUE"))
_SINGLE = {"EMAIL_SHA256": "EMAIL", "PHONE_SHA256": "PHONE", "MOBILE_ADVERTISER_ID": "MADID"}
_MADID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_EVENT_HASHED = ("em", "ph", "ge", "db", "fn", "ln", "ct", "st", "zp", "country")
_SOURCES = ("email", "website", "app", "phone_call", "chat", "physical_store", "system_generated", "other")


def schema_and_rows(payload: Any, most: int) -> tuple[list[str], list[list[Any]]]:
    """Return the keys and the rows, each as long as the keys; raises ValueError with the rule that is broken."""
    if not isinstance(payload, dict):
        raise ValueError("payload has schema and data")
    schema, data = payload.get("schema"), payload.get("data")
    keys = [_SINGLE.get(schema, schema)] if isinstance(schema, str) else schema
    if not fits(keys, [str]) or not keys or not set(keys) <= _HASHED | _PLAIN or len(set(keys)) < len(keys):
        raise ValueError("schema is of documented keys, each once")
    if not isinstance(data, list) or not 1 <= len(data) <= most:
        raise ValueError(f"data has 1 to {most} rows")
    rows = [[row] if isinstance(schema, str) and isinstance(row, str) else row for row in data]
    if not all(isinstance(row, list) and len(row) == len(keys) for row in rows):
        raise ValueError("a row has a value for each key, the empty text where there is none")
    if "LOOKALIKE_VALUE" in keys:
        at = keys.index("LOOKALIKE_VALUE")
        if not all(isinstance(row[at], int | float) and row[at] >= 0 for row in rows):
            raise ValueError("LOOKALIKE_VALUE is a number from 0")
    return keys, rows


def member_key(schema: list[str], row: list[Any]) -> str | None:
    """Return what a row is known by, the id of the caller's or else its first value; None if a value is not right."""
    known = {}
    for key, value in zip(schema, row, strict=True):
        if key == "LOOKALIKE_VALUE" or value == "":
            continue
        if not isinstance(value, str) or (key in _HASHED and not is_sha256(value)):
            return None
        if key == "MADID" and not _MADID.fullmatch(value):
            return None
        known[key] = value
    return known.get("EXTERN_ID") or next(iter(known.values()), None)


def is_session(session: Any) -> bool:
    if not isinstance(session, dict) or not isinstance(session.get("last_batch_flag"), bool):
        return False
    numbers = (session.get("session_id"), session.get("batch_seq"))
    return all(isinstance(number, int) and not isinstance(number, bool) and number >= 1 for number in numbers)


def check_event(event: Any) -> None:
    """Raise ValueError with the rule that an event breaks."""
    if not isinstance(event, dict) or not isinstance(event.get("event_name"), str):
        raise ValueError("an event has a name")
    if not isinstance(event.get("event_time"), int):
        raise ValueError("event_time is in seconds")
    if event.get("action_source") not in _SOURCES:
        raise ValueError(f"action_source is one of {', '.join(_SOURCES)}")
    user = event.get("user_data")
    if not isinstance(user, dict) or not user:
        raise ValueError("an event has user_data")
    for name in _EVENT_HASHED:
        told = user.get(name, [])
        if not all(is_sha256(value) for value in (told if isinstance(told, list) else [told])):
            raise ValueError("user_data is hashed")
