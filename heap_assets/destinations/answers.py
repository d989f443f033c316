"""Read what an answer says: how long to wait, why it refused, and what a person can do about it."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from heap_assets.destinations.base import Response

STOPPING = frozenset({401, 402, 403, 404, 405, 407, 410})
"""Statuses that no retry and no splitting will change."""
PASSING = frozenset({408, 425})
"""Statuses below 500 that pass."""


def retry_after(response: Response) -> float | None:
    text = next((v for k, v in response.headers.items() if k.lower() == "retry-after"), "").strip()
    if not text:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def reason_of(response: Response) -> str:
    text = response.body[:300].decode("utf-8", "replace").strip()
    return f"HTTP {response.status}" + (f": {text}" if text not in ("", "{}") else "")


def advice(status: int) -> str:
    if status in (401, 403):
        return "the destination does not accept these credentials; check app_id or key"
    if status == 404:
        return "there is nothing at this address; check region and URL"
    return "the destination does not take calls of this kind at this address"
