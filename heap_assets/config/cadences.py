"""How often each destination is sent to unless the settings say it (features.md G66)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

USUAL: Final = "usual"
"""The value of `schedule` that stands for the cadence of the destination, within the plan."""

_DAILY, _HOURLY = "0 9 * * *", "0 * * * *"
_CADENCES: Mapping[str, str] = {
    "salesforce": "*/15 * * * *",
    "marketo": "*/30 * * * *",
    "segment": "* * * * *",
    "webhook": "* * * * *",
}
"""By vendor; hourly for all others, as for advertising audiences. A minute is what a schedule can do for destinations
that are called real-time; a tick with nothing new starts no run."""


def usual_schedule(vendor: str, plan: Literal["growth", "pro", "premier"]) -> str:
    """Return the cron of a destination, no faster than the plan exports: daily, hourly, or as the destination is.

    >>> usual_schedule("salesforce", "premier"), usual_schedule("salesforce", "pro"), usual_schedule("heap", "growth")
    ('*/15 * * * *', '0 * * * *', '0 9 * * *')
    """
    if plan == "growth":
        return _DAILY
    return _CADENCES.get(vendor, _HOURLY) if plan == "premier" else _HOURLY
