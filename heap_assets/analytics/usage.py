"""Queries about what people use: adoption, engagement, lifecycle, retention, next things to try, accounts, models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from heap_assets.analytics.query import IN_WINDOW, Query, share
from heap_assets.values import sql_identifier


@dataclass(frozen=True, kw_only=True)
class Adoption(Query):
    """Who uses which event, by a trait: people, share of the segment, events, events a person."""

    kind: ClassVar[str] = "adoption"
    about: ClassVar[str] = "users"
    only: tuple[str, ...] = ()
    by: str | None = None

    @property
    def events(self) -> tuple[str, ...]:
        return self.only

    @property
    def traits(self) -> tuple[str, ...]:
        return (self.by,) if self.by else ()

    def body(self) -> tuple[str, dict[str, Any]]:
        segment = f"CAST(p.{sql_identifier(self.by)} AS VARCHAR)" if self.by else "'everyone'"
        return (
            f"""
            SELECT u.segment, u.event_type, u.users, {share("u.users", "s.people")} AS percent_of_segment,
                u.total_events, ROUND(1.0 * u.total_events / u.users, 2) AS events_per_user
            FROM (
                SELECT {segment} AS segment, e.event_type, COUNT(DISTINCT e.profile_id) AS users,
                    COUNT(*) AS total_events
                FROM events AS e JOIN people AS p ON p.profile_id = e.profile_id
                WHERE e.time >= $begin AND e.time < $end GROUP BY 1, 2
            ) AS u
            JOIN (SELECT {segment} AS segment, COUNT(*) AS people FROM people AS p GROUP BY 1) AS s
                ON COALESCE(s.segment, '') = COALESCE(u.segment, '')
            ORDER BY u.users DESC, u.event_type, u.segment NULLS FIRST
            """,
            {},
        )


@dataclass(frozen=True, kw_only=True)
class Engagement(Query):
    """Who is most engaged: active days × 5 + sessions × 2 + event types × 10; ties by profile_id."""

    kind: ClassVar[str] = "engagement"
    about: ClassVar[str] = "score"
    top: int = 1000

    def body(self) -> tuple[str, dict[str, Any]]:
        return (
            f"""
            SELECT place, profile_id, active_days, sessions, total_events, event_types, score
            FROM (
                SELECT *, ROW_NUMBER() OVER (ORDER BY score DESC, profile_id NULLS FIRST) AS place
                FROM (
                    SELECT profile_id, active_days, sessions, total_events, event_types,
                        active_days * 5 + sessions * 2 + event_types * 10 AS score
                    FROM (
                        SELECT profile_id, COUNT(DISTINCT CAST(time AS DATE)) AS active_days,
                            COUNT(DISTINCT session_id) AS sessions, COUNT(*) AS total_events,
                            COUNT(DISTINCT event_type) AS event_types
                        FROM events WHERE {IN_WINDOW} GROUP BY profile_id
                    ) AS counted
                ) AS scored
            ) AS ranked
            WHERE place <= $top ORDER BY place
            """,
            {"top": self.top},
        )


@dataclass(frozen=True, kw_only=True)
class Lifecycle(Query):
    """How many people went from which lifecycle stage to which since the day before; no stage: no profile."""

    kind: ClassVar[str] = "lifecycle"
    about: ClassVar[str] = "people"

    @property
    def traits(self) -> tuple[str, ...]:
        return ("lifecycle_stage",)

    @property
    def compares(self) -> bool:
        return True

    def body(self) -> tuple[str, dict[str, Any]]:
        return (
            """
            SELECT b.lifecycle_stage AS from_stage, p.lifecycle_stage AS to_stage, COUNT(*) AS people
            FROM people AS p FULL JOIN people_before AS b ON b.profile_id = p.profile_id
            GROUP BY 1, 2 ORDER BY people DESC, from_stage NULLS FIRST, to_stage NULLS FIRST
            """,
            {},
        )


@dataclass(frozen=True, kw_only=True)
class Retention(Query):
    """Of the people first seen in a period of `period_days`, how many did something how many periods later.

    Period 0 begins `days` before the end of the day.
    """

    kind: ClassVar[str] = "retention"
    about: ClassVar[str] = "percent"
    days: int = 56
    period_days: int = 7
    only: tuple[str, ...] = ()

    @property
    def events(self) -> tuple[str, ...]:
        return self.only

    @property
    def traits(self) -> tuple[str, ...]:
        return ("first_seen",)

    def body(self) -> tuple[str, dict[str, Any]]:
        def period(moment: str) -> str:
            return f"CAST(FLOOR((EPOCH_US({moment}) - EPOCH_US($begin)) / $period) AS BIGINT)"

        return (
            f"""
            SELECT a.cohort, a.age, a.people, {share("a.people", "c.people")} AS percent
            FROM (
                SELECT cohort, period - cohort AS age, COUNT(DISTINCT profile_id) AS people
                FROM (
                    SELECT p.profile_id, {period("p.first_seen")} AS cohort, {period("e.time")} AS period
                    FROM people AS p JOIN events AS e ON e.profile_id = p.profile_id
                    WHERE p.first_seen >= $begin AND p.first_seen < $end AND e.time >= $begin AND e.time < $end
                ) AS active
                WHERE period >= cohort GROUP BY 1, 2
            ) AS a
            JOIN (
                SELECT {period("first_seen")} AS cohort, COUNT(*) AS people FROM people
                WHERE first_seen >= $begin AND first_seen < $end GROUP BY 1
            ) AS c ON c.cohort = a.cohort
            ORDER BY a.cohort, a.age
            """,
            {"period": self.period_days * 86_400_000_000},
        )


@dataclass(frozen=True, kw_only=True)
class Recommendations(Query):
    """What a person uses most, and what others use most that this person does not: the next things to try."""

    kind: ClassVar[str] = "recommendations"
    about: ClassVar[str] = "place"
    top: int = 10
    recommended: int = 3
    only: tuple[str, ...] = ()

    @property
    def events(self) -> tuple[str, ...]:
        return self.only

    def body(self) -> tuple[str, dict[str, Any]]:
        return (
            f"""
            WITH used AS (
                SELECT profile_id, event_type, COUNT(*) AS total_events FROM events WHERE {IN_WINDOW} GROUP BY 1, 2
            ), popular AS (
                SELECT event_type, COUNT(*) AS people FROM used GROUP BY 1
            )
            SELECT * FROM (
                SELECT profile_id, 'used' AS list, event_type, total_events,
                    ROW_NUMBER() OVER (
                        PARTITION BY profile_id ORDER BY total_events DESC, event_type NULLS FIRST
                    ) AS place
                FROM used
            ) AS mine WHERE place <= $top
            UNION ALL
            SELECT * FROM (
                SELECT o.profile_id, 'recommended' AS list, o.event_type, 0 AS total_events,
                    ROW_NUMBER() OVER (
                        PARTITION BY o.profile_id ORDER BY o.people DESC, o.event_type NULLS FIRST
                    ) AS place
                FROM (
                    SELECT w.profile_id, p.event_type, p.people
                    FROM (SELECT DISTINCT profile_id FROM used) AS w CROSS JOIN popular AS p
                ) AS o
                LEFT JOIN used AS u ON u.profile_id = o.profile_id AND u.event_type = o.event_type
                WHERE u.profile_id IS NULL
            ) AS open_to WHERE place <= $recommended
            ORDER BY profile_id, list DESC, place
            """,
            {"top": self.top, "recommended": self.recommended},
        )


@dataclass(frozen=True, kw_only=True)
class AccountActivity(Query):
    """Behaviour per account, as for people: people, active people, sessions, events, active days, score."""

    kind: ClassVar[str] = "accounts"
    about: ClassVar[str] = "score"
    account: str

    @property
    def traits(self) -> tuple[str, ...]:
        return (self.account,)

    def body(self) -> tuple[str, dict[str, Any]]:
        account = f"CAST(p.{sql_identifier(self.account)} AS VARCHAR)"
        return (
            f"""
            SELECT account, people, active_people, active_days, sessions, total_events, event_types,
                active_days * 5 + sessions * 2 + event_types * 10 AS score
            FROM (
                SELECT {account} AS account, COUNT(DISTINCT p.profile_id) AS people,
                    COUNT(DISTINCT e.profile_id) AS active_people, COUNT(DISTINCT CAST(e.time AS DATE)) AS active_days,
                    COUNT(DISTINCT e.session_id) AS sessions, COUNT(e.profile_id) AS total_events,
                    COUNT(DISTINCT e.event_type) AS event_types
                FROM people AS p
                LEFT JOIN (SELECT * FROM events WHERE {IN_WINDOW}) AS e ON e.profile_id = p.profile_id
                WHERE p.{sql_identifier(self.account)} IS NOT NULL GROUP BY 1
            ) AS counted
            ORDER BY score DESC, account
            """,
            {},
        )


@dataclass(frozen=True, kw_only=True)
class Features(Query):
    """A matrix for models: one row per person, counts of each event, active days, sessions, hours since the last."""

    kind: ClassVar[str] = "features"
    about: ClassVar[str] = "total_events"
    only: tuple[str, ...] = ()

    @property
    def events(self) -> tuple[str, ...]:
        return self.only

    def body(self) -> tuple[str, dict[str, Any]]:
        counts = "".join(
            f", CAST(SUM(CASE WHEN e.event_type = $event_{i} THEN 1 ELSE 0 END) AS BIGINT) AS "
            f"{sql_identifier(f'count_{event}')}"
            for i, event in enumerate(self.only)
        )
        return (
            f"""
            SELECT p.profile_id, COUNT(e.profile_id) AS total_events,
                COUNT(DISTINCT CAST(e.time AS DATE)) AS active_days, COUNT(DISTINCT e.session_id) AS sessions,
                ROUND((EPOCH_US($end) - EPOCH_US(MAX(e.time))) / 3600000000.0, 3) AS hours_since_last{counts}
            FROM people AS p LEFT JOIN (SELECT * FROM events WHERE {IN_WINDOW}) AS e ON e.profile_id = p.profile_id
            GROUP BY p.profile_id ORDER BY p.profile_id
            """,
            {f"event_{i}": event for i, event in enumerate(self.only)},
        )
