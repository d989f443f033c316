"""Statements of users over the lake's views: which tables they read, and the same over days up to one."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from heap_assets.analytics.dialects import parsed
from heap_assets.errors import SettingsError, did_you_mean

SqlTables = Mapping[tuple[str, str], str]
"""Schema and name of a view to its asset."""


def columns_read(
    sql: str, tables: SqlTables, columns: Mapping[str, Collection[str]]
) -> dict[str, list[tuple[str, str]]]:
    """Return for each column of a statement's result the (asset, column) pairs that it is computed from.

    Parameters
    ----------
    sql
        As :func:`with_tables` accepts it.
    columns
        Asset to the columns that it has, of all that the statement reads.

    What sqlglot cannot trace is left out: a column of a statement that it does not understand has no pairs.
    """
    from sqlglot import exp
    from sqlglot.dialects import DuckDB
    from sqlglot.errors import SqlglotError
    from sqlglot.lineage import lineage

    tree = parsed(sql)
    own_names = {cte.alias_or_name for cte in tree.find_all(exp.CTE)}
    schema: dict[str, dict[str, dict[str, str]]] = {}
    for node in tree.find_all(exp.Table):
        if not node.db and node.name in own_names:
            continue
        name = (node.db or "main", node.name)
        if asset := tables.get(name):
            node.set("db", exp.to_identifier(name[0]))
            schema.setdefault(name[0], {})[name[1]] = dict.fromkeys(columns.get(asset, ()), "VARCHAR")
    try:
        traced = lineage(None, tree, schema, dialect=DuckDB)
    except SqlglotError:
        return {}
    read: dict[str, list[tuple[str, str]]] = {}
    for column, root in traced.items():
        pairs: dict[tuple[str, str], None] = {}
        for step in root.walk():
            source, leaf = step.expression, step.name.rpartition(".")[2].strip('"')
            if isinstance(source, exp.Table) and (asset := tables.get((source.db, source.name))) and leaf != "*":
                pairs[asset, leaf] = None
        read[column] = list(pairs)
    return read


def with_tables(
    sql: str,
    tables: SqlTables,
    days: Mapping[str, tuple[str, str]],
    where: str,
    snapshots: Collection[str] = (),
) -> tuple[str, list[str]]:
    """Return a statement that reads only days from the first to the last of each asset, and the assets that it reads.

    `snapshots`: assets that hold how things stood: their `partition_key` is left out.

    Raises SettingsError: it is no SELECT, or names a table that there is not; the message names the line.
    """
    from sqlglot import exp
    from sqlglot.dialects import DuckDB

    try:
        tree = parsed(sql)
    except SettingsError as error:
        raise SettingsError(f"{where}: {error}") from error
    if not isinstance(tree, exp.Select | exp.SetOperation):
        raise SettingsError(f"{where}: expected one SELECT")
    own_names = {cte.alias_or_name for cte in tree.find_all(exp.CTE)}
    read: dict[str, None] = {}
    for node in list(tree.find_all(exp.Table)):
        if not node.db and node.name in own_names:
            continue
        name = (node.db or "main", node.name)
        if name not in tables:
            views = [".".join(view) for view in tables]
            line = node.this.meta.get("line") if isinstance(node.this, exp.Identifier) else None
            place = f", line {line}" if line else ""
            hint = did_you_mean(".".join(name), views)
            raise SettingsError(f"{where}{place}: there is no table {'.'.join(name)}.{hint}")
        asset = tables[name]
        read[asset] = None
        if asset in days:
            first, last = days[asset]
            view = exp.Table(this=exp.to_identifier(name[1], quoted=True), db=exp.to_identifier(name[0], quoted=True))
            within = exp.column("partition_key").between(exp.Literal.string(first), exp.Literal.string(last))
            alias = node.alias_or_name
            own_day = [exp.to_identifier("partition_key")] if asset in snapshots else None
            node.replace(exp.select(exp.Star(except_=own_day)).from_(view).where(within).subquery(alias))
    text: str = tree.sql(dialect=DuckDB)
    return text, list(read)
