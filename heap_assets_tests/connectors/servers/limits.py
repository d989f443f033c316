"""What a vendor admits: sliding and fixed windows, daily quotas, calls at once."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol
from zoneinfo import ZoneInfo

Cost = Callable[[Any], float]
"""What a call takes of a limit: calls, rows or bytes; 0 if the limit is not about this call."""


def each_call(call: Any) -> float:
    return 1


def calls_to(part: str) -> Cost:
    """Count calls whose path has this part."""
    return lambda call: float(part in call.path)


class Limit(Protocol):
    name: str
    amount: float

    def wait(self, call: Any, now: float) -> float:
        """Return the seconds until the call would be admitted, 0 if it is now; takes nothing."""

    def take(self, call: Any, now: float) -> None: ...

    def release(self, call: Any) -> None:
        """Tell that the call was answered."""

    def left(self, now: float) -> float: ...

    def resets(self, now: float) -> float:
        """Return when (epoch seconds) something will be free again."""


@dataclass
class Sliding:
    """At most `amount` in any `seconds`."""

    name: str
    amount: float
    seconds: float
    cost: Cost = each_call
    _taken: deque[tuple[float, float]] = field(default_factory=deque, repr=False)
    _sum: float = 0.0

    def wait(self, call: Any, now: float) -> float:
        cost = self.cost(call)
        over = self._sum_at(now) + cost - self.amount
        if cost == 0 or over <= 0:
            return 0.0
        for at, taken in self._taken:
            over -= taken
            if over <= 0:
                return at + self.seconds - now
        return self.seconds

    def take(self, call: Any, now: float) -> None:
        cost = self.cost(call)
        if cost:
            self._taken.append((now, cost))
            self._sum += cost

    def release(self, call: Any) -> None: ...

    def left(self, now: float) -> float:
        return self.amount - self._sum_at(now)

    def resets(self, now: float) -> float:
        self._sum_at(now)
        return self._taken[0][0] + self.seconds if self._taken else now

    def _sum_at(self, now: float) -> float:
        while self._taken and self._taken[0][0] <= now - self.seconds:
            self._sum -= self._taken.popleft()[1]
        return self._sum


@dataclass
class Fixed:
    """At most `amount` in a window that begins at a multiple of `seconds`; with a `zone`, in a calendar day there."""

    name: str
    amount: float
    seconds: float = 86_400
    cost: Cost = each_call
    zone: str | None = None
    _until: float = -math.inf
    _sum: float = 0.0

    def wait(self, call: Any, now: float) -> float:
        cost = self.cost(call)
        return self.resets(now) - now if cost and self._sum_at(now) + cost > self.amount else 0.0

    def take(self, call: Any, now: float) -> None:
        self._sum = self._sum_at(now) + self.cost(call)

    def release(self, call: Any) -> None: ...

    def left(self, now: float) -> float:
        return self.amount - self._sum_at(now)

    def resets(self, now: float) -> float:
        self._sum_at(now)
        return self._until

    def _sum_at(self, now: float) -> float:
        if now >= self._until:
            self._until, self._sum = self._end(now), 0.0
        return self._sum

    def _end(self, now: float) -> float:
        if self.zone is None:
            return (now // self.seconds + 1) * self.seconds
        day = datetime.fromtimestamp(now, ZoneInfo(self.zone)).date() + timedelta(days=1)
        return datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(self.zone)).timestamp()


@dataclass
class AtOnce:
    """At most `amount` calls that are not answered yet (`VendorServer.latency` makes them last)."""

    name: str
    amount: float
    cost: Cost = each_call
    _running: float = 0.0

    def wait(self, call: Any, now: float) -> float:
        cost = self.cost(call)
        return 1.0 if cost and self._running + cost > self.amount else 0.0

    def take(self, call: Any, now: float) -> None:
        self._running += self.cost(call)

    def release(self, call: Any) -> None:
        self._running -= self.cost(call)

    def left(self, now: float) -> float:
        return self.amount - self._running

    def resets(self, now: float) -> float:
        return now
