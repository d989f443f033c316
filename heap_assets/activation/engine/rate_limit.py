"""Rate limits that hold for any window the destination may count, fixed or sliding.

A call counts from the moment it is sent until one window after its answer came. The destination received it in that
time, so no window of its own can hold more calls than ours. (A token bucket with burst b lets rate·window + b through,
which a sliding window refuses.)
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol
from weakref import WeakKeyDictionary, WeakSet

from heap_assets.activation.engine.limits import Rate

_MARGIN = 0.002
_STEPS = 20
"""A window that is handed on to another process is told in so many steps."""
Counted = Mapping[str, list[tuple[float, int]]]
"""By window: how many units count for how many seconds more."""


class Clock(Protocol):
    """The clock of a sender; simulated in tests."""

    def now(self) -> float:
        """Return monotonic seconds."""

    def wait(self, seconds: float, woken: threading.Condition | None = None) -> None:
        """Sleep; with a condition (held by the caller) until it is notified at the latest."""


class RealClock:
    """The machine's clock."""

    def now(self) -> float:
        return time.monotonic()

    def wait(self, seconds: float, woken: threading.Condition | None = None) -> None:
        if woken is None:
            time.sleep(max(seconds, 0.0))
        else:
            woken.wait(max(seconds, 0.0))


class Window:
    """At most `allowed` units in any `seconds`."""

    def __init__(self, allowed: int, seconds: float) -> None:
        self.allowed = allowed
        self.seconds = seconds
        self._in_flight = 0
        self._answered: deque[tuple[float, int]] = deque()
        self._sum = 0

    def delay(self, now: float, units: int, allowed: int | None = None) -> float | None:
        """Return the seconds until `units` fit; None if that depends on calls still in flight.

        `allowed`: of one who uses less of the window than others.
        """
        while self._answered and self._answered[0][0] <= now:
            self._sum -= self._answered.popleft()[1]
        excess = self._in_flight + self._sum + units - (allowed or self.allowed)
        if excess <= 0:
            return 0.0
        for free_at, amount in self._answered:
            excess -= amount
            if excess <= 0:
                return free_at - now
        return None

    def is_empty(self, now: float) -> bool:
        """Whether it counts nothing any more."""
        return not self._in_flight and (not self._answered or self._answered[-1][0] <= now)

    def counted(self, now: float) -> list[tuple[float, int]]:
        """Return how many units count for how many seconds more, in a few steps."""
        steps: dict[int, int] = {}
        for free_at, units in self._answered:
            if free_at > now:
                step = min(_STEPS, int((free_at - now) / self.seconds * _STEPS) + 1)
                steps[step] = steps.get(step, 0) + units
        return [(step * self.seconds / _STEPS, units) for step, units in sorted(steps.items())]

    def count(self, now: float, counted: Iterable[tuple[float, int]]) -> None:
        """Count what others have sent: for so many seconds more so many units."""
        for seconds, units in sorted(counted):
            if seconds > 0:
                self._sum += units
                self._answered.append((now + min(seconds, self.seconds) + _MARGIN, units))

    def sent(self, units: int) -> None:
        self._in_flight += units

    def answered(self, now: float, units: int) -> None:
        self._in_flight -= units
        self._sum += units
        self._answered.append((now + self.seconds + _MARGIN, units))


@dataclass
class _Rated:
    rate: Rate
    allowed: int


@dataclass
class _Account:
    """What the syncs of one account share: windows, a pause, and how many calls are in flight."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    windows: dict[tuple[Rate, str], Window] = field(default_factory=dict)
    paused_until: float = 0.0
    in_flight: int = 0
    limiters: WeakSet[Limiter] = field(default_factory=WeakSet)
    """Those who may still send."""

    def is_done_with(self, now: float) -> bool:
        """Whether nothing that was sent matters to the next run."""
        windows_empty = all(window.is_empty(now) for window in self.windows.values())
        return not self.limiters and self.paused_until <= now and windows_empty


_accounts: dict[str, _Account] = {}
"""By the machine's clock. What a run has sent counts in the next one of the process, too."""
_simulated: WeakKeyDictionary[Clock, dict[str, _Account]] = WeakKeyDictionary()
_accounts_lock = threading.Lock()


def _account(name: str, clock: Clock, limiter: Limiter) -> _Account:
    if not name:
        return _Account()
    with _accounts_lock:
        accounts = _accounts if isinstance(clock, RealClock) else _simulated.setdefault(clock, {})
        for other in [key for key, one in accounts.items() if one.is_done_with(clock.now())]:
            del accounts[other]
        account = accounts.setdefault(name, _Account())
        account.limiters.add(limiter)
        return account


class Limiter:
    """All limits of one destination account, shared by all workers.

    `share`: share of the documented rates that is used. `in_flight`: most calls at once. `shared_by`: account whose
    limits these are: every limiter of the process that names the same counts with it.
    """

    def __init__(
        self,
        rates: tuple[Rate, ...],
        share: float,
        clock: Clock | None = None,
        *,
        in_flight: int | None = None,
        shared_by: str = "",
    ) -> None:
        self._clock = clock or RealClock()
        self._rates = [_Rated(rate, max(1, int(rate.rows * share))) for rate in rates]
        self._in_flight = in_flight
        self._account = _account(shared_by, self._clock, self)
        self._changed = self._account.changed
        self._closed = False

    def close(self) -> None:
        """Wake everybody who waits: the run is over."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def most_per_key(self) -> int | None:
        """Return how many rows of one key a batch may hold."""
        return min((r.allowed for r in self._rates if r.rate.per_key and not r.rate.per_call), default=None)

    def counted(self) -> Counted:
        """Return what counts in the windows of the whole account, for a run of another process."""
        with self._changed:
            now, windows = self._clock.now(), self._account.windows
            used = {_name(r.rate): windows[r.rate, ""].counted(now) for r in self._rates if (r.rate, "") in windows}
            return {name: counted for name, counted in used.items() if counted}

    def count(self, counted: Counted) -> None:
        """Count what a run of another process has left; what this process has counted itself it knows better."""
        with self._changed:
            for rated in self._rates:
                used = counted.get(_name(rated.rate))
                if used and (rated.rate, "") not in self._account.windows:
                    window = self._account.windows[rated.rate, ""] = Window(rated.allowed, rated.rate.seconds)
                    window.count(self._clock.now(), used)

    def batch_rows(self, most: int) -> int:
        """Return the batch size, at most `most`, whose multiples fill the limits best."""
        for rated in self._rates:
            rate = rated.rate
            if not rate.per_key and not rate.per_call and not rate.per_byte and not rate.label:
                batches = -(-rated.allowed // most)
                most = min(most, rated.allowed // batches)
        return max(1, most if (per_key := self.most_per_key()) is None else min(most, max(per_key, 1)))

    def pause(self, seconds: float) -> None:
        """Let nobody send for a while: the other side asked for it."""
        with self._changed:
            self._account.paused_until = max(self._account.paused_until, self._clock.now() + seconds)

    @contextmanager
    def permission(self, rows: int, keys: Mapping[str, int], size: int = 0, label: str = "") -> Iterator[None]:
        """Wait until a call of that many rows and bytes may be sent, and count it until its answer.

        `keys`: rows per key, of the keys whose own limits could matter. `label`: whose own rates it counts against too.
        """
        uses = list(self._uses(rows, keys, size, label))
        with self._changed:
            while (delay := self._delay(uses)) > 0 and not self._closed:
                self._clock.wait(delay, self._changed)
            self._account.in_flight += 1
            for window, units, _ in uses:
                window.sent(units)
        try:
            yield
        finally:
            with self._changed:
                self._account.in_flight -= 1
                for window, units, _ in uses:
                    window.answered(self._clock.now(), units)
                self._changed.notify_all()

    def _uses(self, rows: int, keys: Mapping[str, int], size: int, label: str) -> Iterator[tuple[Window, int, int]]:
        """Yield the windows that a call counts in, its units there, and how many are allowed."""
        for rated in self._rates:
            rate = rated.rate
            if rate.label not in ("", label):
                continue
            subjects = keys if rate.per_key else {"": rows}
            for key, amount in subjects.items():
                window = self._account.windows.setdefault((rate, key), Window(rated.allowed, rate.seconds))
                units = 1 if rate.per_call else min(size, rated.allowed) if rate.per_byte else amount
                yield window, units, rated.allowed

    def _delay(self, uses: list[tuple[Window, int, int]]) -> float:
        now = self._clock.now()
        delays = [window.delay(now, units, allowed) for window, units, allowed in uses]
        window_delay = max((d for d in delays if d is not None), default=0.0)
        is_full = self._in_flight is not None and self._account.in_flight >= self._in_flight
        in_flight = 1.0 if None in delays or is_full else 0.0
        return max(window_delay, in_flight, self._account.paused_until - now)


def _name(rate: Rate) -> str:
    unit = "bytes" if rate.per_byte else "calls" if rate.per_call else "rows"
    return f"{rate.rows} {unit} in {rate.seconds:g} s {rate.label}".rstrip()


def backoff(attempt: int, first: float, longest: float, jitter: random.Random) -> float:
    """Return the seconds to wait before the next attempt: doubled every time, with full jitter above a tenth."""
    ceiling = min(longest, first * 2 ** min(attempt, 30))
    return float(ceiling) * (0.1 + 0.9 * jitter.random())
