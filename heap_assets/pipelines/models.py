"""Models: tables that users compute from others, by SQL over the lake as of a day, or by a Python function."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path

import polars as pl

from heap_assets.analytics import SqlTables, columns_read, with_tables
from heap_assets.errors import HeapAssetsError, MissingInputError, SettingsError
from heap_assets.pipelines.table import BuiltTable
from heap_assets.project import Project
from heap_assets.storage import Inputs, LakeSql, view_name
from heap_assets.tables import (
    AUDIENCES,
    AUDIT,
    PROFILES,
    RESOLVED,
    SNAPSHOT_TABLES,
    UNIFIED_EVENTS,
    analytics_asset,
    heap_asset,
    is_heap_table,
    is_inbox_table,
    is_signal,
    model_asset,
    signal_asset,
    warehouse_asset,
    warehouse_table,
)
from heap_assets.versions import version_of


def sql_of(project: Project, name: str) -> str | None:
    """Return the SQL of a model, None of one that is a function; SettingsError if its file is missing."""
    model = project.settings.models[name]
    if model.file is None:
        return model.sql
    path = Path(model.file)
    if not path.is_file():
        raise SettingsError(f"models.{name}.file is {model.file!r}, which does not exist")
    return path.read_text(encoding="utf-8").rstrip().rstrip(";")


def inputs_of(project: Project, name: str) -> list[str]:
    """Return the assets that a model reads.

    Raises SettingsError: no SQL, or a table that there is not; the message names the line.
    """
    tables, sql = _tables(project), sql_of(project, name)
    if sql is None:
        assets = set(tables.values())
        for asset in project.settings.models[name].inputs:
            if asset not in assets:
                raise SettingsError(f"models.{name}.inputs names {asset!r}, which is no table: {_some(assets)}")
        return list(project.settings.models[name].inputs)
    _, read = with_tables(sql, tables, {}, f"models.{name}")
    return read


def check_models(project: Project) -> None:
    """Check all models: their SQL parses, their tables exist, none depends on itself; SettingsError names the line."""
    folder = project.settings.models_folder
    if folder is not None and not Path(folder).is_dir():
        raise SettingsError(f"models_folder is {folder!r}, and there is no such folder")
    inputs = {model_asset(name): inputs_of(project, name) for name in project.settings.models}

    def follow(asset: str, path: tuple[str, ...]) -> None:
        if asset in path:
            raise SettingsError(f"{asset.replace('/', '.')} depends on itself: {' > '.join((*path, asset))}")
        for one in inputs.get(asset, ()):
            follow(one, (*path, asset))

    for asset in inputs:
        follow(asset, ())
    for asset in map(model_asset, (name for name, model in project.settings.models.items() if model.source)):
        pending, path = [asset], {asset: asset}
        while pending:
            reader = pending.pop()
            for one in inputs.get(reader, ()):
                chain = f"{path[reader]} > {one}"
                if one not in inputs and not _is_before_people(project, one):
                    raise SettingsError(
                        f"{asset.replace('/', '.')} is a source and reads what is made of sources: {chain}. A source "
                        "may read tables of Heap, of warehouses and of the inbox, and models of these"
                    )
                if one not in path:
                    path[one] = chain
                    pending.append(one)


def model_of_day(project: Project, name: str, day: date, rows: int | None = None) -> BuiltTable:
    """Return a model as of the end of a day; `rows`: only so many, as a sample.

    Of tables that hold how things stood the newest day up to it is read, of event tables all days up to it.

    Raises
    ------
    MissingInputError
        A table that it reads has no day yet.
    HeapAssetsError
        DuckDB or the function refuses, or the key is not unique.
    """
    read, sql, lake = inputs_of(project, name), sql_of(project, name), project.lake
    keys = {asset: _keys(project, asset, day) for asset in read}
    if missing := [asset for asset, built in keys.items() if not built]:
        raise MissingInputError(f"{missing[0]} has no day up to {day}: materialize it first")
    if sql is None:
        frame = _called(project, name, {asset: lake.scan(asset, built) for asset, built in keys.items()}, rows)
    else:
        frame = _result_of_sql(project, sql, keys, day, f"models.{name}", rows)
    _check_key(project, name, frame)
    versions = {f"{asset}@{key}": lake.versions(asset)[key] for asset, built in keys.items() for key in built}
    model = project.settings.models[name]
    of_replays = [_replays_from(project, day)] if sql is not None and "replay_lives" in sql else []
    versions["settings"] = version_of([sql, model.python, model.key, *of_replays])
    return BuiltTable(frame.lazy(), Inputs(versions), {"model_rows": frame.height})


def columns_of_model(project: Project, name: str, day: date) -> dict[str, list[tuple[str, str]]]:
    """Return for each column of a model the (asset, column) pairs it is computed from, as its tables are on a day.

    A function's columns are nobody's.
    """
    sql = sql_of(project, name)
    if sql is None:
        return {}
    schemas = {
        asset: project.lake.scan(asset, built[-1]).collect_schema().names()
        for asset in inputs_of(project, name)
        if (built := _keys(project, asset, day))
    }
    return columns_read(sql, _tables(project), schemas)


def sql_as_of(project: Project, sql: str, day: date, where: str, rows: int) -> tuple[pl.DataFrame, dict[str, str]]:
    """Return at most `rows` rows of a statement over the tables as of the end of a day, and versions of what it read.

    Raises as :func:`model_of_day` does; `where` is the key of the settings that messages name.
    """
    _, read = with_tables(sql, _tables(project), {}, where)
    keys = {asset: _keys(project, asset, day) for asset in read}
    if missing := [asset for asset, built in keys.items() if not built]:
        raise MissingInputError(f"{missing[0]} has no day up to {day}: materialize it first")
    versions = {f"{asset}@{key}": project.lake.versions(asset)[key] for asset, built in keys.items() for key in built}
    return _result_of_sql(project, sql, keys, day, where, rows), versions


def tables_of_sql(project: Project, sql: str, where: str) -> list[str]:
    """Return the assets that a statement reads; SettingsError if it is no SELECT or there is no such table."""
    return with_tables(sql, _tables(project), {}, where)[1]


def _result_of_sql(
    project: Project, sql: str, keys: Mapping[str, list[str]], day: date, where: str, rows: int | None
) -> pl.DataFrame:
    bounds = {asset: (built[0], built[-1]) for asset, built in keys.items()}
    snapshots = [asset for asset in keys if not _adds_up(project, asset)]
    statement, _ = with_tables(sql, _tables(project), bounds, where, snapshots)
    settings = project.settings.lake
    macros = {"replay_lives(started)": f"started >= {_replays_from(project, day)}"}
    with LakeSql(settings.url, settings.options, assets=list(keys), macros=macros) as connection:
        return connection.sql(statement if rows is None else f"SELECT * FROM ({statement}) AS model LIMIT {rows:d}")


def _replays_from(project: Project, day: date) -> str:
    """Return, as SQL, the moment from which on Heap still has the replays of sessions at the end of a day."""
    first = day + timedelta(days=1) - timedelta(days=project.settings.keep.replay_days)
    return f"TIMESTAMPTZ '{first} 00:00:00+00'"


def _called(project: Project, name: str, frames: Mapping[str, pl.LazyFrame], rows: int | None) -> pl.DataFrame:
    module, _, function = (project.settings.models[name].python or "").partition(":")
    try:
        build = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise SettingsError(f"models.{name}.python is {module}:{function}: {error}") from error
    frame = build(frames)
    if not isinstance(frame, pl.LazyFrame | pl.DataFrame):
        raise HeapAssetsError(f"models.{name}: {module}:{function} returned no Polars frame")
    table = frame.lazy().collect()
    return table if rows is None else table.head(rows)


def _check_key(project: Project, name: str, frame: pl.DataFrame) -> None:
    key = project.settings.models[name].key
    if key is None:
        return
    if key not in frame.columns:
        raise SettingsError(f"models.{name}.key is {key!r}, which the model has not: {', '.join(frame.columns)}")
    repeated = frame.height - frame[key].drop_nulls().n_unique()
    if repeated:
        raise HeapAssetsError(f"models.{name}: {repeated:,} rows have no {key} of their own; a key is unique")


def _keys(project: Project, asset: str, day: date) -> list[str]:
    built = [key for key in project.lake.partitions(asset) if key <= str(day)]
    return built if _adds_up(project, asset) else built[-1:]


def _is_before_people(project: Project, asset: str) -> bool:
    return is_heap_table(asset) or warehouse_table(asset) in project.settings.source_tables


def _adds_up(project: Project, asset: str) -> bool:
    """Return whether the days of a table add up; others hold how things stood."""
    return asset in project.event_sources or is_inbox_table(asset) or is_signal(asset) or asset == UNIFIED_EVENTS


def _tables(project: Project) -> SqlTables:
    """Return the assets by schema and name of their views, as `heap-assets sql` has them."""
    settings = project.settings
    assets = [
        *(heap_asset(table) for table in (*project.event_tables, *SNAPSHOT_TABLES)),
        *(warehouse_asset(name) for name in settings.source_tables),
        *RESOLVED, PROFILES, *settings.account_assets,
        AUDIENCES, AUDIT, *([UNIFIED_EVENTS] if settings.unified_events else []),
        *map(signal_asset, settings.signals), *map(analytics_asset, settings.analytics),
        *map(model_asset, settings.models),
    ]  # fmt: skip
    return {view_name(asset): asset for asset in assets}


def _some(names: set[str]) -> str:
    return ", ".join(sorted(names)[:20])
