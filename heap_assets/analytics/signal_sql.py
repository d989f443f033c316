"""The SQL of a signal: who meets its rule on a day, the rows of :func:`heap_assets.signals.candidates`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from heap_assets.analytics.audience_sql import AudienceTables, Relation, SqlWriter, microseconds, number, type_of
from heap_assets.analytics.dialects import Statement
from heap_assets.profiles import Audience, EventCriterion
from heap_assets.signals import Signal
from heap_assets.values import sql_identifier, sql_literal

_EMPTY = "SELECT CAST(NULL AS VARCHAR) AS profile_id WHERE FALSE"


@dataclass(frozen=True)
class SignalTables:
    """The relations of a signal's day.

    Attributes
    ----------
    today
        Those of audiences as of the end of the day.
    before
        The profiles of the day before under today's ids; None: there are none.
    """

    today: AudienceTables
    before: Relation | None

    @property
    def begin(self) -> datetime:
        """Midnight at the begin of the day."""
        return self.today.as_of - timedelta(days=1)


def signal_sql(signal: Signal, tables: SignalTables) -> Statement:
    """Return the statement of who meets the rule of a signal on a day, cool-downs aside.

    Its columns are profile_id, time, step (of missing and campaign) and user_id.

    Raises SettingsError as :func:`heap_assets.signals.candidates` does.
    """
    writer = SqlWriter(tables.today)
    if signal.sequence is not None:
        begin = writer.parameter(tables.begin)
        rows = (
            "SELECT profile_id, time, CAST(NULL AS VARCHAR) AS step, user_id "
            f"FROM ({writer.chains(signal.sequence, with_users=True)}) AS c WHERE time >= {begin}"
        )
    elif signal.anchored is not None:
        rows = _due_steps(signal, tables, writer)
    else:
        moment = writer.parameter(tables.today.as_of - timedelta(microseconds=1))
        rows = (
            f"SELECT profile_id, CAST({moment} AS TIMESTAMPTZ) AS time, CAST(NULL AS VARCHAR) AS step, "
            f"CAST(NULL AS BIGINT) AS user_id FROM ({_transitions(signal, tables, writer)}) AS t"
        )
    where = f" WHERE profile_id IN ({writer.members(signal.where)})" if signal.where is not None else ""
    return Statement(
        f"SELECT profile_id, time, step, user_id FROM ({rows}) AS f{where} "
        "ORDER BY profile_id, time, step NULLS FIRST, user_id NULLS FIRST",
        writer.parameters,
    )


def _due_steps(signal: Signal, tables: SignalTables, writer: SqlWriter) -> str:
    """Return the steps of attempts that nothing stopped, by times in microseconds, which every engine ranges over."""
    rule = signal.anchored
    assert rule is not None
    relation, meets = writer.rows(rule.anchor, "e")
    starts = (
        f"SELECT e.profile_id, EPOCH_US(e.time) AS us, {number(relation, 'event_id')}, {number(relation, 'user_id')} "
        f"FROM {relation.sql} AS e WHERE {meets}"
    )
    starts = (
        "SELECT profile_id, us, user_id, "
        "LAG(us) OVER (PARTITION BY profile_id ORDER BY us NULLS FIRST, event_id NULLS FIRST) AS us_before, "
        f"CAST(NULL AS BIGINT) AS stop_us, 1 AS is_start FROM ({starts}) AS s"
    )
    both = " UNION ALL ".join([starts, *(_stops(stop, writer) for stop in rule.stops)])
    until = "PARTITION BY profile_id ORDER BY us NULLS FIRST RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW"
    after = "PARTITION BY profile_id ORDER BY us NULLS FIRST RANGE BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING"
    attempts = (
        "SELECT profile_id, us, user_id FROM ("
        f"SELECT *, MAX(stop_us) OVER ({until}) AS stopped_us, MIN(stop_us) OVER ({after}) AS next_us "
        f"FROM ({both}) AS b) AS w WHERE is_start = 1 AND next_us IS NULL AND "
        f"(us_before IS NULL OR us - us_before >= {writer.parameter(microseconds(rule.window_days))} "
        "OR COALESCE(stopped_us > us_before, FALSE))"
    )
    begin, end = writer.parameter(tables.begin), writer.parameter(tables.today.as_of)
    due = " UNION ALL ".join(
        f"SELECT profile_id, us + {writer.parameter(microseconds(step.after_days))} AS due_us, "
        f"{sql_literal(step.name)} AS step, user_id FROM ({attempts}) AS a"
        for step in rule.steps
    )
    return (
        f"SELECT profile_id, MAKE_TIMESTAMPTZ(due_us) AS time, step, user_id FROM ({due}) AS d "
        f"WHERE due_us >= EPOCH_US({begin}) AND due_us < EPOCH_US({end})"
    )


def _stops(stop: EventCriterion, writer: SqlWriter) -> str:
    relation, meets = writer.rows(stop, "e")
    return (
        "SELECT e.profile_id, EPOCH_US(e.time) AS us, CAST(NULL AS BIGINT) AS user_id, "
        f"CAST(NULL AS BIGINT) AS us_before, EPOCH_US(e.time) AS stop_us, 0 AS is_start "
        f"FROM {relation.sql} AS e WHERE {meets}"
    )


def _transitions(signal: Signal, tables: SignalTables, writer: SqlWriter) -> str:
    """Return who meets a definition and did not the day before; nobody without a day before."""
    if tables.before is None:
        return _EMPTY
    past = SqlWriter(replace(tables.today, people=tables.before, as_of=tables.begin), writer.parameters)
    if signal.changed is not None:
        return _changed(signal, tables.before, writer, past)
    becomes = signal.becomes
    assert isinstance(becomes, Audience)
    return f"{writer.members(becomes)} AND p.profile_id NOT IN ({past.members(becomes)})"


def _changed(signal: Signal, before: Relation, writer: SqlWriter, past: SqlWriter) -> str:
    rule, people = signal.changed, writer.tables.people
    assert rule is not None
    if rule.trait not in people.schema or rule.trait not in before.schema:
        return _EMPTY
    column = f"p.{sql_identifier(rule.trait)}"

    def all_of(conditions: tuple[object, ...], own: SqlWriter, relation: Relation) -> str:
        terms = [own.condition(one, column, type_of(relation, rule.trait, one)) for one in conditions]  # type: ignore[arg-type]
        return " AND ".join(["TRUE", *terms])

    was, arrived = all_of(rule.before, past, before), all_of(rule.after, past, before)
    left = (
        f"SELECT p.profile_id FROM {before.sql} AS p GROUP BY p.profile_id "
        f"HAVING MIN(CASE WHEN {was} AND NOT ({arrived}) THEN 1 ELSE 0 END) = 1"
    )
    now = all_of(rule.after, writer, people)
    return f"SELECT p.profile_id FROM {people.sql} AS p WHERE {now} AND p.profile_id IN ({left})"
