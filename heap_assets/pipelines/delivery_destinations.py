"""A sync of the settings in the terms of the delivery engine: its spec and its destination."""

from __future__ import annotations

import re
from typing import cast

from heap_assets.activation import (
    BaseDestination,
    Destination,
    Guard,
    HeapAccountProperties,
    HeapApp,
    HeapDeletion,
    HeapEvents,
    HeapIdentify,
    HeapUserProperties,
    Mode,
    OnWithdrawn,
    Property,
    SegmentGroup,
    SegmentIdentify,
    SegmentReidentify,
    SegmentSource,
    SegmentTrack,
    SyncSpec,
    Webhook,
    WebhookSettings,
    at_account,
    custom_destination,
    ledger_of,
    runs,
)
from heap_assets.config import Sync
from heap_assets.config import sync as kinds
from heap_assets.errors import SettingsError
from heap_assets.pipelines.delivery_columns import own_columns
from heap_assets.project import Project
from heap_assets.values import apart

_NAMES_ACCOUNT = re.compile(
    r"(?i)(^|_)(url|host|address|endpoint|region|account|app|project|workspace|tenant|site|org|environment|id)(_id)?$"
)


def spec_of(project: Project, name: str, *, table: str = "", properties: dict[str, str] | None = None) -> SyncSpec:
    """Return a sync in the terms of the delivery engine.

    Parameters
    ----------
    table
        Of `segment_track`, which keeps one ledger per Heap table.
    properties
        Destination property to column, where the rows name them otherwise than the settings.
    """
    sync = project.settings.sync[name]
    nulls = getattr(sync, "nulls", {})
    mapped = sync.properties if properties is None else properties
    tables = project.settings.warehouse.tables if project.settings.warehouse else {}
    if properties is None and sync.source in tables:
        mapped = {prop: apart(column, own_columns(sync)) for prop, column in mapped.items()}
    spec = SyncSpec(
        name=ledger_name(name, table),
        account=_account(project, name, table),
        properties={prop: Property(column, on_null=nulls.get(prop, "skip")) for prop, column in mapped.items()},
        changed_fields_only=getattr(sync, "changed_fields_only", False),
        on_withdrawn=OnWithdrawn(getattr(sync, "on_withdrawn", "keep")),
        rate_share=sync.limit_share,
        concurrency=sync.requests_in_flight,
        guard=Guard(removed=sync.guard.max_removed, changed=sync.guard.max_changed, takeover=sync.guard.max_same_value),
    )
    return at_account(project.lake.store, spec, claim=False)


def ledger_name(name: str, table: str = "") -> str:
    """Return the name of the ledger of a sync, of one table of it."""
    return f"{name}.{table}" if table else name


def ledger_folder(project: Project, name: str, table: str = "", *, claim: bool = False) -> str:
    """Return the folder below `_sync/` of the ledger of a sync at the account that it writes to now.

    Parameters
    ----------
    claim
        Write down whose it is: only who sends does that.
    """
    account = _account(project, name, table)
    return ledger_of(project.lake.store, ledger_name(name, table), account, claim=claim)


def _account(project: Project, name: str, table: str) -> str:
    sync, destination = project.settings.sync[name], destination_of(project, name, table=table)
    account = str(getattr(destination, "account", destination.target))
    if isinstance(sync, kinds.Custom):
        # a class that says nothing of its account is told from others by the options that name one
        account += str(sorted((key, str(value)) for key, value in sync.options.items() if _NAMES_ACCOUNT.search(key)))
    return account


def destination_of(project: Project, name: str, *, table: str = "") -> Destination:
    """Return the destination that a sync sends to."""
    sync = project.settings.sync[name]
    if isinstance(sync, kinds.Custom):
        return custom_destination(sync.destination, **sync.options)
    return cast("Destination", _built_in(project, name, sync, table))


def heap_deletion(project: Project, name: str) -> HeapDeletion:
    """Return what asks Heap to delete users; keys of the sync must be Heap identities.

    Raises
    ------
    SettingsError
        The sync sends elsewhere, or the settings have no key for it.
    """
    heap = project.settings.heap
    if not isinstance(project.settings.sync[name], kinds.HeapUserProperties | kinds.HeapEvents):
        raise SettingsError(f"sync.{name} is not addressed by Heap identity: Heap cannot be asked to delete its keys")
    if heap.deletion_key is None:
        raise SettingsError("heap.deletion_key is not set: an API key from Account > Manage > Privacy & Security")
    return HeapDeletion(HeapApp(heap.app_id, heap.region.value, heap.base_url), heap.deletion_key.get_secret_value())


def _built_in(project: Project, name: str, sync: Sync, table: str) -> BaseDestination:
    heap = project.settings.heap
    app = HeapApp(heap.app_id, heap.region.value, heap.base_url)
    match sync:
        case kinds.HeapUserProperties():
            return HeapUserProperties(app, cleared=sync.cleared_value)
        case kinds.HeapAccountProperties():
            configured = sync.account_id_configured
            return HeapAccountProperties(
                app, account_id_configured=configured, users_synced=users_synced(project), cleared=sync.cleared_value
            )
        case kinds.HeapEvents():
            return HeapEvents(app, source=sync.source)
        case kinds.HeapIdentify():
            return HeapIdentify(app, enabled=sync.enabled)
        case kinds.Webhook():
            return Webhook(_webhook(sync), name=name, mode=Mode(sync.mode))
    return _segment(name, sync, table)


def users_synced(project: Project) -> bool:
    """Say whether users ever reached Heap: accounts mean nothing before (features.md H5)."""
    store = project.lake.store
    return any(
        sync.kind == "heap_user_properties" and bool((runs(store, ledger_folder(project, name))["sent"] > 0).any())
        for name, sync in project.settings.sync.items()
    )


def _segment(name: str, sync: Sync, table: str) -> BaseDestination:
    match sync:
        case kinds.SegmentTrack():
            return SegmentTrack(_source(sync), table=table)
        case kinds.SegmentIdentify():
            return SegmentIdentify(_source(sync))
        case kinds.SegmentGroup():
            return SegmentGroup(_source(sync))
        case kinds.SegmentReidentify():
            return SegmentReidentify(_source(sync))
    raise SettingsError(f"sync.{name}.kind is {sync.kind!r}, which has no destination")


def _source(
    sync: kinds.SegmentTrack | kinds.SegmentIdentify | kinds.SegmentGroup | kinds.SegmentReidentify,
) -> SegmentSource:
    return SegmentSource(sync.write_key.get_secret_value(), sync.region.value, sync.url)


def _webhook(sync: kinds.Webhook) -> WebhookSettings:
    return WebhookSettings(
        sync.url.get_secret_value(),
        secret=sync.secret.get_secret_value() if sync.secret else None,
        headers={name: value.get_secret_value() for name, value in sync.headers.items()},
        method=sync.method,
        batch_rows=sync.batch_rows,
        rows_per_minute=sync.rows_per_minute,
    )
