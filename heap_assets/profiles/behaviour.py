"""Behavioural traits: what a person did lately, in the form that Segment's Identify and CRM fields expect."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

import polars as pl

from heap_assets.errors import SettingsError
from heap_assets.identity import HEAP_USER_ID
from heap_assets.profiles.audiences import events_of_profiles
from heap_assets.profiles.scores import activity, engagement, lifecycle

TIME = pl.Datetime("us", "UTC")
BEHAVIOUR = ("session_count", "active_days", "last_active", "engagement_score", "lifecycle_stage")
"""What `with_behaviour` says of everybody, besides the flags of features."""


def event_stream(tables: Mapping[str, pl.LazyFrame], graph: pl.LazyFrame) -> pl.LazyFrame:
    """Put Heap event tables together as profile_id, time, session_id, event_type: what scores and traits are made of.

    Parameters
    ----------
    tables
        Rows (user_id, time, session_id) by event name.
    graph
        `identity/graph` of the day; rows of users that are shared or unknown are left out.
    """
    empty = pl.LazyFrame(schema={"user_id": pl.Int64, "time": TIME, "session_id": pl.Int64, "event_type": pl.String})
    rows = [
        frame.select("user_id", "time", "session_id", event_type=pl.lit(name)) for name, frame in sorted(tables.items())
    ]
    return events_of_profiles(pl.concat([empty, *rows]), graph).drop("user_id")


def behavioural_traits(
    events: pl.LazyFrame,
    as_of: datetime,
    features: Mapping[str, str],
    days: int = 30,
    seen: pl.LazyFrame | None = None,
) -> pl.LazyFrame:
    """Summarise behaviour per profile (features.md T2).

    Parameters
    ----------
    events
        profile_id String, time Datetime (UTC), session_id, event_type String.
    as_of
        End of the window of `days` × 24 hours; not in it.
    features
        Name of a flag to the event type that proves the feature is used, such as `uses_exports: export_created`.
    seen
        profile_id, first_seen, last_seen: to be taken instead of the first and last event, so that `events` need not
        hold more than the window.

    Returns
    -------
    LazyFrame
        profile_id, session_count, active_days: Int64 (in the window); last_active: String, the ISO 8601 date of the
        newest event (any time ago); one Boolean per feature, false if not used in the window; sorted by profile_id.

    Raises
    ------
    SettingsError
        A flag has the name of another column.
    """
    if taken := sorted({"profile_id", *BEHAVIOUR} & set(features)):
        raise SettingsError(f"feature flags {', '.join(taken)}: a trait has this name already; choose another.")
    facts = activity(events, as_of, days, seen).select(
        "profile_id", "active_days", session_count="sessions", last_active=pl.col("last_seen").dt.strftime("%Y-%m-%d")
    )
    recent = events.filter((pl.col("time") < as_of) & (pl.col("time") >= as_of - timedelta(days=days)))
    used = recent.group_by("profile_id").agg(
        (pl.col("event_type") == event).any().alias(flag) for flag, event in features.items()
    )
    return (
        facts.join(used, on="profile_id", how="left")
        .with_columns(pl.col(list(features)).fill_null(value=False))
        .select("profile_id", "session_count", "active_days", "last_active", *features)
        .sort("profile_id")
    )


def with_behaviour(
    profiles: pl.LazyFrame,
    graph: pl.LazyFrame,
    events: pl.LazyFrame,
    as_of: datetime,
    features: Mapping[str, str],
    days: int = 30,
) -> pl.LazyFrame:
    """Return the profiles with what each person did: `BEHAVIOUR` and one flag per feature, for people never seen too.

    Parameters
    ----------
    graph
        `identity/graph` of the day: since when and until when Heap saw somebody, further back than `events` reach.
    events
        profile_id, time, session_id, event_type, of the last `days` × 24 hours at least.
    """
    own = graph.filter((pl.col("identifier_type") == HEAP_USER_ID) & ~pl.col("shared"))
    in_heap = own.group_by("profile_id").agg(pl.col("first_seen").min(), pl.col("last_seen").max())
    seen = profiles.select("profile_id").join(in_heap, on="profile_id", how="left")
    facts = activity(events, as_of, days, seen)
    said = behavioural_traits(events, as_of, features, days, seen)
    return (
        profiles.join(said, on="profile_id", how="left", maintain_order="left")
        .join(engagement(facts), on="profile_id", how="left", maintain_order="left")
        .join(lifecycle(facts, as_of), on="profile_id", how="left", maintain_order="left")
        .select(*profiles.collect_schema(), *BEHAVIOUR, *features)
    )
