"""Heap's documented rules for what a request may hold (heap.md 1.2-1.9, 1.13)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson

MAX_ROWS = 1000
MAX_IDENTITY = 255
MAX_EVENT_NAME = 1024
MAX_TEXT = 1023
"""Keys and values have "fewer than 1024 characters", counted in UTF-16 units as Heap's own SDKs do."""
MAX_USER_ID = 2**53 - 1
_DIGITS = re.compile(r"[0-9]+\Z")


class Refused(Exception):
    """The request breaks a documented rule."""


def parse_body(body: bytes) -> dict[str, Any]:
    """Read a JSON object; Refused if it is none (NaN and Infinity are no JSON)."""
    try:
        value = orjson.loads(body)
    except ValueError:
        value = _lenient(body)
    if not isinstance(value, dict):
        raise Refused("body is not a JSON object")
    return value


def app_id_of(body: Mapping[str, Any]) -> str:
    app_id = body.get("app_id")
    if not isinstance(app_id, str) or not app_id:
        raise Refused("app_id is missing or empty, or not a string")
    return app_id


def rows_of(body: Mapping[str, Any], name: str) -> list[Any] | None:
    """Return the rows of a bulk call, or None for a single one."""
    if name not in body:
        return None
    rows = body[name]
    if not isinstance(rows, list):
        raise Refused(f"{name} is not an array")
    if len(rows) > MAX_ROWS:
        raise Refused(f"{name} has {len(rows)} items; {MAX_ROWS} are allowed")
    return rows


def check_event(row: Any) -> dict[str, Any]:
    """Check one event of /api/track."""
    row = _object(row)
    event = row.get("event")
    if not isinstance(event, str) or not event or utf16(event) > MAX_EVENT_NAME:
        raise Refused(f"event is missing, empty or longer than {MAX_EVENT_NAME} characters")
    if ("identity" in row) == ("user_id" in row):
        raise Refused("exactly one of identity and user_id is required")
    if "identity" in row:
        check_identity(row["identity"])
    else:
        check_user_id(row["user_id"])
    check_timestamp(row)
    key = row.get("idempotency_key")
    if key is not None and (not isinstance(key, str) or not key):
        raise Refused("idempotency_key is not a string")
    if "session_id" in row and not isinstance(row["session_id"], str):
        raise Refused("session_id is not a string")
    return {**row, "properties": check_properties(row.get("properties", {}), arrays=True)}


def check_user(row: Any) -> dict[str, Any]:
    """Check one user of /api/add_user_properties, which takes an identity and nothing else."""
    row = _object(row)
    if "user_id" in row:
        raise Refused("add_user_properties takes identity only")
    check_identity(row.get("identity"))
    properties = check_properties(row.get("properties", {}))
    if any(key.lower() == "id" for key in properties):
        raise Refused("a property key may not be any casing of id")
    return {"identity": row["identity"], "properties": properties}


def check_account(row: Any) -> dict[str, Any]:
    """Check one account of /api/add_account_properties."""
    row = _object(row)
    account = row.get("account_id")
    if not isinstance(account, str) or not account:
        raise Refused("account_id is missing, empty or not a string")
    return {"account_id": account, "properties": check_properties(row.get("properties", {}))}


def check_identity(value: Any) -> None:
    if not isinstance(value, str) or not value or utf16(value) > MAX_IDENTITY:
        raise Refused(f"identity is missing, empty, not a string or longer than {MAX_IDENTITY} characters")


def check_user_id(value: Any) -> None:
    if not isinstance(value, str) or not _DIGITS.match(value) or len(value) > 32 or int(value) > MAX_USER_ID:
        raise Refused("user_id is not the decimal string of a number between 0 and 2^53-1")


def check_timestamp(row: Mapping[str, Any]) -> None:
    value = row.get("timestamp")
    if value is None:
        return
    try:
        datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise Refused("timestamp is not an ISO 8601 string") from error


def check_properties(properties: Any, *, arrays: bool = False) -> dict[str, Any]:
    """Check that keys and values are numbers or short strings; arrays of events are joined with `||` (heap.md 1.2)."""
    if not isinstance(properties, dict):
        raise Refused("properties is not an object")
    checked: dict[str, Any] = {}
    for key, value in properties.items():
        if utf16(key) > MAX_TEXT:
            raise Refused(f"a property key is longer than {MAX_TEXT} characters")
        if arrays and isinstance(value, list):
            value = "||".join(str(item) for item in value)[:MAX_TEXT]
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise Refused(f"a property value is {type(value).__name__}, neither number nor string")
        if isinstance(value, str) and utf16(value) > MAX_TEXT:
            raise Refused(f"a property value is longer than {MAX_TEXT} characters")
        checked[key] = value
    return checked


def utf16(text: str) -> int:
    """Length in UTF-16 code units; a lone surrogate counts one."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


def _object(row: Any) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise Refused("a row is not an object")
    return row


def _lenient(body: bytes) -> Any:
    """Read what a strict reader refuses and JSON allows, such as half of a surrogate pair."""
    try:
        return json.loads(body, parse_constant=_no_constant)
    except ValueError as error:
        raise Refused("body is not JSON") from error


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
