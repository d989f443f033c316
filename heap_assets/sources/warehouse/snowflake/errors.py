"""What Snowflake says of an error, without the query and without values, which may be somebody's."""

from __future__ import annotations

import re

from snowflake.connector.errors import Error

from heap_assets.sources.warehouse.base import AccessError, WarehouseBusyError, WarehouseError

_ID = re.compile(r"^\d{6} \([0-9A-Z]{5}\): ?(?:[0-9a-f-]{36}: )?")
_VALUES = re.compile(r"'(?:[^']|'')*'")
_LOGIN = frozenset({250001, 250002, 251005, 251006, 390100, 390101, 390102, 390144, 390186, 394300, 394303, 395001})
"""Numbers of refused logins and of servers that did not answer."""
_ACCESS = ("42501", "28000")
_NUMBERS = frozenset({3001, 2140})
"""Numbers of insufficient privileges."""
_PASSING = frozenset({604, 625, 638, 635, 390114, 250003, 290404, 290503, 290504})
"""Numbers of statements that ended by a lock, a timeout or a server that was away."""


def reason(error: Error) -> str:
    """Return Snowflake's own words in one line; whatever is in quotation marks may be a value and is blanked out."""
    lines = _ID.sub("", str(error.msg or error)).strip().splitlines() or [type(error).__name__]
    text = " ".join(line.strip() for line in lines[:2])
    return _VALUES.sub("'…'", text)[:300]


def explained(error: Error, subject: str, grant: str, other: type[WarehouseError] = WarehouseError) -> WarehouseError:
    """Return the error of ours for one of the driver's.

    `grant`: what to grant if it is a missing privilege; `other`: what it is unless access or a passing state.
    """
    if error.errno in _LOGIN:
        return AccessError(f"{subject} cannot be reached, or refuses the login: {reason(error)}")
    if error.errno in _NUMBERS or error.sqlstate in _ACCESS:
        return AccessError(f"{subject}: {reason(error)}: {grant}")
    failed = WarehouseBusyError if error.errno in _PASSING else other
    return failed(f"{subject}: {reason(error)}")
