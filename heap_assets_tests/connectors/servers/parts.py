"""What servers are made of: calls, answers, refusals, broken rules, jobs, tokens, a clock that tests set."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal

from starlette.datastructures import Headers, QueryParams

Kind = Literal["write", "read", "token"]
Fault = Literal[
    "throttle",
    "token_expired",
    "server_error",
    "refuse_batch",
    "accept_then_no_answer",
    "cut_before",
    "bad_row",
    "slow_job",
    "job_fails",
]


@dataclass
class Call:
    """A request as it came in; `body` is what the content type says: JSON, a form's fields, text, else bytes."""

    method: str
    path: str
    query: QueryParams
    headers: Headers
    raw: bytes
    at: float
    body: Any = None
    kind: Kind = "read"
    status: int | None = None
    """What was answered; None if the connection was cut."""
    running: bool = True
    """Whether it is still at work (`VendorServer.latency`)."""

    @property
    def size(self) -> int:
        return len(self.raw)


@dataclass
class Answer:
    """`body` goes out as JSON, text and bytes as they are, None as nothing."""

    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


class Refused(Exception):
    """Ends a call with an answer; `rule` is the documented rule that the call broke, None if it broke none."""

    def __init__(self, answer: Answer, rule: str | None = None) -> None:
        super().__init__(rule or answer)
        self.answer, self.rule = answer, rule


@dataclass(frozen=True)
class Violation:
    """A documented rule that a call (`row` false), or one row of a call, broke."""

    rule: str
    path: str
    row: bool = False
    key: str | None = None


@dataclass
class Job:
    """Work that takes time: done after `polls` questions and not before `ready`; its effects are there at once."""

    id: str
    started: float
    ready: float
    polls: int
    fails: dict[str, Any] | None = None
    """The options of the fault that makes the job fail."""
    state: dict[str, Any] = field(default_factory=dict)


class ManualClock:
    """A clock that tests set: `clock.now = …`, `clock.advance(seconds)`."""

    def __init__(self, now: float = 1_767_225_600.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class Tokens:
    """Access tokens with a lifetime."""

    def __init__(self) -> None:
        self._ends: dict[str, float] = {}
        self._number = count(1)

    def issue(self, seconds: float, now: float) -> str:
        token = f"token-{next(self._number)}"
        self._ends[token] = now + seconds
        return token

    def newest(self, now: float) -> tuple[str, float] | None:
        """Return the living token that lives longest, with the seconds that it has left."""
        token, end = max(self._ends.items(), key=lambda item: item[1], default=("", 0.0))
        return (token, end - now) if end > now else None

    def lives(self, token: str, now: float) -> bool:
        return self._ends.get(token, 0.0) > now

    def knows(self, token: str) -> bool:
        return token in self._ends

    def expire(self) -> None:
        self._ends = dict.fromkeys(self._ends, 0.0)
