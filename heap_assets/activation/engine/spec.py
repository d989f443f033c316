"""The specification of a sync: its mapping, and how it is sent."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Literal

from heap_assets.errors import SettingsError


class Mode(StrEnum):
    """How rows become calls.

    Upsert keeps a key as the newest row says, insert sends each new row once, set adds and removes members.
    """

    UPSERT = "upsert"
    INSERT = "insert"
    SET = "set"


class OnWithdrawn(StrEnum):
    """What happens to an acknowledged value that the rows no longer have."""

    CLEAR = "clear"
    KEEP = "keep"


@dataclass(frozen=True)
class Property:
    """One mapped property: the column of the rows it comes from, and whether a null is left out or sent."""

    column: str
    on_null: Literal["skip", "send"] = "skip"


@dataclass(frozen=True)
class Guard:
    """When a run asks for confirmation instead of sending."""

    removed: float = 0.05
    """Share of known keys that would lose a value or vanish."""
    changed: float = 0.20
    changed_times_median: float = 3.0
    """`changed` and `changed_times_median`: Share of known keys that would change; asked only if it is also this many
    times the median of the last runs."""
    takeover: float = 0.20
    """Share of keys by which one value of one property may spread."""
    at_least: int = 20
    """Fewer known keys than this are not judged: one of ten is ten percent."""


@dataclass(frozen=True)
class Retry:
    """Patience with a destination."""

    attempts: int = 5
    """Calls of one batch that may fail with 5xx, a reset or a timeout before the run stops; 429 uses none."""
    first_wait: float = 0.5
    longest_wait: float = 30.0
    """`first_wait` and `longest_wait`: Seconds of back-off, doubled every time, with full jitter."""
    longest_retry_after: float = 120.0
    """A `Retry-After` beyond this many seconds is cut to it."""
    throttled_for: float = 900.0
    """Seconds of nothing but 429 after which the run stops."""
    timeout: float = 30.0
    """Seconds that one call may take."""
    patience: float = 3600.0
    """Seconds that a run waits for a job of the destination; a later run goes on waiting."""


@dataclass(frozen=True)
class SyncSpec:
    """One sync: a name, a mapping and its choices."""

    name: str
    """Name of the sync."""
    properties: Mapping[str, str | Property] = field(default_factory=dict)
    """Name at the destination to the column it comes from (or a :class:`Property`). Nothing else is ever sent."""
    changed_fields_only: bool = False
    """Send only the fields that changed; otherwise all mapped fields of a changed key."""
    on_withdrawn: OnWithdrawn = OnWithdrawn.CLEAR
    """Clear a value that is no longer true, or keep it."""
    rate_share: float = 0.9
    """Share of the documented limits that is used."""
    concurrency: int = 4
    """Calls in flight at once."""
    broken_share: float = 0.20
    """Share of refused rows at which the mapping counts as broken and the run stops."""
    unchanged_failures: int = 3
    """After so many equal failures a refused row is tried only every second, fourth, ... run (at most every 32nd)."""
    unmatched_for: timedelta = timedelta(days=7)
    """How long an unchanged row is left alone that has no record at the destination, or several."""
    hashed: frozenset[str] = frozenset()
    """Properties whose columns hold identifiers that are hashed already."""
    consent: str | None = None
    """Boolean column without which a row is not sent."""
    clears_without_consent: bool = False
    """Of an upsert: what was sent of a person who has withdrawn is cleared, as if the profile were gone."""
    guard: Guard = field(default_factory=Guard)
    retry: Retry = field(default_factory=Retry)
    lease_ttl: timedelta = timedelta(minutes=2)
    """How long a writer may be silent before another may take over."""
    compact_after: int = 2000
    """Log segments after which the log is folded into a new base."""
    salt: bytes | None = None
    account: str | None = None
    """Address and account that are written to; by default those that the destination names."""
    ledger: str | None = None
    """Folder below `_sync/` of that account's ledger, log, lease and tables, as `at_account` found it."""

    def __post_init__(self) -> None:
        if not self.name or any(c in self.name for c in "/\\#") or self.name.startswith("."):
            raise SettingsError(f"sync name {self.name!r} cannot name a folder: use letters, digits and _")
        if reserved := sorted({p.column for p in self.mapped.values()} & {"key", "event_key"}):
            raise SettingsError(
                f"sync {self.name}: column {reserved[0]!r} addresses the row; map a column of another name"
            )
        if not 0 < self.rate_share <= 1:
            raise SettingsError(f"sync {self.name}: rate_share is {self.rate_share}; it must be above 0 and at most 1")
        if self.retry.timeout * 2 >= self.lease_ttl.total_seconds():
            raise SettingsError(
                f"sync {self.name}: lease_ttl ({self.lease_ttl.total_seconds():.0f} s) must be more than twice the "
                f"timeout of a call ({self.retry.timeout:.0f} s), or a call could outlive its lease"
            )

    @property
    def folder(self) -> str:
        """Return the folder of the ledger below `_sync/`."""
        return self.ledger or self.name

    @property
    def mapped(self) -> dict[str, Property]:
        """Return the mapping with every entry as a :class:`Property`."""
        return {name: Property(p) if isinstance(p, str) else p for name, p in self.properties.items()}

    def mapping_version(self, target: str) -> str:
        """Return the version of the mapping and the target: when it changes, everything is sent again."""
        facts = {
            "target": target,
            "properties": {name: [p.column, p.on_null] for name, p in sorted(self.mapped.items())},
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
