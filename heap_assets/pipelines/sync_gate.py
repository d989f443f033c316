"""May anything be sent? Asked before every delivery, of stored results alone: the gate is part of the sync."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import date

from heap_assets.activation import Requirement, connector_of
from heap_assets.pipelines.readiness import unbuilt_days
from heap_assets.pipelines.suites import required_checks
from heap_assets.profiles import SET_ASIDE
from heap_assets.project import Project
from heap_assets.quality import result_store
from heap_assets.tables import PROFILES, USERS, heap_asset, warehouse_asset


def sync_gate(project: Project, name: str, day: date) -> list[str]:
    """Return why nothing at all may be sent of a day; empty if the gate is open.

    A sync that forwards event tables has a gate for each of them instead, see :func:`left_out_tables`.
    """
    if project.settings.sync[name].by_table:
        return []
    return [reason for one in connector_of(project, name).requirements(day) for reason in _reasons(project, one)]


def _reasons(project: Project, requirement: Requirement | str) -> list[str]:
    if isinstance(requirement, str):
        return [requirement]
    if requirement.asset != PROFILES:
        return table_gate(project, requirement.asset, requirement.day)
    traits = _traits_gate(project, requirement.day, requirement.columns)
    return [*profiles_gate(project, requirement.day), *traits]


def _traits_gate(project: Project, day: str, columns: Iterable[str]) -> list[str]:
    """Return which columns of profiles are null for want of a trait that could not be made: sent, they would clear it.

    An audience is as good as the traits that its conditions are on.
    """
    profiles = project.lake.find(PROFILES, day)
    set_aside = profiles.notes.get(SET_ASIDE) if profiles else None
    if not set_aside:
        return []
    needed = {column: {column} for column in columns}
    for audience in project.audiences:
        if audience.name in needed:
            needed[audience.name] |= {trait for trait, _ in audience.user_properties}
    wanted = {trait for traits in needed.values() for trait in traits}
    return [f"{PROFILES} {day}: {why}" for trait, why in sorted(set_aside.items()) if trait in wanted]


def left_out_tables(project: Project, name: str, day: date) -> dict[str, str]:
    """Return the tables of a sync that forwards event tables whose gate is shut on a day, with the reason."""
    if not project.settings.sync[name].by_table:
        return {}
    unbuilt = unbuilt_days(project)
    shut = {
        table: _table_reasons(project, heap_asset(table), day, unbuilt) for table in connector_of(project, name).tables
    }
    return {table: "; ".join(reasons) for table, reasons in shut.items() if reasons}


def _table_reasons(project: Project, asset: str, day: date, unbuilt: Mapping[str, set[date]]) -> list[str]:
    """A table that a full resync rebuilds waits for its last day: until then its days do not fit together."""
    rebuilding = [f"{asset} rebuilds {len(unbuilt[asset])} days"] if asset in unbuilt else []
    return [*rebuilding, *table_gate(project, asset, day)]


def table_gate(project: Project, asset: str, day: date | str) -> list[str]:
    """Return why nothing may be sent from a partition of a table; empty if its blocking checks passed on it."""
    return result_store.gate(project.lake, asset, str(day), required_checks(project, asset))


def profiles_gate(project: Project, day: date | str) -> list[str]:
    """Return why nothing may be sent from a day's profiles.

    Their own blocking checks count, and those of every snapshot that gave them identifiers or traits: a collapsed CRM
    makes profiles that look sound and send withdrawals. What counts is the result on the very version that the
    profiles were built from. Event tables do not count: one bad table must not stop everybody's properties.
    """
    return [*table_gate(project, PROFILES, day), *_snapshot_gates(project, day)]


def _snapshot_gates(project: Project, day: date | str) -> Iterator[str]:
    lake = project.lake
    profiles = lake.find(PROFILES, str(day))
    if profiles is None:
        return
    for source, version in profiles.inputs.versions.items():
        asset, _, partition = source.partition("@")
        if not partition or asset not in feeding_snapshots(project):
            continue
        required = required_checks(project, asset)
        standing = result_store.partition_version(lake, asset, partition)
        if required and standing is not None and standing != version:
            yield f"{PROFILES} {day} was built from an older {asset} {partition}: materialize {PROFILES} again"
        elif standing is None:
            yield f"{asset} {partition}, which {PROFILES} {day} was built from, is gone"
        else:
            yield from result_store.gate(lake, asset, partition, required)


def feeding_snapshots(project: Project) -> set[str]:
    """Return the snapshot tables that give profiles identifiers or traits."""
    traits = {
        source.partition(".")[0] for trait in project.settings.profiles.traits.values() for source in trait.sources
    }
    feeding = {warehouse_asset(table) for table in traits if table != "users"} | {USERS}
    return feeding | {asset for asset, table in project.snapshot_sources.items() if table.mappings}
