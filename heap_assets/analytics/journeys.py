"""Queries about ways to a goal: funnels, paths, attribution, experiments."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar, Literal

from heap_assets.analytics.dialects import Statement
from heap_assets.analytics.query import ALL_EVENTS, IN_ORDER, IN_WINDOW, ROWS_BEFORE, Query, share
from heap_assets.values import sql_identifier

_PASSED = "EPOCH_US(time) - EPOCH_US(start)"


@dataclass(frozen=True, kw_only=True)
class Funnel(Query):
    """How many sessions or people get how far, and how long it takes; `by` a trait.

    Ordered: each step after the one before it, the last at most `span_hours` after the first. Unordered, as the guide
    of Heap has it: of those with the first step, a step counts wherever it happens. Times are means in seconds from the
    first step.
    """

    kind: ClassVar[str] = "funnel"
    about: ClassVar[str] = "reached"
    days: int = 7
    steps: tuple[str, ...]
    per: Literal["session", "person"] = "person"
    ordered: bool = True
    span_hours: float | None = None
    by: str | None = None

    @property
    def events(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.steps))

    @property
    def traits(self) -> tuple[str, ...]:
        return (self.by,) if self.by else ()

    def body(self) -> tuple[str, dict[str, Any]]:
        unit = "profile_id, session_id" if self.per == "session" else "profile_id"
        has_unit = " AND session_id IS NOT NULL" if self.per == "session" else ""
        numbers = range(1, len(self.steps) + 1)
        parameters: dict[str, Any] = {f"step_{i}": step for i, step in zip(numbers, self.steps, strict=True)}
        rows = [f"events WHERE event_type = $step_{i} AND {IN_WINDOW}{has_unit}" for i in numbers]
        if self.ordered:
            within = ""
            if self.span_hours is not None:
                parameters["span"] = int(self.span_hours * 3_600_000_000)
                within = f" AND {_PASSED} <= $span"
            tables, reached = _in_order(unit, rows, within)
        else:
            tables, reached = [], _in_any_order(unit, rows)
        segment = f"CAST(p.{sql_identifier(self.by)} AS VARCHAR)" if self.by else "'everyone'"
        joined = " JOIN people AS p ON p.profile_id = r.profile_id" if self.by else ""
        sums = ", ".join(
            f"CAST(SUM(CASE WHEN r.step = {i} THEN 1 ELSE 0 END) AS BIGINT) AS reached_{i}, "
            f"AVG(CASE WHEN r.step = {i} THEN r.seconds END) AS seconds_{i}"
            for i in numbers
        )
        tables.append(f"sums AS (SELECT {segment} AS segment, {sums} FROM ({reached}) AS r{joined} GROUP BY 1)")
        selects = [
            f"SELECT segment, {i} AS step, $step_{i} AS event, reached_{i} AS reached, "
            f"{share(f'reached_{i}', 'reached_1')} AS percent_of_first, "
            f"{share(f'reached_{i}', f'reached_{max(i - 1, 1)}')} AS percent_of_previous, "
            f"ROUND(seconds_{i}, 3) AS seconds_from_first FROM sums"
            for i in numbers
        ]
        return (
            f"WITH {', '.join(tables)} SELECT * FROM ({' UNION ALL '.join(selects)}) AS f "
            "ORDER BY segment NULLS FIRST, step"
        ), parameters


def _in_order(unit: str, rows: list[str], within: str) -> tuple[list[str], str]:
    """Return tables of who came to each step, with the start of the latest chain that leads there, and their union.

    A step is sought among the rows that ended a chain of the step before it, and its own: few of a funnel's rows are
    sorted as often as it has steps.
    """
    window = f"PARTITION BY {unit} ORDER BY {IN_ORDER}, is_next DESC {ROWS_BEFORE}"
    columns = f"{unit}, time, event_id, event_type"
    tables = [f"chains_1 AS (SELECT {columns}, time AS start FROM {rows[0]})"]
    for i, of_step in enumerate(rows[1:], start=2):
        tables.append(
            f"chains_{i} AS (SELECT {columns}, start FROM ("
            f"SELECT {columns}, is_next, MAX(start) OVER ({window}) AS start FROM ("
            f"SELECT {columns}, start, 0 AS is_next FROM chains_{i - 1} UNION ALL "
            f"SELECT {columns}, CAST(NULL AS TIMESTAMPTZ) AS start, 1 AS is_next FROM {of_step}) AS u{i}) AS s{i} "
            f"WHERE is_next = 1 AND start IS NOT NULL{within})"
        )
    return tables, " UNION ALL ".join(
        f"SELECT {unit}, {i} AS step, MIN({_PASSED}) / 1000000.0 AS seconds FROM chains_{i} GROUP BY {unit}"
        for i in range(1, len(rows) + 1)
    )


def _in_any_order(unit: str, rows: list[str]) -> str:
    """Return who came to each step, of those who came to the first."""
    steps = " UNION ALL ".join(
        f"SELECT {unit}, {i} AS step, MIN(EPOCH_US(time)) AS at FROM {of_step} GROUP BY {unit}"
        for i, of_step in enumerate(rows, start=1)
    )
    first = f"MIN(CASE WHEN step = 1 THEN at END) OVER (PARTITION BY {unit})"
    return (
        f"SELECT {unit}, step, (at - first_at) / 1000000.0 AS seconds "
        f"FROM (SELECT *, {first} AS first_at FROM ({steps}) AS u) AS s WHERE first_at IS NOT NULL"
    )


_SHORT = 32
"""Events of a path up to which each is a column."""


@dataclass(frozen=True, kw_only=True)
class Paths(Query):
    """The way to a goal: the events before each one since the last goal, of a session or a person; the most frequent.

    `percent` is of all paths, those below the `top` too; of a path its last `longest` events are shown.
    """

    kind: ClassVar[str] = "paths"
    about: ClassVar[str] = "frequency"
    goal: str
    per: Literal["session", "person"] = "session"
    top: int = 20
    longest: int = 10
    only: tuple[str, ...] = ()

    @property
    def events(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.only, self.goal))) if self.only else ALL_EVENTS

    def body(self) -> tuple[str, dict[str, Any]]:
        unit = "profile_id, session_id" if self.per == "session" else "profile_id"
        rows = f"events WHERE {IN_WINDOW}{' AND session_id IS NOT NULL' if self.per == 'session' else ''}"
        window = f"PARTITION BY {unit} ORDER BY {IN_ORDER}"
        paths = self._short(rows, window) if self.longest <= _SHORT else self._long(rows, window, unit)
        return (
            f"""
            SELECT path, frequency, {share("frequency", "paths")} AS percent
            FROM (
                SELECT path, COUNT(*) AS frequency, SUM(COUNT(*)) OVER () AS paths,
                    ROW_NUMBER() OVER (ORDER BY COUNT(*) DESC, path NULLS FIRST) AS place
                FROM ({paths}) AS ways
                GROUP BY path
            ) AS counted
            WHERE place <= $top ORDER BY place
            """,
            {"goal": self.goal, "top": self.top},
        )

    def _short(self, rows: str, window: str) -> str:
        """Return the paths by the events before each goal, a column each: twice as fast as to sort and join them."""
        earlier = range(1, self.longest)
        before = "".join(f", LAG(event_type, {i}) OVER ({window}) AS before_{i}" for i in earlier)
        ends = "".join(f"WHEN before_{i} IS NULL OR before_{i} = $goal THEN {i - 1} " for i in earlier)
        length = f"CASE {ends}ELSE {self.longest - 1} END" if ends else "0"
        parts = "".join(f"CASE WHEN length >= {i} THEN before_{i} || ' > ' ELSE '' END, " for i in reversed(earlier))
        return f"""
            SELECT CONCAT({parts}event_type) AS path
            FROM (
                SELECT *, {length} AS length FROM (SELECT event_type{before} FROM {rows}) AS lagged
                WHERE event_type = $goal
            ) AS goals
        """

    def _long(self, rows: str, window: str, unit: str) -> str:
        """Return the paths by joining all events up to each goal."""
        is_goal = "CASE WHEN event_type = $goal THEN 1 ELSE 0 END"
        return f"""
            SELECT {unit}, goals_left, STRING_AGG(event_type, ' > ' ORDER BY place NULLS FIRST) AS path
            FROM (
                SELECT {unit}, event_type, ROW_NUMBER() OVER ({window}) AS place,
                    SUM({is_goal}) OVER ({window} ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS goals_left,
                    MAX({is_goal}) OVER ({window} ROWS BETWEEN CURRENT ROW AND {self.longest - 1} FOLLOWING) AS is_shown
                FROM {rows}
            ) AS numbered
            WHERE is_shown = 1 GROUP BY {unit}, goals_left
        """


@dataclass(frozen=True, kw_only=True)
class Attribution(Query):
    """Conversions by what led to them: all credit to the first touch, to the last, even shares, or 40-20-40.

    A touch is an event `touch` whose property `channel` is not empty, at most `window_days` before the conversion.
    `outcome`: a property of the conversion that results are told apart by, such as the stage of an opportunity.
    `account`: a trait; touches of everybody with the same value count, those of who has none only for themselves.
    """

    kind: ClassVar[str] = "attribution"
    about: ClassVar[str] = "linear"
    conversion: str
    touch: str = "pageviews"
    channel: str = "utm_source"
    window_days: int = 30
    value: str | None = None
    outcome: str | None = None
    account: str | None = None

    @property
    def events(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.conversion, self.touch)))

    @property
    def properties(self) -> dict[str, str]:
        of_conversion = {name: self.conversion for name in (self.value, self.outcome) if name}
        return {self.channel: self.touch} | of_conversion

    @property
    def traits(self) -> tuple[str, ...]:
        return (self.account,) if self.account else ()

    def statement(self, end: datetime) -> Statement:
        """Return the SELECT; touches are read from before the window of the conversions."""
        statement = super().statement(end)
        first_touch = end - timedelta(days=self.days + self.window_days)
        return Statement(statement.sql, {**statement.parameters, "first_touch": first_touch})

    def body(self) -> tuple[str, dict[str, Any]]:
        value = f"TRY_CAST({sql_identifier(self.value)} AS DOUBLE)" if self.value else "1.0"
        outcome = f"CAST({sql_identifier(self.outcome)} AS VARCHAR)" if self.outcome else "NULL"
        member, joined = "e.profile_id", ""
        if self.account:
            member = f"COALESCE('a ' || CAST(p.{sql_identifier(self.account)} AS VARCHAR), 'p ' || e.profile_id)"
            joined = " LEFT JOIN people AS p ON p.profile_id = e.profile_id"
        credits = {
            "first_touch": "CASE WHEN place = 1 THEN 1.0 ELSE 0.0 END",
            "last_touch": "CASE WHEN place = touches THEN 1.0 ELSE 0.0 END",
            "linear": "1.0 / touches",
            "position": "CASE WHEN touches = 1 THEN 1.0 WHEN touches = 2 THEN 0.5 "
            "WHEN place = 1 OR place = touches THEN 0.4 ELSE 0.2 / (touches - 2) END",
        }
        sums = ", ".join(f"ROUND(SUM(value * ({credit})), 4) AS {name}" for name, credit in credits.items())
        by = "outcome, channel" if self.outcome else "channel"
        return (
            f"""
            WITH conversions AS (
                SELECT member, time, value, outcome,
                    ROW_NUMBER() OVER (ORDER BY member NULLS FIRST, {IN_ORDER}, value, outcome) AS conversion_id
                FROM (
                    SELECT {member} AS member, e.time, e.event_id, e.event_type, COALESCE({value}, 0.0) AS value,
                        {outcome} AS outcome
                    FROM events AS e{joined}
                    WHERE e.event_type = $conversion AND e.time >= $begin AND e.time < $end
                ) AS converted
            ), touched AS (
                SELECT {member} AS member, e.event_id, e.time,
                    CAST(e.{sql_identifier(self.channel)} AS VARCHAR) AS channel
                FROM events AS e{joined}
                WHERE e.event_type = $touch AND e.{sql_identifier(self.channel)} IS NOT NULL
                    AND e.time >= $first_touch AND e.time < $end
            )
            SELECT {by}, COUNT(DISTINCT conversion_id) AS conversions, {sums}
            FROM (
                SELECT COALESCE(t.channel, '(none)') AS channel, c.conversion_id, c.value, c.outcome,
                    ROW_NUMBER() OVER (
                        PARTITION BY c.conversion_id
                        ORDER BY t.time NULLS FIRST, t.event_id NULLS FIRST, t.channel NULLS FIRST
                    ) AS place,
                    COUNT(*) OVER (PARTITION BY c.conversion_id) AS touches
                FROM conversions AS c LEFT JOIN touched AS t ON t.member = c.member AND t.time <= c.time
                    AND EPOCH_US(t.time) >= EPOCH_US(c.time) - $touch_window
            ) AS credited
            GROUP BY {by} ORDER BY {"outcome NULLS FIRST, " if self.outcome else ""}linear DESC, channel
            """,
            {
                "conversion": self.conversion,
                "touch": self.touch,
                "touch_window": self.window_days * 86_400_000_000,
            },
        )


@dataclass(frozen=True, kw_only=True)
class Experiment(Query):
    """Conversion by variant, with the 95 % interval of Wilson: of people exposed, those who converted after it.

    The variant is the one of the first exposure in the window.
    """

    kind: ClassVar[str] = "experiment"
    about: ClassVar[str] = "percent"
    exposure: str
    variant: str
    conversion: str

    @property
    def events(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.exposure, self.conversion)))

    @property
    def properties(self) -> dict[str, str]:
        return {self.variant: self.exposure}

    def body(self) -> tuple[str, dict[str, Any]]:
        z = "1.959964"
        rate, people = "1.0 * converted / people", "people"
        spread = f"{z} * SQRT(({rate}) * (1 - {rate}) / {people} + {z} * {z} / (4.0 * {people} * {people}))"
        centre, scale = f"{rate} + {z} * {z} / (2.0 * {people})", f"(1 + {z} * {z} / {people})"
        return (
            f"""
            SELECT variant, people, converted, ROUND(100.0 * converted / people, 2) AS percent,
                ROUND(100.0 * ({centre} - {spread}) / {scale}, 2) AS percent_low,
                ROUND(100.0 * ({centre} + {spread}) / {scale}, 2) AS percent_high
            FROM (
                SELECT x.variant, COUNT(*) AS people,
                    CAST(SUM(CASE WHEN c.last_time >= x.time THEN 1 ELSE 0 END) AS BIGINT) AS converted
                FROM (
                    SELECT profile_id, time, variant FROM (
                        SELECT profile_id, time, CAST({sql_identifier(self.variant)} AS VARCHAR) AS variant,
                            ROW_NUMBER() OVER (PARTITION BY profile_id ORDER BY {IN_ORDER}) AS place
                        FROM events WHERE event_type = $exposure AND {sql_identifier(self.variant)} IS NOT NULL
                            AND {IN_WINDOW}
                    ) AS exposures WHERE place = 1
                ) AS x
                LEFT JOIN (
                    SELECT profile_id, MAX(time) AS last_time FROM events
                    WHERE event_type = $conversion AND {IN_WINDOW} GROUP BY profile_id
                ) AS c ON c.profile_id = x.profile_id
                GROUP BY x.variant
            ) AS counted
            ORDER BY variant
            """,
            {"exposure": self.exposure, "conversion": self.conversion},
        )
