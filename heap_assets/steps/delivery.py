"""What a sync sends on a day: rows from profiles or a warehouse table, to the destination that the settings name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime

import polars as pl

from heap_assets import clock
from heap_assets.checks import verdicts
from heap_assets.destinations import (
    Addressed,
    AddressPolicy,
    Destination,
    Guard,
    HeapAccountProperties,
    HeapApp,
    HeapUserProperties,
    OnWithdrawn,
    Progress,
    Property,
    SyncReport,
    SyncSpec,
    addressed,
    deliver,
    dry_run,
)
from heap_assets.errors import MissingInputError, SettingsError
from heap_assets.names import PROFILES, USERS, warehouse_asset
from heap_assets.platform import Platform
from heap_assets.settings.sync import Sync
from heap_assets.steps.golden import standing_partition


def send(
    platform: Platform,
    name: str,
    day: date,
    run_id: str,
    *,
    required_checks: Sequence[str],
    confirmed: bool = False,
    force: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> SyncReport:
    """Bring the destination of a sync up to date with a day; nothing is sent while the gate is shut."""
    spec, destination = sync_spec(platform, name), destination_of(platform, name)
    shut = verdicts.gate(platform.lake, input_asset(platform.settings.sync[name]), str(day), required_checks)
    rows = pl.LazyFrame(schema={"key": pl.String}) if shut else rows_of(platform, name, day)
    return deliver(
        spec,
        destination,
        rows,
        platform.lake.store,
        day,
        run_id,
        confirmed=confirmed,
        force=force,
        blocked_by=shut,
        progress=progress,
    )


def plan(platform: Platform, name: str, day: date, *, force: bool = False) -> tuple[SyncReport, pl.DataFrame]:
    """Say what :func:`send` would do: the report, and the rows with hashed keys and field names."""
    rows = rows_of(platform, name, day)
    return dry_run(
        sync_spec(platform, name), destination_of(platform, name), rows, platform.lake.store, day, force=force
    )


def input_asset(sync: Sync) -> str:
    """Return the asset that a sync reads."""
    return PROFILES if sync.source == PROFILES else warehouse_asset(sync.source)


def rows_of(platform: Platform, name: str, day: date) -> pl.LazyFrame | Addressed:
    """Return the rows of a day with the destination's key."""
    sync = platform.settings.sync[name]
    lake = platform.lake
    if sync.source != PROFILES:
        if sync.key is None:
            raise SettingsError(f"sync.{name}.key is missing: which column of {sync.source} is the destination's key?")
        return lake.scan(warehouse_asset(sync.source), str(day)).with_columns(
            pl.col(sync.key).cast(pl.String).alias("key")
        )
    return addressed(lake.scan(PROFILES, str(day)), _newest_users(platform), _policy(platform, sync))


def sync_spec(platform: Platform, name: str) -> SyncSpec:
    """Return a sync in the terms of the delivery engine."""
    sync = platform.settings.sync[name]
    return SyncSpec(
        name=name,
        properties={
            prop: Property(column, on_null=sync.nulls.get(prop, "skip")) for prop, column in sync.properties.items()
        },
        changed_fields_only=sync.changed_fields_only,
        on_withdrawn=OnWithdrawn(sync.on_withdrawn),
        hold_days=sync.hold_days,
        rate_share=sync.limit_share,
        concurrency=sync.requests_in_flight,
        guard=Guard(removed=sync.guard.max_removed, changed=sync.guard.max_changed, takeover=sync.guard.max_same_value),
    )


def destination_of(platform: Platform, name: str) -> Destination:
    """Return the destination that a sync sends to."""
    sync, heap = platform.settings.sync[name], platform.settings.heap
    app = HeapApp(heap.app_id, heap.region.value, heap.base_url)
    match sync.kind or name:
        case "heap_user_properties":
            return HeapUserProperties(app, cleared=sync.cleared_value)
        case "heap_account_properties":
            return HeapAccountProperties(
                app,
                account_id_configured=sync.account_id_configured,
                users_synced=_users_synced(platform),
                cleared=sync.cleared_value,
            )
        case kind:
            raise SettingsError(f"sync.{name}.kind is {kind!r}, which this version cannot send to yet")


def _users_synced(platform: Platform) -> bool:
    """Say whether users were ever sent to Heap: accounts mean nothing before (features.md H5)."""
    return any(
        platform.lake.store.list(f"_sync/{name}")
        for name, sync in platform.settings.sync.items()
        if (sync.kind or name) == "heap_user_properties"
    )


def _newest_users(platform: Platform) -> pl.LazyFrame:
    newest = standing_partition(platform.lake, USERS, clock.today())
    if newest is None:
        raise MissingInputError(f"{USERS} has no partition yet: nobody can be written to before Heap's users are known")
    return platform.lake.scan(USERS, str(newest))


def _policy(platform: Platform, sync: Sync) -> AddressPolicy:
    newest = standing_partition(platform.lake, USERS, clock.today())
    as_of = datetime.combine(newest, datetime.min.time(), UTC) + platform.settings.heap.cadence if newest else None
    suppressed = frozenset(value for kind, value in platform.rules.suppressed if kind == "heap_identity")
    return AddressPolicy(
        identities=sync.identities,
        suppressed=suppressed,
        users_as_of=as_of,
        cadence=platform.settings.heap.cadence,
        now=clock.now(),
    )
