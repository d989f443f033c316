"""Consent of a day: statements of the sources, put on the profiles of the people who made them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

import polars as pl

from heap_assets.config import ConsentSource
from heap_assets.errors import SettingsError
from heap_assets.identity import assign
from heap_assets.privacy import long_statements, newest_statements, wide_statements, with_consent
from heap_assets.project import Project
from heap_assets.tables import GRAPH, USERS, is_inbox_table, warehouse_asset


def consent_version(project: Project) -> list[object]:
    """Return what consent is computed from, for versions of profiles; empty without purposes."""
    consent = project.settings.privacy.consent
    return [consent.model_dump(mode="json")] if consent.purposes else []


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
    statements = [
        _statements(project, source, day, f"privacy.consent.sources[{number}]", graph, rows or {})
        for number, source in enumerate(consent.sources)
    ]
    return with_consent(
        profiles,
        newest_statements([one for one in statements if one is not None]),
        consent.purposes,
        absent=consent.absent == "yes",
        region=consent.region,
        by_region={name: meaning == "yes" for name, meaning in consent.absent_by_region.items()},
    )


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
