"""The steps of an exchange: what a destination wants done for one batch of rows, in order, and what it is told.

Most kinds make one call a batch. Others look ids up first, or start a job and ask for its end: they are generators that
yield steps, which the engine carries out under the same limits, retries, lease and log as any single call.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

from heap_assets.activation.engine.verdict import Response, Verdict
from heap_assets.http_client import LONGEST_ANSWER


@dataclass(frozen=True)
class Request:
    """One HTTP call, ready to send. Never logged."""

    url: str
    """Whole; one that begins with `/` is below the base address that the destination's login names."""
    body: bytes = b""
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)
    """`Content-Type` is JSON unless it is given here; the destination's `auth` adds its own."""
    reads: frozenset[int] = frozenset()
    """Statuses that the exchange itself reads, such as the 404 of a look-up; `trouble` is not asked about them."""
    repeatable: bool | None = None
    """Whether it may be made again after its answer was lost. By default: one that only reads (GET), or any if the
    destination's `dedupe` allows it."""
    rows: int | None = None
    """Rows that it counts as against limits of rows; by default those of the batch, and none for one that reads."""
    longest_answer: int = LONGEST_ANSWER
    """Bytes of its answer that are read; a longer one counts as none. Results of a job may be long."""
    label: str = ""
    """Which limits it counts against besides those of every call: rates with the same `label`."""

    @property
    def only_reads(self) -> bool:
        """Whether it changes nothing at the destination."""
        return self.method in ("GET", "HEAD")


@dataclass(frozen=True)
class Remember:
    """Store what a later run needs to go on with this batch, such as a job's id, before the next step is made.

    `state`: plain JSON without secrets and without values of rows; it replaces what was remembered before.
    """

    state: Mapping[str, Any]


@dataclass(frozen=True)
class Wait:
    """Let so many seconds pass, between two looks at a job.

    More than is left of the run's patience ends the batch for this run, and a later one goes on: :data:`LATER`.
    """

    seconds: float


LATER = Wait(math.inf)
"""Leave it to a later run to go on with what was remembered."""
Step = Request | Remember | Wait
Exchange = Generator[Step, Response, Verdict]
"""Yields steps, is sent the answer of each request (an empty one after other steps), and returns what became of the
rows."""
