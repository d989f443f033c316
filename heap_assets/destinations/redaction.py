"""Keep what a destination answers readable without repeating the person it was about."""

from __future__ import annotations

import re

from heap_assets.destinations.base import Row

_MAIL = re.compile(r"[^\s@\"'<>,;:{}\[\]]+@[^\s@\"'<>,;:{}\[\]]+")
_MASK = "•••"
_LONGEST = 200
_SHORTEST = 3


def redacted(text: str, row: Row) -> str:
    """Return `text` without the row's key and values and without anything that looks like an email address."""
    personal = {row.key, str(row.person), *(str(v) for v in row.values.values()), *(str(v) for v in row.extra.values())}
    for value in sorted((p for p in personal if len(p) >= _SHORTEST), key=len, reverse=True):
        text = text.replace(value, _MASK)
    return _MAIL.sub(_MASK, text)[:_LONGEST]
