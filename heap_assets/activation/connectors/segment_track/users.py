"""Who Heap's users are at Segment."""

from __future__ import annotations

from datetime import date

import polars as pl

from heap_assets.activation.connectors.base import Deployment
from heap_assets.activation.connectors.consent import newest_profiles_day
from heap_assets.activation.connectors.rows import newest, newest_users, profiles_by_identifier
from heap_assets.errors import SettingsError
from heap_assets.identity import HEAP_IDENTITY, HEAP_USER_ID
from heap_assets.tables import GRAPH, MIGRATIONS


def segment_identities(deployment: Deployment, sync: str, user_id: str, suppressed: pl.DataFrame) -> pl.LazyFrame:
    """Return `user_id` Int64, `identity` String: Segment's userId of each Heap user.

    It is that of the user's profile in the newest graph, chosen as for Identify, so that one person has one userId.
    Users that are not in the graph yet have Heap's own identity, migrations followed; a shared user has none.

    `sync`: its name, for messages. `user_id`: the identifier type that Segment knows people by. `suppressed`:
    `user_id`, `identity` of those who have none. Raises SettingsError if the identity needs a graph and there is none.
    """
    day = newest_profiles_day(deployment)
    if day is None and user_id != HEAP_IDENTITY:
        raise SettingsError(f"sync.{sync}.user_id is {user_id!r}, but no graph has been resolved yet")
    users = _graph_users(deployment, day)
    people = pl.DataFrame(schema={"profile_id": pl.String(), "identity": pl.String()})
    if day is not None:
        rows = profiles_by_identifier(deployment, user_id, "one", day).rows
        people = rows.select("profile_id", identity="key").collect()
    resolved = users.join(people, on="profile_id").select("user_id", "identity")
    if user_id == HEAP_IDENTITY:
        decided = pl.concat([resolved["user_id"], users.filter(pl.col("profile_id").is_null())["user_id"]])
        own = _heap_identities(deployment).collect()
        resolved = pl.concat([resolved, own.filter(~pl.col("user_id").is_in(decided.implode()))])
    allowed = resolved.filter(~pl.col("user_id").is_in(suppressed["user_id"].implode()))
    return (
        allowed.filter(~pl.col("identity").is_in(suppressed["identity"].drop_nulls().implode())).sort("user_id").lazy()
    )


def _graph_users(deployment: Deployment, day: date | None) -> pl.DataFrame:
    """Return `user_id`, `profile_id` of the Heap users in the graph; null for shared ones."""
    if day is None:
        return pl.DataFrame(schema={"user_id": pl.Int64(), "profile_id": pl.String()})
    users = deployment.lake.scan(GRAPH, str(day)).filter(pl.col("identifier_type") == HEAP_USER_ID)
    return users.select(
        user_id=pl.col("identifier").cast(pl.Int64, strict=False),
        profile_id=pl.when(~pl.col("shared")).then("profile_id"),
    ).collect()


def _heap_identities(deployment: Deployment) -> pl.LazyFrame:
    users = newest_users(deployment)
    homes = users.filter(pl.col("migrated_to").is_null()).select("user_id", "identity").drop_nulls()
    migrated = newest(deployment, MIGRATIONS).select(user_id="from_user_id", home="resolved_to").drop_nulls()
    joined = migrated.join(homes, left_on="home", right_on="user_id").select("user_id", "identity")
    return pl.concat([homes, joined])
