"""Events of people who have consented: a sync of events asks who they are today, and what they have stated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from heap_assets import clock
from heap_assets.activation.engine.addressing import Addressed
from heap_assets.errors import MissingInputError, SettingsError
from heap_assets.identity import SourceTable, assign
from heap_assets.tables import GRAPH, PROFILES
from heap_assets.values import ALWAYS, PRIVATE, read_times

if TYPE_CHECKING:
    from heap_assets.activation.connectors.base import Connector, Deployment, Rows

PERSON: Final = f"{PRIVATE}profile_id"
"""Column that :func:`belonging` adds."""
_CONSENTS, _SINCE = f"{PRIVATE}consents", f"{PRIVATE}since"


def newest_profiles_day(deployment: Deployment) -> date | None:
    """Return the newest day that has both a graph and the profiles made of it."""
    complete = set(deployment.lake.partitions(GRAPH)) & set(deployment.lake.partitions(PROFILES))
    days = [day for day in complete if day <= clock.today().isoformat()]
    return date.fromisoformat(max(days)) if days else None


def people_day(deployment: Deployment) -> date:
    """Return the day by whose graph and profiles events go to people.

    Raises MissingInputError before there is one.
    """
    day = newest_profiles_day(deployment)
    if day is None:
        raise MissingInputError(f"{PROFILES} has no partition yet: events go to people")
    return day


def belonging(connector: Connector[Any], source: SourceTable) -> Callable[[pl.LazyFrame], pl.LazyFrame]:
    """Return what adds :data:`PERSON` to the rows of a table: the profile that they belong to today.

    Raises SettingsError if the table maps no identifiers.
    """
    deployment = connector.deployment
    if not source.mappings:
        section = deployment.settings.section_of_table(connector.settings.source)
        raise SettingsError(f"sync.{connector.name}: {section} maps no identifiers, so nobody is meant by it")
    graph = deployment.lake.scan(GRAPH, str(people_day(deployment)))
    return lambda rows: assign(rows, source, graph, deployment.rules, under=PERSON)


def column_of_events(connector: Connector[Any]) -> str | None:
    """Return the column that :func:`with_consent` adds to the rows of a sync; None if it asks for no consent."""
    sync = connector.settings
    return f"{PRIVATE}{sync.consent_column}" if sync.purpose and sync.is_of_events else None


def covers(since: pl.Expr, happened: pl.Expr) -> pl.Expr:
    """Whether consent since a time covers what happened then; of what has no time only one without a beginning does."""
    return ((since <= happened).fill_null(value=False) | (since == ALWAYS)).fill_null(value=False)


def with_consent(connector: Connector[Any], rows: Rows) -> Rows:
    """Add whether each event may be sent: its person consents by the newest profiles, and did when it happened.

    `rows`: with `profile_id` and `time`. An event of nobody may not be sent. Rows of a sync that asks for no consent
    are returned as they are.

    Raises MissingInputError if the newest profiles were made before the settings named the purpose.
    """
    column, sync = column_of_events(connector), connector.settings
    if column is None:
        return rows
    day = people_day(connector.deployment)
    profiles = connector.deployment.lake.scan(PROFILES, str(day))
    consents, since = str(sync.consent_column), f"{sync.consent_column}__since"
    if missing := {consents, since} - set(profiles.collect_schema()):
        raise MissingInputError(f"{PROFILES} {day} has no {min(missing)}: materialize it again")
    people = profiles.select("profile_id", pl.col(consents).alias(_CONSENTS), pl.col(since).alias(_SINCE))
    frame = rows.rows if isinstance(rows, Addressed) else rows
    joined = frame.join(people, on="profile_id", how="left", maintain_order="left")
    may = pl.col(_CONSENTS).fill_null(value=False)
    if sync.before_consent == "leave":
        may &= covers(pl.col(_SINCE), read_times(pl.col("time")))
    joined = joined.with_columns(may.alias(column)).drop(_CONSENTS, _SINCE)
    return replace(rows, rows=joined) if isinstance(rows, Addressed) else joined


def columns_asked(connector: Connector[Any]) -> Iterator[str]:
    """Yield the columns of profiles that consent is told by."""
    sync, region = connector.settings, connector.deployment.settings.privacy.consent.region
    yield from filter(None, [sync.consent_column, region])
