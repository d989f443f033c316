"""The SQL of an audience: the same members as :func:`heap_assets.profiles.members`, by an engine that reads tables.

Numbers are compared as doubles: values that differ beyond 15 digits are equal here and are not there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from heap_assets.analytics.dialects import Statement
from heap_assets.errors import SettingsError
from heap_assets.profiles import Audience, Condition, EventCriterion, EventSequence, event_table
from heap_assets.values import apart, sql_identifier, sql_literal

_SIGNS = {"eq": "=", "ne": "<>", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_NUMBER = r"^[-+]?(0?|[1-9][0-9]*)([.][0-9]*)?([eE][-+]?[0-9]+)?$"


@dataclass(frozen=True)
class Relation:
    """What a statement reads: its text in SQL (a table's name, or a SELECT in parentheses), and types by column."""

    sql: str
    schema: pl.Schema


@dataclass(frozen=True)
class AudienceTables:
    """The relations of a definition.

    Attributes
    ----------
    people
        profile_id and traits, one row per profile.
    events
        By event table name: profile_id, time, event_id and the properties.
    as_of
        What windows count back from.
    accounts
        Relation, key column, and the trait of people that holds it; None: there are none.
    audiences
        Definitions of audiences that others name; of any other the people have a Boolean column.
    """

    people: Relation
    events: Mapping[str, Relation]
    as_of: datetime
    accounts: tuple[Relation, str, str] | None = None
    audiences: Mapping[str, Audience] = field(default_factory=dict)


def audience_sql(audience: Audience, tables: AudienceTables) -> Statement:
    """Return the statement of who is in an audience: profile_id, sorted.

    Raises SettingsError as :func:`heap_assets.profiles.members` does.
    """
    writer = SqlWriter(tables)
    return Statement(f"{writer.members(audience)} ORDER BY p.profile_id", writer.parameters)


@dataclass
class SqlWriter:
    """Writes the parts of one statement, whose parameters it collects."""

    tables: AudienceTables
    parameters: dict[str, Any] = field(default_factory=dict)

    def members(self, audience: Audience) -> str:
        """Return the SELECT of profile_id of the members, each once."""
        where, joined = self.definition(audience), ""
        if any(part.account_properties for part in self._parts(audience)):
            if self.tables.accounts is None:
                raise SettingsError(f"{audience.name}: there are no accounts; name their table under `accounts:`.")
            relation, key, member_of = self.tables.accounts
            own, other = f"p.{sql_identifier(member_of)}", f"a.{sql_identifier(key)}"
            joined = f" LEFT JOIN {relation.sql} AS a ON CAST({other} AS VARCHAR) = CAST({own} AS VARCHAR)"
        return f"SELECT DISTINCT p.profile_id FROM {self.tables.people.sql} AS p{joined} WHERE {where}"

    def _parts(self, audience: Audience) -> Iterator[Audience]:
        for part in audience.parts:
            yield part
            for name in part.audiences:
                if name in self.tables.audiences:
                    yield from self._parts(self.tables.audiences[name])

    def parameter(self, value: Any) -> str:
        name = next(
            (old for old, other in self.parameters.items() if _same(other, value)), f"p{len(self.parameters) + 1}"
        )
        self.parameters[name] = value
        return f"${name}"

    def definition(self, audience: Audience) -> str:
        people, accounts = self.tables.people, self.tables.accounts
        terms = [
            self.condition(c, f"p.{sql_identifier(n)}", type_of(people, n, c)) for n, c in audience.user_properties
        ]
        for name, condition in audience.account_properties:
            if accounts is not None:
                dtype = type_of(accounts[0], name, condition)
                terms.append(self.condition(condition, f"a.{sql_identifier(name)}", dtype))
        for name in audience.audiences:
            inner = self.tables.audiences.get(name)
            terms.append(f"p.{sql_identifier(name)}" if inner is None else f"({self.definition(inner)})")
        terms += [self.event(criterion, negated=False) for criterion in audience.events]
        terms += [self.event(criterion, negated=True) for criterion in audience.exclude_events]
        terms += [self.sequence(sequence) for sequence in audience.sequences]
        terms += [f"({self.definition(group)})" for group in audience.all_of]
        if audience.any_of:
            terms.append(f"({' OR '.join(f'({self.definition(group)})' for group in audience.any_of)})")
        terms += [f"NOT ({self.definition(group)})" for group in audience.none_of]
        return " AND ".join(terms)

    def event(self, criterion: EventCriterion, *, negated: bool) -> str:
        """Return who did an event as often as asked; who never did it has no group to count."""
        relation, where = self.rows(criterion, "e")
        counts = " AND ".join(f"COUNT(*) {_SIGNS[c.operator]} {self.parameter(c.operand)}" for c in criterion.count)
        if all(_COMPARE[c.operator](0, c.operand) for c in criterion.count):
            counts, negated = f"NOT ({counts})", not negated
        people = f"SELECT e.profile_id FROM {relation.sql} AS e WHERE {where} GROUP BY e.profile_id HAVING {counts}"
        return f"p.profile_id {'NOT IN' if negated else 'IN'} ({people})"

    def sequence(self, sequence: EventSequence) -> str:
        return f"p.profile_id IN (SELECT c.profile_id FROM ({self.chains(sequence)}) AS c)"

    def chains(self, sequence: EventSequence, *, with_users: bool = False) -> str:
        """Return the rows that end a chain of steps, see :mod:`heap_assets.profiles.sequences`."""
        count = len(sequence.steps)
        selects: dict[str, tuple[Relation, dict[int, str]]] = {}
        for position, step in enumerate(sequence.steps):
            relation, where = self.rows(step, "e")
            table = event_table(step.type, self.tables.events) or ""
            selects.setdefault(table, (relation, {}))[1][position] = where
        flags = [f"step_{position}" for position in range(count)]
        unions = [
            f"SELECT e.profile_id, e.time, {number(relation, 'event_id')}, {sql_literal(table)} AS source, "
            + (f"{number(relation, 'user_id')}, " if with_users else "")
            + ", ".join(f"{where.get(position, 'FALSE')} AS {flag}" for position, flag in enumerate(flags))
            + f" FROM {relation.sql} AS e"
            for table, (relation, where) in sorted(selects.items())
        ]
        rows = (
            f"SELECT *, CASE WHEN step_0 THEN time END AS start_0 FROM ({' UNION ALL '.join(unions)}) AS u "
            f"WHERE {' OR '.join(flags)}"
        )
        return chain_rows(rows, count, self.parameter(microseconds(sequence.span_days)) if sequence.span_days else "")

    def rows(self, criterion: EventCriterion, alias: str) -> tuple[Relation, str]:
        """Return the table of an event, and whether a row of it meets properties and window."""
        table = event_table(criterion.type, self.tables.events)
        if table is None:
            tables = ", ".join(sorted(self.tables.events)) or "none"
            raise SettingsError(
                f"{criterion.where}.type is {criterion.type!r}, which is no event table. Tables: {tables}."
            )
        relation, as_of = self.tables.events[table], self.tables.as_of
        terms = []
        for name, condition in criterion.properties:
            stored = apart(name, ("profile_id",))
            dtype = type_of(relation, stored, condition)
            terms.append(self.condition(condition, f"{alias}.{sql_identifier(stored)}", dtype))
        terms.append(f"{alias}.time < {self.parameter(as_of)}")
        if criterion.within_days is not None:
            terms.append(f"{alias}.time >= {self.parameter(as_of - timedelta(days=criterion.within_days))}")
        return relation, " AND ".join(terms)

    def condition(self, condition: Condition, value: str, dtype: pl.DataType) -> str:
        """Return a condition as an expression that is never null."""
        name, operand = condition.operator, condition.operand
        operands = operand if isinstance(operand, tuple) else (operand,)
        if name == "exists":
            return f"{value} IS {'NOT NULL' if operand else 'NULL'}"
        if name in ("in", "not_in"):
            sign, word = ("=", " OR ") if name == "in" else ("<>", " AND ")
            return f"({word.join(self._compared(sign, value, dtype, each) for each in operands)})"
        if name == "between":
            least, largest = operands
            at_least = self._compared(">=", value, dtype, least)
            return f"({at_least} AND {self._compared('<=', value, dtype, largest)})"
        if name in _SIGNS:
            return self._compared(_SIGNS[name], value, dtype, operand)
        return f"COALESCE({self._other(name, value, dtype, operands)}, FALSE)"

    def _other(self, name: str, value: str, dtype: pl.DataType, operands: Sequence[Any]) -> str:
        if name in ("within_days", "older_than_days"):
            moment = _moment(value, dtype)
            begin = self.parameter(self.tables.as_of - timedelta(days=float(operands[0])))
            if name == "older_than_days":
                return f"{moment} < {begin}"
            return f"{moment} >= {begin} AND {moment} < {self.parameter(self.tables.as_of)}"
        if isinstance(dtype, pl.List):
            word = " AND " if name == "contains_all" else " OR "
            return f"({word.join(f'LIST_CONTAINS({value}, {self.parameter(each)})' for each in operands)})"
        operand = self.parameter(str(operands[0]))
        if name == "contains":
            return f"STRPOS({value}, {operand}) > 0"
        if name == "matches":
            return f"REGEXP_MATCHES({value}, {operand})"
        return f"{name.upper()}({value}, {operand})"

    def _compared(self, sign: str, value: str, dtype: pl.DataType, operand: Any) -> str:
        if isinstance(operand, bool):
            if dtype == pl.String:
                value = f"(CASE LOWER({value}) WHEN 'true' THEN TRUE WHEN 'false' THEN FALSE END)"
        elif isinstance(operand, int | float):
            if dtype == pl.String:
                text = f"TRIM({value})"
                value = f"TRY_CAST(CASE WHEN REGEXP_MATCHES({text}, {sql_literal(_NUMBER)}) THEN {text} END AS DOUBLE)"
            elif dtype.is_float():
                value = f"(CASE WHEN NOT ISNAN({value}) THEN {value} END)"
        elif dtype == pl.Date or isinstance(dtype, pl.Datetime):
            moment = datetime.fromisoformat(str(operand))
            operand, value = moment if moment.tzinfo else moment.replace(tzinfo=UTC), _moment(value, dtype)
        else:
            operand = str(operand)
        return f"COALESCE({value} {sign} {self.parameter(operand)}, FALSE)"


def chain_rows(rows: str, count: int, span: str, *, partition: str = "profile_id") -> str:
    """Return the rows of a SELECT that end a chain of `count` steps.

    `rows`: has step_0, step_1, … (Boolean), start_0 (the time where step_0 holds), time, source, event_id.
    `span`: the longest chain in microseconds, as SQL; any if empty.
    """
    window = (
        f"PARTITION BY {partition} ORDER BY time NULLS FIRST, source NULLS FIRST, event_id NULLS FIRST "
        "ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING"
    )
    for position in range(1, count):
        start = f"CASE WHEN step_{position} THEN MAX(start_{position - 1}) OVER ({window}) END"
        rows = f"SELECT *, {start} AS start_{position} FROM ({rows}) AS s{position}"
    last = f"start_{count - 1}"
    short = f" AND EPOCH_US(time) - EPOCH_US({last}) <= {span}" if span else ""
    return f"SELECT * FROM ({rows}) AS s WHERE {last} IS NOT NULL{short}"


_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "eq": lambda a, b: bool(a == b),
    "ne": lambda a, b: bool(a != b),
    "gt": lambda a, b: bool(a > b),
    "gte": lambda a, b: bool(a >= b),
    "lt": lambda a, b: bool(a < b),
    "lte": lambda a, b: bool(a <= b),
}


def _same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and bool(a == b)


def number(relation: Relation, column: str) -> str:
    """Return a column of whole numbers of the rows `e`, null where the relation does not have it."""
    return f"CAST({f'e.{column}' if column in relation.schema else 'NULL'} AS BIGINT) AS {column}"


def microseconds(days: float) -> int:
    """Return how long `days` × 24 hours are."""
    return timedelta(days=days) // timedelta(microseconds=1)


def _moment(value: str, dtype: pl.DataType) -> str:
    return f"TRY_CAST({value} AS TIMESTAMPTZ)" if dtype == pl.String else f"CAST({value} AS TIMESTAMPTZ)"


def type_of(relation: Relation, column: str, condition: Condition) -> pl.DataType:
    """Return a column's type; SettingsError if there is none."""
    if column not in relation.schema:
        columns = ", ".join(relation.schema)
        raise SettingsError(f"{condition.where}: there is no column {column!r}. Columns: {columns}.")
    return relation.schema[column]
