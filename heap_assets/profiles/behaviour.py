"""Behavioural traits: what a person did lately, in the form that Segment's Identify and CRM fields expect."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum

import polars as pl

from heap_assets.errors import SettingsError
from heap_assets.identity import HEAP_USER_ID
from heap_assets.profiles.audiences import events_of_profiles
from heap_assets.tables import BEHAVIOUR_COLUMNS, TOP_PAGES_COLUMN
from heap_assets.values import TIME


def event_stream(parts: Iterable[pl.LazyFrame], graph: pl.LazyFrame) -> pl.LazyFrame:
    """Return rows of Heap event tables as one: profile_id, time, session_id, event_type: input of scores and traits.

    Parameters
    ----------
    parts
        Rows of any of the tables: user_id, time, session_id, event_type (the name of the event).
    graph
        `identity/graph` of the day; rows of users that are shared or unknown are left out.
    """
    empty = pl.LazyFrame(schema={"user_id": pl.Int64, "time": TIME, "session_id": pl.Int64, "event_type": pl.String})
    rows = [frame.select(empty.collect_schema().names()) for frame in parts]
    return events_of_profiles(pl.concat([empty, *rows]), graph).drop("user_id")


def behavioural_traits(
    events: pl.LazyFrame,
    as_of: datetime,
    features: Mapping[str, str],
    days: int = 30,
    dates: pl.LazyFrame | None = None,
    proofs: pl.LazyFrame | None = None,
) -> pl.LazyFrame:
    """Summarise behaviour per profile (features.md T2); parameters as those of :func:`activity`.

    `features`: name of a flag to the event type that proves the feature is used, such as `uses_exports:
    export_created`. `proofs`: the events that these are, if they are not those that count as activity.

    Returns profile_id, session_count, active_days: Int64 (in the window); last_active: String, the ISO 8601 date of the
    newest event (any time ago); one Boolean per feature, false if not used in the window; sorted by profile_id.

    Raises SettingsError: a flag has the name of another column.
    """
    if clashing := sorted({"profile_id", *BEHAVIOUR_COLUMNS} & set(features)):
        raise SettingsError(f"feature flags {', '.join(clashing)}: a trait has this name already; choose another.")
    facts = activity(events, as_of, days, dates).select(
        "profile_id", "active_days", session_count="sessions", last_active=pl.col("last_seen").dt.strftime("%Y-%m-%d")
    )
    proofs = events if proofs is None else proofs
    recent = proofs.filter((pl.col("time") < as_of) & (pl.col("time") >= as_of - timedelta(days=days)))
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
    *,
    proofs: pl.LazyFrame | None = None,
    further: pl.LazyFrame | None = None,
) -> pl.LazyFrame:
    """Add `BEHAVIOUR_COLUMNS` and one flag per feature to all profiles, those without events too.

    Parameters
    ----------
    graph
        `identity/graph` of the day: first and last seen in Heap, further back than `events` reach.
    events
        profile_id, time, session_id, event_type, of the last `days` × 24 hours at least.
    proofs
        The events that prove features, if they are others.
    further
        profile_id, time of all events outside of Heap, any time ago.
    """
    own = graph.filter((pl.col("identifier_type") == HEAP_USER_ID) & ~pl.col("shared"))
    in_heap = own.group_by("profile_id").agg(pl.col("first_seen").min(), pl.col("last_seen").max())
    if further is not None:
        past = further.filter(pl.col("time") < as_of).group_by("profile_id")
        outside = past.agg(first_seen=pl.col("time").min(), last_seen=pl.col("time").max())
        both = pl.concat([in_heap, outside], how="vertical_relaxed").group_by("profile_id")
        in_heap = both.agg(pl.col("first_seen").min(), pl.col("last_seen").max())
    dates = profiles.select("profile_id").join(in_heap, on="profile_id", how="left")
    facts = activity(events, as_of, days, dates)
    traits = behavioural_traits(events, as_of, features, days, dates, proofs)
    return (
        profiles.join(traits, on="profile_id", how="left", maintain_order="left")
        .join(engagement(facts), on="profile_id", how="left", maintain_order="left")
        .join(lifecycle(facts, as_of), on="profile_id", how="left", maintain_order="left")
        .select(*profiles.collect_schema(), *BEHAVIOUR_COLUMNS, *features)
    )


def with_trends(
    profiles: pl.LazyFrame, events: pl.LazyFrame, as_of: datetime, features: Collection[str], days: int = 30
) -> pl.LazyFrame:
    """Add `TREND_COLUMNS` to profiles that have the columns of behaviour; parameters as of :func:`with_behaviour`.

    sessions_per_week: Float64. trend: rising if the later half of the window has more than one and a half times the
    sessions of the earlier one, falling if it has less than two thirds, else steady; null without any session.
    features_used: how many of the flags `features` are true.
    """
    middle = as_of - timedelta(days=days) / 2
    # rows as behavioural_traits reads them, so that they are read once
    recent = events.filter((pl.col("time") < as_of) & (pl.col("time") >= as_of - timedelta(days=days)))
    is_later, session = pl.col("time") >= middle, pl.col("session_id")
    halves = recent.group_by("profile_id").agg(
        later=session.filter(is_later).drop_nulls().n_unique().cast(pl.Int64),
        earlier=session.filter(~is_later).drop_nulls().n_unique().cast(pl.Int64),
    )
    later, earlier = pl.col("later"), pl.col("earlier")
    trend = (
        pl.when((later + earlier).fill_null(0) == 0)
        .then(pl.lit(None, pl.String))
        .when(later * 2 > earlier * 3)
        .then(pl.lit("rising"))
        .when(later * 3 < earlier * 2)
        .then(pl.lit("falling"))
        .otherwise(pl.lit("steady"))
    )
    used = sum((pl.col(flag).fill_null(value=False).cast(pl.Int64) for flag in features), pl.lit(0, pl.Int64))
    return (
        profiles.join(halves, on="profile_id", how="left", maintain_order="left")
        .with_columns(
            sessions_per_week=(pl.col("session_count").fill_null(0) * 7 / days).round(2),
            trend=trend,
            features_used=used,
        )
        .drop("later", "earlier")
    )


def with_top_pages(
    profiles: pl.LazyFrame, pageviews: pl.LazyFrame, page: str, as_of: datetime, days: int = 30, top: int = 3
) -> pl.LazyFrame:
    """Add the list of the `top` most frequent values of a property of pageviews in the window; null without any.

    `pageviews`: profile_id, time and the property `page`. Of equally frequent values the smaller one is first.
    """
    recent = pageviews.filter((pl.col("time") < as_of) & (pl.col("time") >= as_of - timedelta(days=days)))
    counts = recent.select("profile_id", page=pl.col(page).cast(pl.String)).drop_nulls("page")
    counts = counts.group_by("profile_id", "page").len().sort(["len", "page"], descending=[True, False])
    pages = counts.group_by("profile_id", maintain_order=True).agg(pl.col("page").head(top).alias(TOP_PAGES_COLUMN))
    return profiles.join(pages, on="profile_id", how="left", maintain_order="left")


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


def activity(events: pl.LazyFrame, as_of: datetime, days: int = 30, dates: pl.LazyFrame | None = None) -> pl.LazyFrame:
    """Summarise what each profile did.

    Parameters
    ----------
    events
        profile_id String, time Datetime (UTC), session_id, event_type String; rows at or after `as_of` do not count.
    as_of
        End of the window of `days` × 24 hours; not in it.
    dates
        profile_id, first_seen, last_seen: used instead of the first and last event, so that `events` need not hold
        more than the window.

    Returns profile_id; first_seen, last_seen; active_days (UTC), sessions, events, event_types: Int64, in the window;
    one row per profile in `events` or `dates`, sorted.
    """
    past = events.filter(pl.col("time") < as_of)
    if dates is None:
        dates = past.group_by("profile_id").agg(first_seen=pl.col("time").min(), last_seen=pl.col("time").max())
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
        dates.select("profile_id", "first_seen", "last_seen")
        .join(recent, on="profile_id", how="full", coalesce=True)
        .with_columns(pl.col(counts).fill_null(0).cast(pl.Int64))
        .sort("profile_id")
    )


def engagement(activity: pl.LazyFrame, top: int | None = None) -> pl.LazyFrame:
    """Return profile_id, engagement_score Int64: active days × 5 + sessions × 2 + event types × 10, highest first.

    Ties go to the smaller profile_id. `top` keeps the first so many; the default keeps all, as syncs need.
    """
    weights = {"active_days": PER_ACTIVE_DAY, "sessions": PER_SESSION, "event_types": PER_EVENT_TYPE}
    scores = activity.select(
        "profile_id", engagement_score=sum((pl.col(name) * weight for name, weight in weights.items()), pl.lit(0))
    )
    ranked = scores.sort(["engagement_score", "profile_id"], descending=[True, False])
    return ranked if top is None else ranked.head(top)


def lifecycle(activity: pl.LazyFrame, as_of: datetime) -> pl.LazyFrame:
    """Return profile_id, lifecycle_stage: exactly one per profile, by `Stage`'s order of precedence.

    Days since are whole days of 24 hours before `as_of`, rounded down. Churned: last seen more than 30 days ago; At
    Risk: 14 to 30; Power User: 15 active days in the window; New User: first seen at most 7 days ago; Active: 3
    sessions in the window; Dormant: seen, but none of these; Unclassified: never seen.
    """
    first, last = ((pl.lit(as_of) - pl.col(name)).dt.total_days() for name in ("first_seen", "last_seen"))
    rules = (
        (last.is_null(), Stage.UNCLASSIFIED),
        (last > 30, Stage.CHURNED),
        (last >= 14, Stage.AT_RISK),
        (pl.col("active_days") >= 15, Stage.POWER_USER),
        (first <= 7, Stage.NEW_USER),
        (pl.col("sessions") >= 3, Stage.ACTIVE),
    )
    stages = [pl.when(holds).then(pl.lit(stage.value)) for holds, stage in rules]
    return activity.select("profile_id", lifecycle_stage=pl.coalesce(*stages, pl.lit(Stage.DORMANT.value)))


def transitions(before: pl.LazyFrame, after: pl.LazyFrame) -> pl.LazyFrame:
    """Return profile_id, from_stage, to_stage of profiles whose stage differs (null: no such profile)."""
    return (
        before.select("profile_id", from_stage="lifecycle_stage")
        .join(after.select("profile_id", to_stage="lifecycle_stage"), on="profile_id", how="full", coalesce=True)
        .filter(pl.col("from_stage").ne_missing(pl.col("to_stage")))
        .sort("profile_id")
    )
