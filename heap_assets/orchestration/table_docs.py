"""docs/reference/tables.md, made from the definitions of assets: every table, its columns and their meaning."""

from collections.abc import Iterator

import dagster as dg

from heap_assets.orchestration.markdown import markdown_table
from heap_assets.tables import is_event_table, is_heap_table, is_sync, is_warehouse_table

_HEAD = """# Tables

Generated from the definitions by `make docs`; do not edit.

Each table is an asset, partitioned by day, and Parquet in the lake: `<lake>/<asset>/<day>.parquet`. `heap-assets sql`
shows all of them. Listed are the tables that every deployment has, with the columns that have a meaning of their own.
**Personal** marks columns that name a person: they are masked in previews.

Beside the columns that are listed, tables of Heap have every property that the catalogue knows, tables of the
warehouse the columns of their relation, and `profiles` a pair of columns for each trait and a column for each feature
and audience ([profiles](../profiles.md)). `warehouse/<table>` and `<source>/<table>` are snapshots of your own tables
([warehouse](../warehouse.md)); `sync/<name>` sends and stores no table ([connectors](connectors.md)). Traits and
audiences in the examples are those of the demo.
"""
_EVENTS = "heap/events/<table>"
_EVENTS_TEXT = "Events of one kind, one table for each event that Heap exports."
_SCHEMA = "dagster/column_schema"


def tables_page(defs: dg.Definitions) -> str:
    """Return docs/reference/tables.md for these definitions."""
    specs = {
        spec.key.to_user_string(): spec
        for assets in defs.get_repository_def().asset_graph.assets_defs
        for spec in assets.specs
    }
    events = [spec for key, spec in specs.items() if is_event_table(key)]
    common = set.intersection(*(set(_columns(spec)) for spec in events)) if events else set()
    parts = [_section(_EVENTS, _EVENTS_TEXT, {n: c for n, c in _columns(events[0]).items() if n in common})]
    for key, spec in sorted(specs.items()):
        if not (is_event_table(key) or is_sync(key) or (is_warehouse_table(key) and not is_heap_table(key))):
            parts.append(_section(key, spec.description or "", _columns(spec)))
    return _HEAD + "".join(f"\n{part}" for part in parts)


def _columns(spec: dg.AssetSpec) -> dict[str, dg.TableColumn]:
    schema = spec.metadata.get(_SCHEMA)
    columns = schema.columns if isinstance(schema, dg.TableSchema) else []
    return {column.name: column for column in columns if column.description}


def _section(key: str, description: str, columns: dict[str, dg.TableColumn]) -> str:
    return "\n".join(_lines(key, description, columns)) + "\n"


def _lines(key: str, description: str, columns: dict[str, dg.TableColumn]) -> Iterator[str]:
    yield f"## `{key}`\n"
    yield description.strip()
    if columns:
        personal = {name: "yes" if column.tags else "" for name, column in columns.items()}
        rows = [(f"`{name}`", column.description or "", personal[name]) for name, column in columns.items()]
        yield "\n" + markdown_table(("Column", "Meaning", "Personal"), rows)
