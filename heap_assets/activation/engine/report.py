"""The report of a run: counts and reasons, without personal values."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import date
from enum import StrEnum
from typing import Any

_ADDRESSING = {
    "profiles": "profiles looked at",
    "without_identity": "profiles without an identity",
    "would_create": "identities that Heap would have to create",
    "unknown_identities": "identities that Heap does not know, whose events wait",
    "several_identities": "profiles with several identities",
    "before_since": "events before `since`, left alone",
    "expired": "events that nobody was found for in time",
}


class Status(StrEnum):
    """How a run ended. Only `succeeded` is success."""

    SUCCEEDED = "succeeded"
    PARTIAL = "partial"
    """Sent, but some rows were rejected, invalid or remain unanswered."""
    STOPPED = "stopped"
    """The destination refused as a whole or is down; what it acknowledged is kept."""
    NEEDS_CONFIRMATION = "needs_confirmation"
    SUPERSEDED = "superseded"
    """A newer day was delivered already."""
    REFUSED = "refused"
    """A condition of the destination is not met; nothing was sent."""
    BLOCKED = "blocked"
    """A blocking check of the input did not pass; nothing was sent."""
    PLANNED = "planned"
    """A dry run."""
    KILLED = "killed"


@dataclass(frozen=True)
class Progress:
    """How far a run is. `planned` counts rows; `seconds` since the first call."""

    planned: int
    acknowledged: int
    rejected: int
    requests: int
    seconds: float


@dataclass(frozen=True)
class SyncReport:
    """The outcome of one run of one sync."""

    sync: str
    destination: str
    run_id: str
    day: date
    status: Status
    reason: str | None = None
    planned: int = 0
    """Rows the run set out to send: added + changed + vanished keys whose values are withdrawn."""
    added: int = 0
    changed: int = 0
    unchanged: int = 0
    empty: int = 0
    """Rows none of whose mapped properties has a value, and of which the destination holds nothing: nothing to send."""
    withdrawn: int = 0
    """Keys of which at least one value is withdrawn; among them `removed`, the vanished ones."""
    removed: int = 0
    superseded: int = 0
    waiting: int = 0
    """Rejected rows that are not tried in this run, because they failed unchanged too often."""
    known: int = 0
    sent: int = 0
    """Rows the destination acknowledged."""
    rejected: int = 0
    invalid: int = 0
    held: int = 0
    unknown: int = 0
    """Rows without an answer; sent again by the next run, or still being worked on there."""
    no_match: int = 0
    """Rows without a record at the destination, where the sync is to make none; tried again when they change."""
    deferred: int = 0
    """Rows that the destination asked to be sent again later."""
    no_consent: int = 0
    """Rows of people who have not consented."""
    left: int = 0
    """Fields that differ from ours and are left as they are at the destination (`conflicts`)."""
    lost: int = 0
    """Rows of earlier runs without an answer that are not sent again, because they could count twice."""
    resumed: int = 0
    """Rows that the destination took in jobs of earlier runs that have ended in this one."""
    aborted: int = 0
    """Rows that were planned and not attempted."""
    requests: int = 0
    retried: int = 0
    throttled: int = 0
    seconds: float = 0.0
    full_resend_reason: str | None = None
    new_properties: tuple[str, ...] = ()
    concerns: tuple[str, ...] = ()
    rejections: dict[str, int] = field(default_factory=dict)
    invalid_reasons: dict[str, int] = field(default_factory=dict)
    held_reasons: dict[str, int] = field(default_factory=dict)
    """`rejections`, `invalid_reasons`, `held_reasons`: Reason to number of rows."""
    addressing: dict[str, int] = field(default_factory=dict)
    """Counts of addressing: profiles without an identity, events before `since`, tracking plan rules."""
    sample: tuple[tuple[str, str], ...] = ()
    """Up to ten rejected rows: hashed key and reason."""
    first_requests: tuple[str, ...] = ()
    """Of a dry run: the first requests, with every value hashed."""
    forced: tuple[str, ...] = ()
    """Hashed keys that a forced run overwrote with an older day's values."""
    recovered: int = 0

    @property
    def rate(self) -> float:
        """Acknowledged rows per second."""
        return self.sent / self.seconds if self.seconds > 0 else 0.0

    @property
    def rejected_share(self) -> float:
        """Share of the attempted rows that the destination refused."""
        attempted = self.sent + self.rejected
        return self.rejected / attempted if attempted else 0.0

    @property
    def addressing_in_words(self) -> dict[str, int]:
        """Counts of addressing by description; zeros are left out."""
        return {_ADDRESSING.get(name, name): rows for name, rows in self.addressing.items() if rows}

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for metadata and tables."""
        return {**asdict(self), "status": str(self.status), "day": self.day.isoformat(), "rate": self.rate}
