"""The `heap_resolved` views: published event rows with today's user and profile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

DAY_COLUMN = "partition_day"
"""First column of every table published by day: the partition of the lake that a row comes from."""

RESOLVED_COLUMNS = frozenset({"resolved_user_id", "profile_id"})
"""Columns that a `heap_resolved` view puts beside those of its table."""


@dataclass(frozen=True)
class ResolvedOn:
    """The published days of `heap_user_migrations` and `identity_graph` that the views resolve with."""

    migrations: date
    graph: date


RESOLVED_VIEW = """\
SELECT COALESCE(m.resolved_to, {user}) AS resolved_user_id, g.profile_id, e.*
FROM {events} AS e
LEFT JOIN (
  SELECT from_user_id, resolved_to FROM {migrations} WHERE {day} = {migrations_day}
) AS m ON m.from_user_id = {user}
LEFT JOIN (
  SELECT identifier, profile_id FROM {graph}
  WHERE {day} = {graph_day} AND identifier_type = 'heap_user_id'
) AS g ON g.identifier = CAST(COALESCE(m.resolved_to, {user}) AS {text})
"""
"""Event rows with today's user and profile: old partitions keep `user_id` as exported (design: heap tables).

Its own columns come first: a column that the table gains is then the view's last one, which PostgreSQL can add.
"""


def resolved_view(
    events: str,
    migrations: str,
    graph: str,
    on: ResolvedOn,
    *,
    user: str,
    text: str,
    written_day: Callable[[date], str] = "DATE '{}'".format,
) -> str:
    """Write the query of a `heap_resolved` view.

    Parameters
    ----------
    events, migrations, graph
        Quoted table names.
    user
        The event's user_id as an integer, from `e`.
    text
        The dialect's text type.
    written_day
        Writes a day.
    """
    return RESOLVED_VIEW.format(
        events=events, migrations=migrations, graph=graph, user=user, text=text, day=DAY_COLUMN,
        migrations_day=written_day(on.migrations), graph_day=written_day(on.graph),
    )  # fmt: skip
