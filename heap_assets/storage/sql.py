"""SQL over a lake: all assets as DuckDB views, for Python and for BI tools; nothing can be written.

    from heap_assets.storage import LakeSql
    LakeSql("data/lake").sql("SELECT * FROM heap.pageviews LIMIT 5")

Each asset is a view named after its key, `heap/events/signup` as `heap.events_signup`, over all its partitions with
the partition's key as column `partition_key`. `latest.heap_users` (group and name) holds the newest partition only,
the current rows of a snapshot table. `resolved.events_signup` adds today's user and profile to an event table.
`sync.runs`, `sync.changelog`, `sync.set_aside` and `sync.ledger_<sync>` hold what was sent, what was not, and why.

A column of a table that is called like one that a view adds is shown as `property_<name>` (:mod:`heap_assets.values`);
of columns whose names differ in case only, the later ones are `<name>_1` and so on. A column whose type differs by day
is shown in a type that holds every value exactly, else as text (:mod:`heap_assets.storage.sql_types`).
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
from duckdb.sqltypes import DuckDBPyType

from heap_assets.errors import DamagedFileError, HeapAssetsError, SettingsError
from heap_assets.storage import state_keys
from heap_assets.storage.parts import files_of, table_of_part, tables_with_parts
from heap_assets.storage.sql_types import rewritten
from heap_assets.storage.store import ObjectInfo, Store
from heap_assets.tables import GRAPH, MIGRATIONS, PAGEVIEWS, SESSIONS, is_event_table, sync_asset
from heap_assets.values import PRIVATE, set_apart, sql_identifier, sql_literal

_SUFFIX = ".parquet"
_SYNCS = state_keys.SYNC
_SYNC_TABLES = ("runs", "changelog", "set_aside")
_PARTITION_KEY = "partition_key"
_FILE = f"{PRIVATE}file"
_CHECKED_BYTES = 1 << 30
_RESOLVED = ("resolved_user_id", "profile_id")
_EXPLAIN = re.compile(r"\s*explain\s+(analyze\s+)?(\([^)]*\)\s*)?", re.IGNORECASE)


class SqlError(HeapAssetsError):
    """A statement that the lake cannot answer, with DuckDB's reason."""


class LakeSql:
    """A lake open for SELECT statements, until :meth:`close`.

    Parameters
    ----------
    url, options
        Of the lake, as its settings spell them: a folder, `s3://…` or `gs://…`.
    assets
        Asset keys to show; empty means all.
    macros
        Signature of a function for statements (`is_new(time)`) to the expression that it stands for.

    `unreadable`: tables that cannot be shown, with the reason; the others can.

    Raises SettingsError if there is no asset to show.
    """

    def __init__(
        self,
        url: str,
        options: Mapping[str, str] | None = None,
        *,
        assets: Sequence[str] = (),
        macros: Mapping[str, str] | None = None,
    ) -> None:
        store = Store(url, options)
        # what does not fit into memory goes to a folder of its own, not to one beside the caller
        self._scratch = tempfile.TemporaryDirectory(prefix="heap-assets-")
        config = {
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "python_enable_replacements": "false",  # else a name in a query may mean a variable of this process
            "temp_directory": self._scratch.name,
        }
        self._connection = duckdb.connect(config=config)
        views = _Views(self._connection, store)
        self._store, self._files_of = store, views.files_of
        self.unreadable: Mapping[str, str] = views.unreadable
        try:
            self._connection.execute("SET enable_progress_bar = false; SET TimeZone = 'UTC'")
            if not store.is_local:
                _open_remote(self._connection, store)
            views.create_all(assets)
            for signature, expression in (macros or {}).items():
                self._connection.execute(f"CREATE TEMP MACRO {signature} AS ({expression})")
            _lock_down(self._connection, store, views.files)
        except BaseException:
            self.close()
            raise

    def tables(self) -> list[str]:
        """Return the views as `schema.name`."""
        rows = self._connection.execute(
            "SELECT schema_name || '.' || view_name FROM duckdb_views() WHERE NOT internal ORDER BY 1"
        ).fetchall()
        return [name for (name,) in rows]

    def sql(self, statement: str, parameters: Mapping[str, Any] | None = None) -> pl.DataFrame:
        """Answer one SELECT; `parameters`: values of the `$name` in it.

        Raises
        ------
        SqlError
            If it is no SELECT, or DuckDB refuses it.
        DamagedFileError
            If a file of a table that the statement names is damaged. Together they must be of a gibibyte at most to be
            looked at: DuckDB itself takes most flipped bits for other values.
        """
        self._check_files(statement)
        try:
            self._check_it_only_reads(statement, parameters)
            relation = self._connection.sql(statement, params=dict(parameters) if parameters else None)
            result: pl.DataFrame = relation.pl()
        except duckdb.Error as error:
            hidden = f" (cannot be shown: {', '.join(self.unreadable)})" if self.unreadable else ""
            raise SqlError(str(error).partition("\n\nLINE")[0] + hidden) from error
        return result

    def _check_files(self, statement: str) -> None:
        if not self._store.is_local:
            return
        files = {
            key
            for name, keys in self._files_of.items()
            if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", statement, re.IGNORECASE)
            for key in keys
        }
        # files that are gone since are named by DuckDB
        existing = [info for key in sorted(files) if (info := self._store.head(key))]
        if sum(info.size for info in existing) <= _CHECKED_BYTES:
            for info in existing:
                self._store.check(info.key)

    def _check_it_only_reads(self, statement: str, parameters: Mapping[str, Any] | None) -> None:
        explained = _EXPLAIN.match(statement)  # EXPLAIN ANALYZE runs what it explains
        parsed = self._connection.extract_statements(statement[explained.end() :] if explained else statement)
        if [query.type for query in parsed] != [duckdb.StatementType.SELECT]:
            raise SqlError("the lake answers one SELECT at a time and takes nothing else: it is read-only")
        # a WITH clause may write, but only at the top level: one level deeper, DuckDB refuses to bind it
        explaining = f"EXPLAIN SELECT * FROM (\n{parsed[0].query.strip().rstrip(';')}\n)"
        self._connection.execute(explaining, dict(parameters) if parameters else None).fetchall()

    def close(self) -> None:
        self._connection.close()
        self._scratch.cleanup()

    def __enter__(self) -> LakeSql:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def write_database(url: str, path: Path) -> None:
    """Write a DuckDB file of nothing but the views of a local lake, for BI tools that open DuckDB files.

    It holds no rows; write it again when partitions were added.
    """
    store = Store(url)
    if not store.is_local:
        raise SettingsError(f"{url} is not a folder: a file of views would have to hold its credentials")
    staging = path.with_name(f".tmp-{path.name}")
    staging.unlink(missing_ok=True)
    try:
        with duckdb.connect(str(staging)) as connection:
            _Views(connection, store).create_all(())
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)


class _Views:
    """The views of a lake, made in a connection; one that cannot be made stops no other."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, store: Store) -> None:
        self._connection = connection
        self._store = store
        self.unreadable: dict[str, str] = {}
        self.files: list[str] = []
        self.files_of: dict[str, list[str]] = {}

    def create_all(self, assets: Sequence[str]) -> None:
        infos = self._store.list()
        partitions, with_parts = _partitions(infos, assets), tables_with_parts(infos)
        if not partitions:
            names = f" called {', '.join(assets)}" if assets else ""
            raise SettingsError(f"{self._store.url} holds no asset{names} yet")
        views = {}
        for asset, keys in sorted(partitions.items()):
            schema, name = view_name(asset)
            try:
                of_keys = [files_of(self._store, f"{asset}/{key}{_SUFFIX}", with_parts) for key in sorted(keys)]
            except (DamagedFileError, pl.exceptions.PolarsError) as error:
                self.unreadable[asset] = str(SqlError(str(error).partition("\n")[0]))  # redacted
                continue
            files = [file for files in of_keys for file in files]
            all_days = self._create(asset, schema, name, files, keyed=True)
            long_name = name if schema == "main" else f"{schema}_{name}"
            newest = self._create(asset, "latest", long_name, of_keys[-1], keyed=True)
            if all_days and newest:
                views[asset] = all_days, newest
        self._create_resolved(views)
        if not assets:
            for name, files in sorted(_sync_tables(self._store).items()):
                self._create(sync_asset(name), "sync", name, files, keyed=False)

    def _create(self, asset: str, schema: str, name: str, files: Sequence[str], *, keyed: bool) -> str | None:
        """Make one view and return its quoted name; None if it cannot be made."""
        uris = [self._store.uri(key) for key in files]
        free = self._free_name(schema, name)
        view = f"{sql_identifier(schema)}.{sql_identifier(free)}"
        try:
            self._connection.execute(f"CREATE SCHEMA IF NOT EXISTS {sql_identifier(schema)}")
            source = self._source(uris, f", filename = {sql_literal(_FILE)}" if keyed else "")
            if not keyed:
                self._connection.execute(f"CREATE VIEW {view} AS SELECT * FROM {source}")
            else:
                self._create_keyed(view, schema, free, source, self._key_of_file(files))
        except duckdb.Error as error:
            self.unreadable[asset] = str(SqlError(str(error).partition("\n")[0]))  # redacted
            return None
        self.files.extend(files)
        self.files_of.setdefault(free, []).extend(files)
        return view

    def _source(self, uris: Sequence[str], options: str) -> str:
        """Return the SQL of all rows of some files; a column whose types differ by file keeps every value."""
        schemas = self._schemas(uris) if len(uris) > 1 else []
        types: dict[str, list[DuckDBPyType]] = {}
        for columns, _ in schemas:
            for name, dtype in columns.items():
                types.setdefault(name, []).append(dtype)
        rewrites = {name: by_type for name, of in types.items() if (by_type := rewritten(sql_identifier(name), of))}
        groups: dict[str, list[str]] = {}
        for columns, alike in schemas:
            replaced = [
                f"{by_type[str(columns[name])]} AS {sql_identifier(name)}"
                for name, by_type in rewrites.items()
                if str(columns.get(name)) in by_type
            ]
            groups.setdefault(f"REPLACE ({', '.join(replaced)})" if replaced else "", []).extend(alike)
        if not rewrites:
            return _parquet(uris, options)
        selects = [f"SELECT * {replaced} FROM {_parquet(alike, options)}" for replaced, alike in groups.items()]
        return f"({' UNION ALL BY NAME '.join(selects)})"

    def _schemas(self, uris: Sequence[str]) -> list[tuple[dict[str, DuckDBPyType], list[str]]]:
        """Return the schemas that files have, column in lower case to type, each with the files that have it."""
        files = self._connection.execute(
            f"""
            SELECT list(file_name ORDER BY file_name) AS files FROM (
                SELECT file_name, string_agg(concat_ws(' ', name, duckdb_type), chr(31) ORDER BY column_id) AS columns
                FROM parquet_schema([{", ".join(map(sql_literal, uris))}]) GROUP BY file_name
            ) GROUP BY columns ORDER BY files
            """
        ).fetchall()
        schemas = []
        for (alike,) in files:
            rows = self._connection.sql(f"SELECT * FROM {_parquet(alike[:1], '')}")
            names = [name.casefold() for name in rows.columns]
            schemas.append((dict(zip(names, rows.types, strict=True)), alike))
        return schemas

    def _key_of_file(self, files: Sequence[str]) -> str:
        """Return the SQL of a row's partition: a file is called like it, or is below a folder that is."""
        file, tables = sql_identifier(_FILE), [table for key in files if (table := table_of_part(key))]
        named = f"parse_filename({file}, true)"
        if not tables:
            return named
        folder = self._store.uri(f"{state_keys.PARTS}/{tables[0][0]}/")
        below = f"split_part(substr({file}, {len(folder) + 1}), '/', 1)"
        return f"CASE WHEN starts_with({file}, {sql_literal(folder)}) THEN {below} ELSE {named} END"

    def _create_keyed(self, view: str, schema: str, name: str, source: str, key_of_file: str) -> None:
        key = f"{key_of_file} AS {_PARTITION_KEY}"
        all_columns = f"* EXCLUDE ({sql_identifier(_FILE)})"
        self._connection.execute(f"CREATE VIEW {view} AS SELECT {all_columns}, {key} FROM {source}")
        *columns, _ = self._columns(schema, name)
        if clashing := _renaming(set_apart(columns, [_PARTITION_KEY])):
            self._connection.execute(
                f"CREATE OR REPLACE VIEW {view} AS SELECT {all_columns} {clashing}, {key} FROM {source}"
            )

    def _columns(self, schema: str, name: str) -> list[str]:
        rows = self._connection.execute(
            "SELECT column_name FROM duckdb_columns() WHERE schema_name = ? AND table_name = ? ORDER BY column_index",
            [schema, name],
        ).fetchall()
        return [column for (column,) in rows]

    def _free_name(self, schema: str, name: str) -> str:
        statement = "SELECT view_name FROM duckdb_views() WHERE schema_name = ?"
        existing = {view.casefold() for (view,) in self._connection.execute(statement, [schema]).fetchall()}
        free, number = name, 1
        while free.casefold() in existing:
            number += 1
            free = f"{name}_{number}"
        return free

    def _create_resolved(self, views: Mapping[str, tuple[str, str]]) -> None:
        """Event rows with today's user and profile; only once both are known.

        `views` holds each asset's view of all partitions and of the newest one.
        """
        if not {MIGRATIONS, GRAPH} <= views.keys():
            return
        migrations, graph = views[MIGRATIONS][1], views[GRAPH][1]
        self._connection.execute("CREATE SCHEMA resolved")
        for asset in views:
            if asset not in (PAGEVIEWS, SESSIONS) and not is_event_table(asset):
                continue
            source = views[asset][0]
            schema, name = _unquoted(source)
            clashing = _renaming(set_apart(self._columns(schema, name), _RESOLVED))
            try:
                self._connection.execute(
                    f"""
                    CREATE VIEW resolved.{sql_identifier(name)} AS
                    SELECT e.* {clashing}, coalesce(m.resolved_to, e.user_id) AS resolved_user_id,
                        g.profile_id AS profile_id
                    FROM {source} AS e
                    LEFT JOIN {migrations} AS m ON m.from_user_id = e.user_id
                    LEFT JOIN {graph} AS g ON g.identifier_type = 'heap_user_id'
                        AND g.identifier = CAST(coalesce(m.resolved_to, e.user_id) AS VARCHAR)
                    """
                )
                for joined in (migrations, graph):
                    self.files_of[name].extend(self.files_of[_unquoted(joined)[1]])
            except duckdb.Error as error:
                self.unreadable[f"resolved.{name}"] = str(SqlError(str(error).partition("\n")[0]))  # redacted


def _parquet(uris: Sequence[str], options: str) -> str:
    listed = ", ".join(map(sql_literal, uris))
    return f"read_parquet([{listed}], union_by_name = true, hive_partitioning = false{options})"


def _unquoted(view: str) -> tuple[str, str]:
    schema, name = (part[1:-1].replace('""', '"') for part in re.findall(r'"(?:[^"]|"")*"', view))
    return schema, name


def _renaming(names: Mapping[str, str]) -> str:
    listed = ", ".join(f"{sql_identifier(old)} AS {sql_identifier(new)}" for old, new in names.items())
    return f"RENAME ({listed})" if listed else ""


def view_name(asset: str) -> tuple[str, str]:
    """Return schema and name of an asset's view: `identity/graph` is `identity.graph`, `profiles` `main.profiles`."""
    group, _, name = asset.partition("/")
    return (group, re.sub(r"\W", "_", name)) if name else ("main", group)


def _partitions(infos: Sequence[ObjectInfo], assets: Sequence[str]) -> dict[str, list[str]]:
    partitions: dict[str, list[str]] = {}
    for info in infos:
        asset, _, name = info.key.rpartition("/")
        if not name.endswith(_SUFFIX) or not asset or asset.startswith("_") or "/." in asset:
            continue  # folders of state (state_keys) begin with an underscore
        if not assets or asset in assets:
            partitions.setdefault(asset, []).append(name.removesuffix(_SUFFIX))
    return partitions


def _sync_tables(store: Store) -> dict[str, list[str]]:
    """Return the files of each table of syncs by the name of its view: runs, changelog, set_aside, each ledger."""
    tables: dict[str, list[str]] = {}
    for info in store.list(_SYNCS):
        sync, _, path = info.key.removeprefix(f"{_SYNCS}/").partition("/")
        table = path.partition("/")[0]
        if table in _SYNC_TABLES and path.endswith(_SUFFIX):
            tables.setdefault(table, []).append(info.key)
        elif path == f"ledger{_SUFFIX}":
            tables[f"ledger_{re.sub(r'[^A-Za-z0-9_]', '_', sync)}"] = [info.key]
    return {name: sorted(keys) for name, keys in tables.items()}


def _open_remote(connection: duckdb.DuckDBPyConnection, store: Store) -> None:
    """Let DuckDB read through the client that writes the lake: the same credentials, and no extension to install."""
    from obstore.fsspec import FsspecStore

    protocol = store.url.partition("://")[0]
    # a cached instance would answer with another lake's credentials
    options: dict[str, Any] = {**store.object_store_options, "skip_instance_cache": True}
    connection.register_filesystem(FsspecStore(protocol, **options))  # type: ignore[call-overload]


def _lock_down(connection: duckdb.DuckDBPyConnection, store: Store, files: Sequence[str]) -> None:
    """Let the connection read the tables' own folders only; no later statement can undo it."""
    folders = sorted({key.rpartition("/")[0] for key in files if not key.startswith("_")})
    own = [sql_literal(store.uri(f"{folder}/")) for folder in folders]
    single = [sql_literal(store.uri(key)) for key in files if key.startswith("_")]
    connection.execute(f"SET allowed_directories = [{', '.join(own)}]")
    connection.execute(f"SET allowed_paths = [{', '.join(single)}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
