"""How often a destination is sent to unless the settings say it (features.md G66)."""

from __future__ import annotations

from typing import Final, Literal

USUAL: Final = "usual"
"""The value of `schedule` that stands for the cadence of the destination, within the plan."""
HOURLY: Final = "0 * * * *"
_DAILY: Final = "0 9 * * *"


def usual_schedule(cadence: str, plan: Literal["growth", "pro", "premier"]) -> str:
    """Return the cron of a destination, no faster than the plan exports: daily, hourly, or as the destination is.

    >>> [usual_schedule("*/15 * * * *", plan) for plan in ("growth", "pro", "premier")]
    ['0 9 * * *', '0 * * * *', '*/15 * * * *']
    """
    return {"growth": _DAILY, "pro": HOURLY, "premier": cadence}[plan]
