"""Addressing: the keys a profile is sent to, which are its Heap identities that Heap knows and that are not shared."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Literal

import polars as pl

from heap_assets.activation.engine.event_keys import KeyedEvents
from heap_assets.errors import DeliveryError
from heap_assets.tables import USERS

if TYPE_CHECKING:
    from heap_assets.activation.engine.two_way import ReadBack

_SET_ASIDE = pl.Schema({"profile_id": pl.String(), "key": pl.String(), "reason": pl.String()})

NOT_IN_HEAP = "not in heap/users, or migrated away"
"""Reason for which an identity is held that Heap does not know."""


@dataclass(frozen=True)
class AddressPolicy:
    """How profiles find their key."""

    identities: Literal["all", "one", "none"] = "all"
    """A profile with several identities: send to `all`, to `one`, or to `none`. The one is the profile's
    `heap_identity` if it has that column and Heap knows it, else the one Heap changed last."""
    allow_new: bool = False
    """Send to identities Heap does not know yet; Heap creates a user for each (heap.md 1.5)."""
    hold_migrated: bool = False
    """With `allow_new`: an identity whose user migrated away was known once, and is held nevertheless."""
    suppressed: frozenset[str] = frozenset()
    """Identities that are never sent to."""
    users_as_of: datetime | None = None
    cadence: timedelta = timedelta(days=1)
    now: datetime | None = None
    """`users_as_of`, `cadence`, `now`: When the users table was exported, how often that happens, and the present: a
    table older than two cadences stops the sync, because identities may have migrated away since."""
    missing: str = "the profile has no Heap identity yet"
    """Reason for which a profile without a key is held."""


@dataclass(frozen=True)
class Addressed:
    """Profiles with the key they are sent to."""

    rows: pl.LazyFrame
    """`key`, `profile_id` and every other column of the profiles; one row per key."""
    held: pl.LazyFrame
    invalid: pl.LazyFrame
    """`held` and `invalid`: `profile_id`, `key`, `reason`. Held rows wait for Heap; invalid ones need a correction."""
    writable: pl.LazyFrame | None = None
    """`key`: all keys that may be written to, by withdrawals too; None for any."""
    counts: dict[str, int] = field(default_factory=dict)
    """profiles, without_identity, several_identities, and would_create: rows whose identity Heap does not know yet. Of
    events, would_create counts the identities of those that are sent, and unknown_identities those of events that wait.
    """
    keyed: KeyedEvents | None = None
    """Of rows that are all events of a table: what their keys are made of."""
    read_back: ReadBack | None = None
    """What was read back of the records that the rows are written to."""


def refuse_old_users(policy: AddressPolicy) -> None:
    """Raise DeliveryError if the users table is older than two cadences."""
    if policy.users_as_of is not None and policy.now is not None:
        age = policy.now - policy.users_as_of
        if age > 2 * policy.cadence:
            raise DeliveryError(
                f"{USERS} is {age.total_seconds() / 3600:.0f} hours old, more than two exports: identities may have "
                "migrated since. Land the newest dump first; nothing was sent"
            )


def writable_users(users: pl.LazyFrame, policy: AddressPolicy) -> pl.LazyFrame:
    """Return the rows of the newest `heap/users` whose identities may be written to."""
    identities = users.filter(pl.col("identity").is_not_null(), pl.col("migrated_to").is_null())
    if policy.suppressed:
        identities = identities.filter(~pl.col("identity").is_in(list(policy.suppressed)))
    return identities


@cache
def no_addresses() -> pl.LazyFrame:
    """Return a held or invalid table without rows."""
    return pl.LazyFrame(schema=_SET_ASIDE)
