"""Rate limits on real time, as fixed or sliding windows."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Limit:
    """At most `amount` units in `seconds`."""

    amount: int
    seconds: float


@dataclass
class _Window:
    start: float = 0.0
    total: int = 0
    entries: deque[tuple[float, int]] = field(default_factory=deque)


class RateLimiter:
    """Counts units per subject; a request that would exceed any of its limits takes nothing.

    Parameters
    ----------
    sliding
        Sliding windows (exact), else fixed windows that begin with the first unit.
    scale
        Multiplies the length of all windows: 0.01 makes a minute 0.6 s, so that tests need not wait.
    clock
        Monotonic seconds.
    """

    def __init__(
        self, *, sliding: bool = True, scale: float = 1.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.sliding = sliding
        self.scale = scale
        self.enabled = True
        self._clock = clock
        self._windows: dict[tuple[str, Limit], _Window] = {}

    def take(self, requested: Iterable[tuple[str, Limit, int]]) -> float:
        """Take units of all subjects, or of none.

        Parameters
        ----------
        wanted
            Subject, limit, units.

        Returns
        -------
        float
            0.0 if granted, else the seconds until it could be.
        """
        if not self.enabled:
            return 0.0
        now = self._clock()
        windows = [(self._window(subject, limit, now), limit, units) for subject, limit, units in requested]
        wait = max((self._wait(window, limit, units, now) for window, limit, units in windows), default=0.0)
        if wait > 0:
            return wait
        for window, _, units in windows:
            window.total += units
            if self.sliding:
                window.entries.append((now, units))
        return 0.0

    def clear(self) -> None:
        self._windows.clear()

    def _window(self, subject: str, limit: Limit, now: float) -> _Window:
        window = self._windows.setdefault((subject, limit), _Window(start=now))
        length = limit.seconds * self.scale
        while window.entries and window.entries[0][0] <= now - length:
            window.total -= window.entries.popleft()[1]
        if not self.sliding and now >= window.start + length:
            window.start, window.total = now, 0
        return window

    def _wait(self, window: _Window, limit: Limit, units: int, now: float) -> float:
        excess = window.total + units - limit.amount
        if excess <= 0:
            return 0.0
        length = limit.seconds * self.scale
        if not self.sliding:
            return max(window.start + length - now, 0.001)
        for at, used in window.entries:
            excess -= used
            if excess <= 0:
                return max(at + length - now, 0.001)
        return length
