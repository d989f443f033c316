"""What every query has: parameters, what it reads, and its statement.

A query reads the relations `events` (profile_id, user_id, session_id, event_id, time, event_type, and the properties
that it names) and `people` (profile_id and traits) between the parameters `begin` and `end`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar

from heap_assets.analytics.dialects import Statement

ALL_EVENTS: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Query(ABC):
    """One question with its parameters.

    `days`: × 24 hours before the end of the day that are looked at.
    """

    kind: ClassVar[str] = ""
    about: ClassVar[str] = ""
    days: int = 30

    @property
    def events(self) -> tuple[str, ...]:
        """The events that it reads; none means all."""
        return ALL_EVENTS

    @property
    def properties(self) -> dict[str, str]:
        """Event property that it reads to the event that has it."""
        return {}

    @property
    def traits(self) -> tuple[str, ...]:
        """The traits of people that it reads."""
        return ()

    @property
    def compares(self) -> bool:
        """Whether it reads `people_before`, the profiles of the day before."""
        return False

    def statement(self, end: datetime) -> Statement:
        """Return the SELECT over `events` and `people`; `end`: the end of the day."""
        parameters = {"begin": end - timedelta(days=self.days), "end": end}
        sql, more = self.body()
        parameters = {name: value for name, value in parameters.items() if f"${name}" in sql}
        return Statement(sql, {**parameters, **more})

    @abstractmethod
    def body(self) -> tuple[str, dict[str, Any]]:
        """Return the SELECT, and its parameters besides `begin` and `end`."""


IN_WINDOW = "time >= $begin AND time < $end"
IN_ORDER = "time NULLS FIRST, event_id NULLS FIRST, event_type NULLS FIRST"
ROWS_BEFORE = "ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING"


def share(part: str, base: str) -> str:
    return f"ROUND(100.0 * {part} / NULLIF({base}, 0), 2)"
