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


def writable_identities(users: pl.LazyFrame, policy: AddressPolicy) -> pl.LazyFrame:
    """Return `key`, `last_modified` of the identities in the newest `heap/users` that may be written to.

    Raises DeliveryError if the users table is older than two cadences.
    """
    if policy.users_as_of is not None and policy.now is not None:
        age = policy.now - policy.users_as_of
        if age > 2 * policy.cadence:
            raise DeliveryError(
                f"{USERS} is {age.total_seconds() / 3600:.0f} hours old, more than two exports: identities may have "
                "migrated since. Land the newest dump first; nothing was sent"
            )
    identities = users.filter(pl.col("identity").is_not_null(), pl.col("migrated_to").is_null())
    if policy.suppressed:
        identities = identities.filter(~pl.col("identity").is_in(list(policy.suppressed)))
    return identities.group_by(key=pl.col("identity")).agg(pl.col("last_modified").max())


def addressed(
    profiles: pl.LazyFrame,
    users: pl.LazyFrame,
    policy: AddressPolicy | None = None,
    refused: pl.LazyFrame | None = None,
) -> Addressed:
    """Give every profile the key, or keys, that it is sent to.

    Parameters
    ----------
    profiles
        `profile_id` String, `heap_identities` List(String), then traits.
    users
        Newest `heap/users`: `identity`, `migrated_to`, `last_modified`.
    refused
        `profile_id`, `reason`: profiles that would have a key, had it not been refused; each once.

    Notes
    -----
    design.md, Sync: writable are identities in the newest `heap/users`, not migrated away, not suppressed; two profiles
    on one key are both invalid.
    """
    policy = policy or AddressPolicy()
    writable = writable_identities(users, policy).collect()
    people = profiles.with_columns(_several=pl.col("heap_identities").list.len()).collect()
    pairs = people.select("profile_id", key="heap_identities", several="_several").explode(
        "key", empty_as_null=False, keep_nulls=False
    )
    pairs = pairs.join(writable.with_columns(in_heap=pl.lit(value=True)), on="key", how="left", maintain_order="left")
    if policy.allow_new and policy.hold_migrated:
        migrated = users.filter(pl.col("migrated_to").is_not_null()).select(key="identity", migrated=pl.lit(value=True))
        pairs = pairs.join(migrated.unique("key").collect(), on="key", how="left", maintain_order="left")
    reasons = pairs.with_columns(reason=_reason(policy, pairs), twice=pl.col("profile_id").n_unique().over("key") > 1)
    reasons = reasons.with_columns(
        invalid=pl.when("twice")
        .then(pl.lit("two profiles have this key"))
        .when((pl.col("several") > 1) & pl.lit(policy.identities == "none"))
        .then(pl.lit("the profile has several identities"))
    )
    usable = reasons.filter(pl.col("reason").is_null(), pl.col("invalid").is_null())
    if policy.identities == "one":
        usable = _preferred(usable, people)
    rows = usable.select("profile_id", "key").lazy().join(people.lazy().drop("_several"), on="profile_id", how="left")
    invalid = reasons.filter(pl.col("invalid").is_not_null()).select("profile_id", "key", reason="invalid")
    held = reasons.filter(pl.col("invalid").is_null(), pl.col("reason").is_not_null())
    return Addressed(
        rows=rows.sort("key"),
        held=pl.concat([held.select("profile_id", "key", "reason"), _without(people, policy, refused)]).lazy(),
        invalid=invalid.lazy(),
        writable=writable.lazy().select("key") if not policy.allow_new else None,
        counts={
            "profiles": len(people),
            "without_identity": int((people["_several"].fill_null(0) == 0).sum()),
            "would_create": int(usable["in_heap"].is_null().sum()),
            "several_identities": int((people["_several"].fill_null(0) > 1).sum()),
        },
    )


def _preferred(usable: pl.DataFrame, people: pl.DataFrame) -> pl.DataFrame:
    """Keep one identity per profile."""
    if "heap_identity" in people.columns:
        usable = usable.join(people.select("profile_id", first="heap_identity"), on="profile_id", how="left")
    else:
        usable = usable.with_columns(first=pl.lit(None, pl.String))
    order = [(pl.col("key") == pl.col("first")).fill_null(value=False), pl.col("last_modified"), pl.col("key")]
    ordered = usable.sort(order, descending=[True, True, False], nulls_last=True)
    return ordered.unique("profile_id", keep="first", maintain_order=True)


@cache
def no_addresses() -> pl.LazyFrame:
    """Return a held or invalid table without rows."""
    return pl.LazyFrame(schema=_SET_ASIDE)


def _reason(policy: AddressPolicy, pairs: pl.DataFrame) -> pl.Expr:
    suppressed = pl.col("key").is_in(list(policy.suppressed))
    migrated = pl.col("migrated").is_not_null() if "migrated" in pairs.columns else pl.lit(value=False)
    absent = pl.col("in_heap").is_null() & (pl.lit(not policy.allow_new) | migrated)
    return (
        pl.when(suppressed)
        .then(pl.lit("suppressed"))
        .when(absent)
        .then(pl.lit(NOT_IN_HEAP))
        .otherwise(pl.lit(None, pl.String))
    )


def _without(people: pl.DataFrame, policy: AddressPolicy, refused: pl.LazyFrame | None) -> pl.DataFrame:
    """Return the profiles without a key, with reasons."""
    keyless = people.filter(pl.col("_several").fill_null(0) == 0).select("profile_id", key=pl.lit(None, pl.String))
    if refused is None:
        return keyless.with_columns(reason=pl.lit(policy.missing))
    reasons = refused.select("profile_id", "reason").collect()
    joined = keyless.join(reasons, on="profile_id", how="left", maintain_order="left")
    return joined.with_columns(pl.col("reason").fill_null(policy.missing))
