"""The SQL door: all assets of a lake as DuckDB views, for Python and for BI tools; nothing can be written through it.

    from heap_assets.lake.sql import SqlDoor
    SqlDoor("data/lake").sql("SELECT * FROM heap.pageviews LIMIT 5")

Each asset is a view named after its key, `heap/events/signup` as `heap.events_signup`, over all its partitions with
the partition's key as column `partition_key`. `latest.heap_users` (group and name) holds the newest partition only,
which is what a snapshot table means by now. `resolved.events_signup` adds today's user and profile to an event table.
`sync.runs`, `sync.changelog`, `sync.set_aside` and `sync.ledger_<sync>` tell what was sent, what was not, and why.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from heap_assets.errors import HeapAssetsError, SettingsError
from heap_assets.lake.store import Store

_SUFFIX = ".parquet"
_SYNCS = "_sync"
_SYNC_TABLES = ("runs", "changelog", "set_aside")
_READING = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)


class SqlError(HeapAssetsError):
    """A statement that the lake cannot answer, with DuckDB's reason."""


class SqlDoor:
    """A lake open for SELECT statements, until :meth:`close`.

    Parameters
    ----------
    url, options
        Of the lake, as its settings spell them: a folder, `s3://…` or `gs://…`.
    assets
        Asset keys to show; empty means all.

    Raises
    ------
    SettingsError
        If there is no asset to show.
    """

    def __init__(self, url: str, options: Mapping[str, str] | None = None, *, assets: Sequence[str] = ()) -> None:
        store = Store(url, options)
        self._connection = duckdb.connect(config={"autoinstall_known_extensions": "false"})
        self._connection.execute("SET enable_progress_bar = false; SET TimeZone = 'UTC'")
        if not store.is_local:
            _open_remote(self._connection, store)
        _create_all(self._connection, store, assets)
        _close_doors(self._connection, store)

    def tables(self) -> list[str]:
        """Return the views as `schema.name`."""
        rows = self._connection.execute(
            "SELECT schema_name || '.' || view_name FROM duckdb_views() WHERE NOT internal ORDER BY 1"
        ).fetchall()
        return [name for (name,) in rows]

    def sql(self, statement: str) -> pl.DataFrame:
        """Answer one SELECT.

        Raises
        ------
        SqlError
            If it is no SELECT, or DuckDB refuses it.
        """
        try:
            statements = self._connection.extract_statements(statement)
            if len(statements) != 1 or statements[0].type not in _READING:
                raise SqlError("the lake answers one SELECT at a time and takes nothing else: it is read-only")
            answer: pl.DataFrame = self._connection.sql(statement).pl()
        except duckdb.Error as error:
            raise SqlError(str(error).partition("\n\nLINE")[0]) from error
        return answer

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> SqlDoor:
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
    with _replaced(path) as staging, duckdb.connect(str(staging)) as connection:
        _create_all(connection, store, ())


@contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    staging = path.with_name(f".tmp-{path.name}")
    staging.unlink(missing_ok=True)
    try:
        yield staging
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)


def _create_all(connection: duckdb.DuckDBPyConnection, store: Store, assets: Sequence[str]) -> None:
    partitions = _partitions(store, assets)
    if not partitions:
        raise SettingsError(f"{store.url} holds no asset{' called ' + ', '.join(assets) if assets else ''} yet")
    for asset, keys in sorted(partitions.items()):
        schema, name = view_name(asset)
        _create_view(connection, store, asset, sorted(keys), schema, name)
        _create_view(connection, store, asset, [max(keys)], "latest", name if schema == "main" else f"{schema}_{name}")
    _create_resolved(connection, [asset for asset in partitions if _is_event_table(asset)], set(partitions))
    if not assets:
        _create_syncs(connection, store)


def view_name(asset: str) -> tuple[str, str]:
    """Return schema and name of an asset's view: `identity/graph` is `identity.graph`, `profiles` `main.profiles`."""
    group, _, rest = asset.partition("/")
    return (group, re.sub(r"\W", "_", rest)) if rest else ("main", group)


def _partitions(store: Store, assets: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for info in store.list():
        asset, _, name = info.key.rpartition("/")
        if not name.endswith(_SUFFIX) or not asset or asset.startswith("_") or "/." in asset:
            continue  # what begins with an underscore is the platform's own; an event table of Heap's may do so, too
        if not assets or asset in assets:
            found.setdefault(asset, []).append(name.removesuffix(_SUFFIX))
    return found


def _create_view(
    connection: duckdb.DuckDBPyConnection, store: Store, asset: str, keys: Sequence[str], schema: str, name: str
) -> None:
    uris = ", ".join(_literal(store.uri(f"{asset}/{key}{_SUFFIX}")) for key in keys)
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {_identifier(schema)}")
    connection.execute(
        f"CREATE VIEW {_identifier(schema)}.{_identifier(name)} AS "
        "SELECT * EXCLUDE (filename), parse_filename(filename, true) AS partition_key "
        f"FROM read_parquet([{uris}], union_by_name = true, filename = true, hive_partitioning = false)"
    )


def _is_event_table(asset: str) -> bool:
    return asset in ("heap/pageviews", "heap/sessions") or asset.startswith("heap/events/")


def _create_resolved(connection: duckdb.DuckDBPyConnection, events: Sequence[str], known: set[str]) -> None:
    """Event rows with today's user and profile; only once both are known."""
    if not {"heap/user_migrations", "identity/graph"} <= known:
        return
    connection.execute("CREATE SCHEMA resolved")
    for asset in events:
        schema, name = view_name(asset)
        source = f"{_identifier(schema)}.{_identifier(name)}"
        connection.execute(
            f"""
            CREATE VIEW resolved.{_identifier(name)} AS
            SELECT e.*, coalesce(m.resolved_to, e.user_id) AS resolved_user_id, g.profile_id
            FROM {source} AS e
            LEFT JOIN latest.heap_user_migrations AS m ON m.from_user_id = e.user_id
            LEFT JOIN latest.identity_graph AS g ON g.identifier_type = 'heap_user_id'
                AND g.identifier = CAST(coalesce(m.resolved_to, e.user_id) AS VARCHAR)
            """
        )


def _create_syncs(connection: duckdb.DuckDBPyConnection, store: Store) -> None:
    """What syncs have done: `sync.runs`, `sync.changelog`, `sync.set_aside`, and a ledger for each."""
    found: dict[str, list[str]] = {}
    for info in store.list(_SYNCS):
        sync, _, path = info.key.removeprefix(f"{_SYNCS}/").partition("/")
        table = path.partition("/")[0]
        if table in _SYNC_TABLES and path.endswith(_SUFFIX):
            found.setdefault(table, []).append(info.key)
        elif path == f"ledger{_SUFFIX}":
            found[f"ledger_{re.sub(r'[^A-Za-z0-9_]', '_', sync)}"] = [info.key]
    if found:
        connection.execute("CREATE SCHEMA IF NOT EXISTS sync")
    for name, keys in sorted(found.items()):
        uris = ", ".join(_literal(store.uri(key)) for key in sorted(keys))
        connection.execute(
            f"CREATE VIEW sync.{_identifier(name)} AS SELECT * "
            f"FROM read_parquet([{uris}], union_by_name = true, hive_partitioning = false)"
        )


def _open_remote(connection: duckdb.DuckDBPyConnection, store: Store) -> None:
    """Let DuckDB read through the client that writes the lake: the same credentials, and no extension to install."""
    from obstore.fsspec import FsspecStore

    protocol = store.url.partition("://")[0]
    # every file system is a kind of its own there: a cached one would answer with another lake's credentials
    options: dict[str, Any] = {**store.object_store_options, "skip_instance_cache": True}
    connection.register_filesystem(FsspecStore(protocol, **options))  # type: ignore[call-overload]


def _close_doors(connection: duckdb.DuckDBPyConnection, store: Store) -> None:
    """From here on nothing but the lake can be read, and nobody can undo that."""
    root = store.url + "/" if not store.is_local else str(Path(store.url)) + "/"
    connection.execute(f"SET allowed_directories = [{_literal(root)}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
