"""What all sections share: unknown keys are mistakes, values do not change after loading."""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Annotated

from croniter import CroniterError, croniter  # type: ignore[import-untyped]
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}\Z")
_CRON_FIELDS = 5


class Section(BaseModel):
    """One section of heap_assets.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def _day(value: object) -> object:
    """Take a day as it is written; pydantic alone reads 20260101 as seconds since 1970."""
    if not isinstance(value, str):
        return value
    if not _DAY.match(value):
        raise ValueError("a day such as 2026-01-31")
    try:
        return date.fromisoformat(value)
    except ValueError as error:
        raise ValueError(f"a day such as 2026-01-31; there is no such date: {error}") from error


def _cron(value: str) -> str:
    if value.startswith("@"):
        fits = croniter.is_valid(value)
    else:
        fits = len(value.split()) == _CRON_FIELDS and croniter.is_valid(value)
    try:
        if fits:
            croniter(value, datetime(2026, 1, 1)).get_next()
    except CroniterError:
        fits = False
    if not fits:
        raise ValueError(
            'a cron expression of five fields in UTC (minute, hour, day, month, weekday) such as "30 2 * * *", '
            "or @hourly, @daily, @weekly, @monthly"
        )
    return value


Day = Annotated[date, BeforeValidator(_day)]
"""A day as YYYY-MM-DD."""

Cron = Annotated[str, AfterValidator(_cron)]
"""A schedule that Dagster can keep."""
