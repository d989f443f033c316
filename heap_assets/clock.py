"""The current time, in UTC everywhere (design.md, Time); only this module reads the clock for dates."""

import os
from datetime import UTC, date, datetime, timedelta

VARIABLE = "HEAP_ASSETS_NOW"


def now() -> datetime:
    """Return the current time in UTC; `$HEAP_ASSETS_NOW` (ISO 8601) stands in for it in simulations and tests."""
    simulated = os.environ.get(VARIABLE)
    if simulated:
        return datetime.fromisoformat(simulated).astimezone(UTC)
    return datetime.now(UTC)


def today() -> date:
    """Return the running day in UTC."""
    return now().date()


def newest_complete_day() -> date:
    """Return yesterday in UTC: the newest day that no more rows are expected to happen in."""
    return today() - timedelta(days=1)
