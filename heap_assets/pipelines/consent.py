"""Consent of a day: statements of the sources, put on the profiles of the people who made them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import date
from typing import Any

import polars as pl

from heap_assets.activation import (
    Addressed,
    Connector,
    Mode,
    changelog_since,
    connector_of,
    covers,
    hashed_keys,
    newest_profiles_day,
    salt,
)
from heap_assets.config import ConsentSource
from heap_assets.errors import SettingsError
from heap_assets.identity import assign
from heap_assets.privacy import (
    consent_column,
    consent_since_column,
    long_statements,
    newest_statements,
    wide_statements,
    with_consent,
)
from heap_assets.project import Project
from heap_assets.quality import CheckResult, nobody_without_consent
from heap_assets.tables import GRAPH, PROFILES, USERS, is_inbox_table, warehouse_asset
from heap_assets.values import read_times

_COLUMNS = 2
"""Raised when other columns are made of the same statements."""


def consent_version(project: Project) -> list[object]:
    """Return what consent is computed from, for versions of profiles; empty without purposes."""
    consent = project.settings.privacy.consent
    return [consent.model_dump(mode="json"), _COLUMNS] if consent.purposes else []


def with_consent_of_day(
    project: Project,
    profiles: pl.LazyFrame,
    day: date,
    graph: pl.LazyFrame | None = None,
    rows: Mapping[str, pl.LazyFrame] | None = None,
) -> pl.LazyFrame:
    """Add a column `consent_<purpose>` to profiles for each purpose of the settings.

    Parameters
    ----------
    graph
        Of the people of `profiles`; that of the day unless given.
    rows
        Asset of a table to its rows that name these people, in place of those that are stored.

    Raises SettingsError, naming the key, if a table or a column is not there.
    """
    consent = project.settings.privacy.consent
    if not consent.purposes:
        return profiles
    if consent.region is not None and consent.region not in profiles.collect_schema():
        raise SettingsError(f"privacy.consent.region is {consent.region!r}, which is no trait of profiles")
    return with_consent(
        profiles,
        statements_of_day(project, day, graph, rows),
        consent.purposes,
        absent=consent.absent == "yes",
        region=consent.region,
        by_region={name: meaning == "yes" for name, meaning in consent.absent_by_region.items()},
    )


def statements_of_day(
    project: Project, day: date, graph: pl.LazyFrame | None = None, rows: Mapping[str, pl.LazyFrame] | None = None
) -> pl.LazyFrame:
    """Return the statement that holds for each person and purpose at the end of a day.

    Columns: profile_id, purpose, granted, at (UTC, null if unknown), source, and `since` as
    :func:`heap_assets.privacy.newest_statements` gives it. Parameters as for
    :func:`with_consent_of_day`.
    """
    statements = [
        _statements(project, source, day, f"privacy.consent.sources[{number}]", graph, rows or {})
        for number, source in enumerate(project.settings.privacy.consent.sources)
    ]
    return newest_statements([one for one in statements if one is not None])


def consent_result(project: Project, name: str, day: date, run_id: str, tables: Collection[str] = ("",)) -> CheckResult:
    """Return whether a run of a sync with a purpose sent values of those alone who consented to it.

    The changelog says what was sent. Who consented is asked of the statements themselves: the column of profiles that
    the sync went by may be what is wrong. Of events those of the newest profiles count, and unless the settings say
    otherwise an event from before the consent is none of it.

    `tables`: those of the event tables that were sent, of a sync that forwards them.
    """
    connector, sync = connector_of(project, name), project.settings.sync[name]
    of_events = sync.is_of_events
    people_day = (newest_profiles_day(project) or day) if of_events else day
    purpose, trait = str(sync.purpose), project.settings.privacy.consent.region
    parts = [_sent_and_named(project, connector, day, run_id, table) for table in tables]
    sent, named = pl.concat([part for part, _ in parts], how="diagonal_relaxed"), pl.concat([n for _, n in parts])
    profiles = project.lake.scan(PROFILES, str(people_day)).select("profile_id", *([trait] if trait else []))
    stated = statements_of_day(project, people_day).filter(pl.col("purpose") == purpose).select("profile_id", "at")
    consents = pl.col(consent_column(purpose))
    if of_events and sync.before_consent == "leave":
        consents &= covers(pl.col(consent_since_column(purpose)), read_times(pl.col("time")))
    people = (
        with_consent_of_day(project, profiles, people_day)
        .join(named.lazy(), on="profile_id")
        .join(stated, on="profile_id", how="left")
        .select("key_hash", consents=consents, at="at")
    )
    return nobody_without_consent(sent, people.collect())


def _sent_and_named(
    project: Project, connector: Connector[Any], day: date, run_id: str, table: str
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the changelog of a run, and `profile_id`, `key_hash`, `time` (of events) of the rows it names."""
    store = project.lake.store
    sent = changelog_since(store, connector.ledger_folder(table), run_id)
    sent = sent.with_columns(own=pl.col("own") & (pl.col("day") == day))
    rows = connector.rows(day, table)
    addressed = rows.rows if isinstance(rows, Addressed) else rows
    is_event = connector.mode is Mode.INSERT
    time = pl.col("time") if is_event and "time" in addressed.collect_schema() else pl.lit(None, pl.String)
    key = pl.col("event_key" if is_event else "key").cast(pl.String)
    keys = addressed.select("profile_id", key=key, time=time).drop_nulls(["profile_id", "key"]).collect()
    keys = keys.with_columns(key_hash=hashed_keys(keys["key"], salt(store, connector.spec(table).salt, keep=False)))
    return sent, keys.filter(pl.col("key_hash").is_in(sent["key_hash"].implode())).drop("key")


def consent_asset(source: ConsentSource) -> str:
    """Return the lake asset that a source of consent is."""
    if source.table == "users":
        return USERS
    return source.table if is_inbox_table(source.table) else warehouse_asset(source.table)


def _statements(
    project: Project,
    source: ConsentSource,
    day: date,
    where: str,
    graph: pl.LazyFrame | None,
    of_people: Mapping[str, pl.LazyFrame],
) -> pl.LazyFrame | None:
    """Return the statements of a source as they stood at the end of a day; None before it was first read."""
    asset = consent_asset(source)
    table = project.snapshot_sources.get(asset)
    if table is None or not table.mappings:
        raise SettingsError(f"{where}.table is {source.table!r}, which is no table that names people by identifiers")
    rows = of_people.get(asset)
    if rows is None:
        newest = project.lake.newest_partition(asset, day)
        if newest is None:
            return None
        rows = project.lake.scan(asset, str(newest))
    columns = rows.collect_schema()
    needed = [*source.columns.values(), *filter(None, (source.purpose, source.state, source.at))]
    if missing := [name for name in needed if name not in columns]:
        raise SettingsError(f"{where}: {asset} has no column {missing[0]!r}. Columns: {', '.join(columns)}")
    if "profile_id" in columns:
        rows = rows.drop("profile_id")
    people = project.lake.scan(GRAPH, str(day)) if graph is None else graph
    assigned = assign(rows, table, people, project.rules)
    if source.columns:
        return wide_statements(assigned, source.table, source.columns, source.at, source.granted)
    return long_statements(assigned, source.table, str(source.purpose), str(source.state), source.at, source.granted)
