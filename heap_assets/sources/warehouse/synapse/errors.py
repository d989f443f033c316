"""What Synapse and Fabric say of an error, without the statement and without values, which may be somebody's."""

from __future__ import annotations

import re

from heap_assets.sources.warehouse.base import AccessError, WarehouseBusyError, WarehouseError

_VALUES = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"")
_DENIED = re.compile(r"permission was denied|do not have permission|not authorized|\b(229|262|297)\b", re.IGNORECASE)
_LOGIN = re.compile(r"login failed|could not open a connection|failed to load the driver|\b18456\b|\b40615\b", re.I)
_PASSING = re.compile(
    r"snapshot isolation|\b(1205|24556|24706|40197|40501|40613|49918)\b|deadlock|timeout"
    r"|connection (was|is) (closed|broken)",
    re.IGNORECASE,
)
"""Conflicts of writers, and servers that are away or busy."""


def reason(error: Exception) -> str:
    """Return the server's own words in one line; whatever is in quotation marks may be a value and is blanked out."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return _VALUES.sub("'…'", lines[0])[:300]


def explained(
    error: Exception, subject: str, grant: str, other: type[WarehouseError] = WarehouseError
) -> WarehouseError:
    """Return the error of ours for one of the driver's.

    `grant`: what to grant if it is a missing privilege; `other`: what it is unless access or a passing state.
    """
    text = str(error)
    if _LOGIN.search(text):
        return AccessError(f"{subject} cannot be reached, or refuses the login: {reason(error)}")
    if _DENIED.search(text):
        return AccessError(f"{subject}: {reason(error)}: {grant}")
    failed = WarehouseBusyError if _PASSING.search(text) else other
    return failed(f"{subject}: {reason(error)}")
