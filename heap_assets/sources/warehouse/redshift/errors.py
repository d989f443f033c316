"""What Redshift says of an error, without the query and without values, which may be somebody's."""

from __future__ import annotations

import re

import adbc_driver_manager

from heap_assets.sources.warehouse.base import AccessError, WarehouseBusyError, WarehouseError
from heap_assets.sources.warehouse.postgres.errors import reason as reason_of_postgres

_PASSING = ("08", "40", "53", "57")
"""Classes of SQLSTATE that say nothing against the rows: connection, serialisation, resources, intervention."""
_AT_ONCE = frozenset({"23505", "42P06", "42P07"})
"""Of two who make the same table or schema at once, one gets these."""
_SERIALISED = re.compile(r"\b1023\b|serializable isolation", re.IGNORECASE)
_VALUES = re.compile(r"'(?:[^']|'')*'")


def reason(error: adbc_driver_manager.Error) -> str:
    """Return the server's own line; what is in quotation marks may be a value and is blanked out."""
    return _VALUES.sub("'…'", reason_of_postgres(error))[:300]


def explained(
    error: adbc_driver_manager.Error, subject: str, grant: str, other: type[WarehouseError] = WarehouseError
) -> WarehouseError:
    """Return the error of ours for one of the driver's.

    `grant`: what to grant if it is a missing privilege; `other`: what it is unless access or a passing state.
    """
    state = error.sqlstate or ""
    if state == "42501":
        return AccessError(f"{subject}: {reason(error)}: {grant}")
    is_passing = state[:2] in _PASSING or state in _AT_ONCE or _SERIALISED.search(str(error))
    failed = WarehouseBusyError if is_passing else other
    return failed(f"{subject}: {reason(error)}")
