"""Which columns syncs name, and whether their tables have them: what `heap-assets check` asks before any sending."""

from __future__ import annotations

from collections.abc import Iterator

from heap_assets.activation import custom_destination, registered
from heap_assets.config import BaseSync
from heap_assets.config import sync as kinds
from heap_assets.errors import SettingsError
from heap_assets.pipelines.delivery_tables import Forwarding
from heap_assets.project import Project
from heap_assets.sources.warehouse import Shape, WarehouseError

_COLUMN_KEYS = ("event_name_column", "event_key", "timestamp_column", "member_column")


def columns_named(sync: BaseSync) -> Iterator[tuple[str, str]]:
    """Yield key of the settings and column, for a sync that reads a warehouse table."""
    yield from ((f"properties.{prop}", column) for prop, column in sync.properties.items())
    for key in ("key", *_COLUMN_KEYS):
        column = getattr(sync, key, None)
        if column is not None:
            yield key, column


def columns_of_syncs(project: Project, table: str) -> set[str]:
    """Return the columns of a warehouse table that syncs send or go by: kept, whatever `columns` leaves out."""
    reading = [sync for sync in project.settings.sync.values() if sync.source == table]
    return {column for sync in reading for _, column in columns_named(sync)}


def check_syncs(project: Project) -> None:
    """Hold what syncs name against the warehouse, the catalogue and tracking plans.

    Raises
    ------
    SettingsError
        Naming the key of the first mistake.
    """
    tables = project.settings.warehouse.tables if project.settings.warehouse else {}
    for name, sync in project.settings.sync.items():
        if sync.source in tables:
            _check_columns(project, name, sync, tables[sync.source].relation)
        if isinstance(sync, kinds.SegmentTrack):
            _check_forwarding(Forwarding(project, name, sync))


def unknown_destinations(project: Project, *, make: bool = False) -> dict[str, str]:
    """Return syncs of kind `custom` that cannot send, with the reason: others go on without them.

    Parameters
    ----------
    make
        Also make the destination of each as its options say, which runs code of the package.
    """
    found = {}
    there = set(registered())
    for name, sync in project.settings.sync.items():
        if isinstance(sync, kinds.Custom) and (make or sync.destination not in there):
            try:
                custom_destination(sync.destination, **sync.options)
            except SettingsError as error:
                found[name] = f"sync.{name}: {error}"
    return found


def _check_columns(project: Project, name: str, sync: BaseSync, relation: str) -> None:
    there = project.warehouse().columns(relation)
    shape = Shape.of(there, project.mapped_columns(sync.source), relation)
    for key, column in columns_named(sync):
        try:
            shape = shape.spelling(column, relation)
        except WarehouseError as error:
            raise SettingsError(f"sync.{name}.{key} is {column!r}: {error}") from error


def _check_forwarding(forwarding: Forwarding) -> None:
    """Read the tracking plan, and hold that some forwarded table has each column that is named."""
    new_lake = not forwarding.project.event_tables  # check_events says that nothing could be held against it yet
    catalogue = forwarding.project.catalogue
    known = {column for table in forwarding.tables for column in catalogue.columns(table) or ()}
    for prop, column in forwarding.sync.properties.items():
        if column not in known and not new_lake:
            raise SettingsError(
                f"sync.{forwarding.name}.properties.{prop} is {column!r}, which none of the forwarded tables has: "
                f"{', '.join(forwarding.tables) or 'no table is forwarded'}"
            )
    try:
        _ = forwarding.plan
    except SettingsError as error:
        raise SettingsError(f"sync.{forwarding.name}: {error}") from error
