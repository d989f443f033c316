"""The SQL in files for BI tools, written in the dialect of the target by sqlglot: no name is pasted into text."""

from __future__ import annotations

from sqlglot import exp

from heap_assets.bi.layer import DAY, Layer, Table


def relation(layer: Layer, table: Table) -> str:
    """Return the quoted name of a table, with its schema (and database where the engine wants one)."""
    return str(_table(layer, table).sql(dialect=layer.location.dialect))


def quoted(layer: Layer, column: str) -> str:
    """Return the quoted name of a column."""
    return str(exp.to_identifier(column, quoted=True).sql(dialect=layer.location.dialect))


def as_text(layer: Layer, expression: str) -> str:
    """Return a cast of SQL text to the engine's text type."""
    text = exp.DataType.build("text").sql(dialect=layer.location.dialect)
    return f"CAST({expression} AS {text})"


def newest_day(layer: Layer, table: Table) -> str:
    """Write the query of a snapshot table's newest day.

    The day is looked up by the engine: on BigQuery a read of the partitions' first column.
    """
    return str(_newest(layer, table).sql(dialect=layer.location.dialect, pretty=True))


def newest_view(layer: Layer, table: Table) -> str:
    """Write the statement of a view of a snapshot table's newest day, :func:`newest_view_name` beside its table."""
    view = exp.Create(
        this=_named(layer, newest_view_name(layer, table), table.schema),
        kind="VIEW",
        replace=True,
        expression=_newest(layer, table),
    )
    return f"{view.sql(dialect=layer.location.dialect, pretty=True)};\n"


def newest_view_name(layer: Layer, table: Table) -> str:
    """Return what the view of the newest day is called."""
    return layer.location.spelled(f"latest_{table.name}")


def joined(layer: Layer, table: Table) -> tuple[str, dict[str, tuple[str, str]]]:
    """Write the query of an event table with the newest rows that belong to its rows.

    Returns
    -------
    tuple
        The query, and what it calls each column of a joined table: `<table>__<column>` to table and column.
    """
    query = exp.select(*(_column("e", column.name) for column in table.columns)).from_(_table(layer, table).as_("e"))
    names: dict[str, tuple[str, str]] = {}
    for number, join in enumerate(layer.joins_of(table)):
        right, alias = layer.table(join.right), f"j{number}"
        for column in right.columns:
            name = layer.location.spelled(f"{right.name}__{column.name}")
            names[name] = (right.name, column.name)
            query = query.select(_column(alias, column.name).as_(name, quoted=True))
        rows = _newest(layer, right).subquery(alias) if right.newest else _table(layer, right).as_(alias)
        condition = exp.and_(*(_column("e", one).eq(_column(alias, other)) for one, other in join.on))
        query = query.join(rows, on=condition, join_type="left")
    return query.sql(dialect=layer.location.dialect, pretty=True), names


def _newest(layer: Layer, table: Table) -> exp.Select:
    day = exp.column(layer.location.spelled(DAY), quoted=True)
    newest = exp.select(exp.Max(this=day)).from_(_table(layer, table)).subquery()
    return exp.select("*").from_(_table(layer, table)).where(day.copy().eq(newest))


def _table(layer: Layer, table: Table) -> exp.Table:
    return _named(layer, table.name, table.schema)


def _named(layer: Layer, name: str, schema: str) -> exp.Table:
    database = layer.location.database if layer.location.qualifies else None
    return exp.table_(name, db=schema, catalog=database, quoted=True)


def _column(table: str, name: str) -> exp.Column:
    return exp.column(name, table=table, quoted=True)
