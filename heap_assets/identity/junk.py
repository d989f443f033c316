"""Values that are no identifier in anybody's data: what forms, tests and tracking code write when nobody is there.

The list is the union of what Segment, Adobe, Amperity, Meiro, Tealium, Snowplow and Heap advise to block
(reference: identity.md 7.2). It is compared with the value trimmed and in lower case, whatever its type's normaliser.
"""

from __future__ import annotations

from typing import Final

import polars as pl

JUNK_VALUES: Final = (
    "null", "none", "nan", "nil", "undefined", "unknown", "anonymous", "guest", "invalid", "n/a", "not set", "-1",
    "(none)", "(null)", "(not set)", "[object object]",
)  # fmt: skip

JUNK_PATTERNS: Final = (
    r"^[0-]*$",  # 0, 000, the zero UUID 00000000-0000-0000-0000-000000000000
    r"^(test|no|noreply|no-reply)@",
    r"@example\.com$",
)


def is_junk(value: pl.Expr) -> pl.Expr:
    """Tell whether a value is on the built-in list; null for null."""
    plain = value.str.strip_chars().str.to_lowercase()
    return plain.is_in(list(JUNK_VALUES)) | plain.str.contains("|".join(f"(?:{p})" for p in JUNK_PATTERNS))
