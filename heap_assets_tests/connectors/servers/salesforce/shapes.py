"""Shapes that all of its calls share."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from heap_assets_tests.connectors.servers.core import Answer

BASE = "/services/data/v{version}"
DAY = 86_400.0


def error(status: int, code: str, message: str, fields: list[str] | None = None) -> Answer:
    """Shape an error of a call: a list of one."""
    return Answer(status, [{"errorCode": code, "message": message} | ({"fields": fields} if fields else {})])


def stamp(seconds: float) -> str:
    return (
        datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{int(seconds * 1000) % 1000:03d}+0000"
    )


def moment(text: str) -> float:
    """Return epoch seconds of a time as it is written there."""
    return datetime.fromisoformat(text).timestamp()


def row_errors(wrong: list[tuple[str, str, list[str]]]) -> list[dict[str, Any]]:
    return [{"statusCode": code, "message": message, "fields": fields} for code, message, fields in wrong]
