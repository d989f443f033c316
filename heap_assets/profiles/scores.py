"""How engaged a person is, and in which stage of life as a customer: plain functions over their events."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum

import polars as pl

PER_ACTIVE_DAY, PER_SESSION, PER_EVENT_TYPE = 5, 2, 10
"""Weights of the engagement score (features.md G59)."""


class Stage(StrEnum):
    """Lifecycle stages in order of precedence: of several that apply, the first counts (features.md G60)."""

    CHURNED = "Churned"
    AT_RISK = "At Risk"
    POWER_USER = "Power User"
    NEW_USER = "New User"
    ACTIVE = "Active"
    DORMANT = "Dormant"
    UNCLASSIFIED = "Unclassified"


def activity(events: pl.LazyFrame, as_of: datetime, days: int = 30, seen: pl.LazyFrame | None = None) -> pl.LazyFrame:
    """Summarise what each profile did.

    Parameters
    ----------
    events
        profile_id String, time Datetime (UTC), session_id, event_type String; rows at or after `as_of` do not count.
    as_of
        End of the window of `days` × 24 hours; not in it.
    seen
        profile_id, first_seen, last_seen: to be taken instead of the first and last event, so that `events` need not
        hold more than the window.

    Returns
    -------
    LazyFrame
        profile_id; first_seen, last_seen; active_days (UTC), sessions, events, event_types: Int64, in the window; one
        row per profile in `events` or `seen`, sorted.
    """
    past = events.filter(pl.col("time") < as_of)
    known = (
        seen
        if seen is not None
        else past.group_by("profile_id").agg(first_seen=pl.col("time").min(), last_seen=pl.col("time").max())
    )
    recent = (
        past.filter(pl.col("time") >= as_of - timedelta(days=days))
        .group_by("profile_id")
        .agg(
            active_days=pl.col("time").dt.date().n_unique(),
            # n_unique counts null as a value, COUNT(DISTINCT) does not
            sessions=pl.col("session_id").drop_nulls().n_unique(),
            events=pl.len(),
            event_types=pl.col("event_type").drop_nulls().n_unique(),
        )
    )
    counts = ("active_days", "sessions", "events", "event_types")
    return (
        known.select("profile_id", "first_seen", "last_seen")
        .join(recent, on="profile_id", how="full", coalesce=True)
        .with_columns(pl.col(counts).fill_null(0).cast(pl.Int64))
        .sort("profile_id")
    )


def engagement(activity: pl.LazyFrame, top: int | None = None) -> pl.LazyFrame:
    """Return profile_id, engagement_score Int64: active days × 5 + sessions × 2 + event types × 10, highest first.

    Ties go to the smaller profile_id. `top` keeps the first so many; the default keeps all, as syncs need.
    """
    score = (
        pl.col("active_days") * PER_ACTIVE_DAY
        + pl.col("sessions") * PER_SESSION
        + pl.col("event_types") * PER_EVENT_TYPE
    )
    ranked = activity.select("profile_id", engagement_score=score).sort(
        ["engagement_score", "profile_id"], descending=[True, False]
    )
    return ranked if top is None else ranked.head(top)


def lifecycle(activity: pl.LazyFrame, as_of: datetime) -> pl.LazyFrame:
    """Return profile_id, lifecycle_stage: exactly one per profile, by `Stage`'s order of precedence.

    Days since are whole days of 24 hours before `as_of`, rounded down. Churned: last seen more than 30 days ago; At
    Risk: 14 to 30; Power User: 15 active days in the window; New User: first seen at most 7 days ago; Active: 3
    sessions in the window; Dormant: seen, but none of these; Unclassified: never seen.
    """
    since = {name: (pl.lit(as_of) - pl.col(name)).dt.total_days() for name in ("first_seen", "last_seen")}
    return activity.select(
        "profile_id",
        lifecycle_stage=pl.when(since["last_seen"].is_null())
        .then(pl.lit(Stage.UNCLASSIFIED.value))
        .when(since["last_seen"] > 30)
        .then(pl.lit(Stage.CHURNED.value))
        .when(since["last_seen"] >= 14)
        .then(pl.lit(Stage.AT_RISK.value))
        .when(pl.col("active_days") >= 15)
        .then(pl.lit(Stage.POWER_USER.value))
        .when(since["first_seen"] <= 7)
        .then(pl.lit(Stage.NEW_USER.value))
        .when(pl.col("sessions") >= 3)
        .then(pl.lit(Stage.ACTIVE.value))
        .otherwise(pl.lit(Stage.DORMANT.value)),
    )


def transitions(before: pl.LazyFrame, after: pl.LazyFrame) -> pl.LazyFrame:
    """Return profile_id, from_stage, to_stage of profiles whose stage differs (null: not there)."""
    return (
        before.select("profile_id", from_stage="lifecycle_stage")
        .join(after.select("profile_id", to_stage="lifecycle_stage"), on="profile_id", how="full", coalesce=True)
        .filter(pl.col("from_stage").ne_missing(pl.col("to_stage")))
        .sort("profile_id")
    )
