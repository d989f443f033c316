"""May anything be sent? Asked before every delivery, of stored verdicts alone: the gate is part of the sync."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

from heap_assets.checks import verdicts
from heap_assets.names import PROFILES, USERS, warehouse_asset
from heap_assets.platform import Platform
from heap_assets.steps.suites import required_checks


def table_gate(platform: Platform, asset: str, day: date | str) -> list[str]:
    """Return why nothing may be sent from a partition of a table; empty if its blocking checks passed on it."""
    return verdicts.gate(platform.lake, asset, str(day), required_checks(platform, asset))


def profiles_gate(platform: Platform, day: date | str) -> list[str]:
    """Return why nothing may be sent from a day's profiles.

    Their own blocking checks count, and those of every snapshot that gave them identifiers or traits: a collapsed CRM
    makes profiles that look sound and send withdrawals. What counts is the verdict on the very version that the
    profiles were built from. Event tables do not count: one bad table must not stop everybody's properties.
    """
    return [*table_gate(platform, PROFILES, day), *_snapshot_gates(platform, day)]


def _snapshot_gates(platform: Platform, day: date | str) -> Iterator[str]:
    lake = platform.lake
    found = lake.find(PROFILES, str(day))
    if found is None:
        return
    for given, version in found.inputs.versions.items():
        asset, _, partition = given.partition("@")
        if not partition or asset not in feeding_snapshots(platform):
            continue
        required = required_checks(platform, asset)
        standing = verdicts.partition_version(lake, asset, partition)
        if required and standing is not None and standing != version:
            yield f"{PROFILES} {day} was built from an older {asset} {partition}: materialize {PROFILES} again"
        elif standing is None:
            yield f"{asset} {partition}, which {PROFILES} {day} was built from, is gone"
        else:
            yield from verdicts.gate(lake, asset, partition, required)


def feeding_snapshots(platform: Platform) -> set[str]:
    """Return the snapshot tables that give profiles identifiers or traits."""
    traits = {
        source.partition(".")[0] for trait in platform.settings.profiles.traits.values() for source in trait.sources
    }
    feeding = {warehouse_asset(table) for table in traits if table != "users"} | {USERS}
    return feeding | {asset for asset, table in platform.snapshot_sources.items() if table.mappings}
