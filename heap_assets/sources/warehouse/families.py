"""What kind of value an engine's type holds, as far as its name tells."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from heap_assets.sources.warehouse.base import Column

Family = Literal["number", "text", "truth value", "time"]

_FAMILIES: tuple[tuple[Family, re.Pattern[str]], ...] = (
    ("number", re.compile(r"(u?(tiny|small|big|huge)?int(eger|[0-9]+)?|(small|big)?serial|(big)?(numeric|decimal)"
                          r"|double( precision)?|float[0-9]*|real)(\s*\(.*\))?\Z")),
    ("text", re.compile(r"((var|n|bp)*char(acter)?( varying)?[0-9]*|string)(\s*\(.*\))?\Z|(ci)?text\Z|enum\b")),
    ("truth value", re.compile(r"bool(ean)?\Z")),
    ("time", re.compile(r"date\Z|datetime\Z|timestamp")),
)  # fmt: skip


def family_of(columns: Sequence[Column], path: str) -> Family | None:
    """Return what kind of value the column at a path (`addr.email`, `items[].sku`) holds; None if that is not known."""
    parts = path.replace("[]", "").split(".")
    found = None
    for part in parts:
        same = [c for c in columns if c.name == part] or [c for c in columns if c.name.casefold() == part.casefold()]
        if not same:
            return None
        found = same[0]
        columns = found.fields
    if found is None or found.repeated:
        return None
    return next((family for family, pattern in _FAMILIES if pattern.match(found.type.strip().lower())), None)
