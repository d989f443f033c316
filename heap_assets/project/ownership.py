"""Whose a row of a table is: the identifiers that it names people by, and the table without erased people."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from heap_assets.identity import SourceTable
from heap_assets.tables import MIGRATIONS, heap_asset, is_heap_table, is_inbox_table, warehouse_table

if TYPE_CHECKING:
    from heap_assets.project.project import Project


def mapping_of(project: Project, asset: str) -> SourceTable | None:
    """Return how a table names people, also one of Heap that the catalogue lacks; None of one of our own."""
    if (mapped := project.sources.get(asset)) is not None:
        return mapped
    if is_heap_table(asset):
        name = project.heap_tables.get(asset, asset)
        return SourceTable(asset, "event", project.heap_mappings(name, "events"), "time")
    return None


def owner_column(project: Project, asset: str) -> str | None:
    """Return the column that says whose a row of a table is, before all other identifiers."""
    if is_heap_table(asset) or is_inbox_table(asset):
        return "user_id"
    table = project.settings.snapshot_tables.get(warehouse_table(asset))
    return table.key if table else None


def landed_without_erased(project: Project, table: str, rows: pl.DataFrame) -> pl.DataFrame:
    """Return rows of a table of a dump, by Heap's name for it, without those of erased people."""
    return without_erased(project, heap_asset(table), rows.lazy())[0].collect()


def without_erased(project: Project, asset: str, rows: pl.LazyFrame) -> tuple[pl.LazyFrame, int]:
    """Return rows of a table without those of erased people, and how many these are; the same frame if nobody is."""
    table = mapping_of(project, asset)
    if table is None:
        return rows, 0
    stones = project.tombstones.current()
    rules, owner = project.rules_of_settings, owner_column(project, asset)
    return stones.without_erased(rows, table, rules, owner, any_names=asset == MIGRATIONS)
