"""Read what an answer says: how long to wait, why it refused, and what a person can do about it."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from heap_assets.activation.engine.destination import Response

STOPPING = frozenset({401, 402, 403, 404, 405, 407, 410})
"""Statuses that no retry and no splitting will change."""
PASSING = frozenset({408, 425})
"""Statuses below 500 that pass."""
_READ = 4096


def retry_after(response: Response) -> float | None:
    """Return the seconds that an answer asks to wait, None if it does not or nobody can read it."""
    text = next((v for k, v in response.headers.items() if k.lower() == "retry-after"), "").strip()
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError, OverflowError, IndexError):
            return None
    return None if math.isnan(seconds) else max(0.0, seconds)


def reason_of(response: Response) -> str:
    """Return status and text of an answer, not redacted yet: to be cut only after that."""
    text = response.body[:_READ].decode("utf-8", "replace").strip()
    return f"HTTP {response.status}" + (f": {text}" if text not in ("", "{}") else "")


def advice(status: int) -> str:
    if status in (401, 403):
        return "the destination does not accept these credentials; check app_id or key"
    if status == 404:
        return "there is nothing at this address; check region and URL"
    return "the destination does not take calls of this kind at this address"
