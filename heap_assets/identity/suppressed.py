"""Rows that name a suppressed person, by any identifier that the table maps."""

from __future__ import annotations

import polars as pl

from heap_assets.identity.extract import MappedColumn
from heap_assets.identity.normalise import suppressed_values
from heap_assets.identity.rules import Rules, SourceTable


def without_suppressed(rows: pl.LazyFrame, table: SourceTable, rules: Rules) -> pl.LazyFrame:
    """Return the rows that name no suppressed person; values are read exactly as `extract` reads them."""
    return _rows(rows, table, rules, keep=False)


def only_suppressed(rows: pl.LazyFrame, table: SourceTable, rules: Rules) -> pl.LazyFrame:
    """Return the rows that name a suppressed person."""
    return _rows(rows, table, rules, keep=True)


def _rows(rows: pl.LazyFrame, table: SourceTable, rules: Rules, *, keep: bool) -> pl.LazyFrame:
    types = {name for name, _ in rules.suppressed}
    mappings = [mapping for mapping in table.mappings if mapping.type in types]
    if not mappings:
        return rows.clear() if keep else rows
    schema = rows.collect_schema()
    columns = [MappedColumn.of(mapping, number, table, rules, schema) for number, mapping in enumerate(mappings)]
    named = pl.any_horizontal(_names(column, rules).fill_null(value=False) for column in columns)
    return rows.with_columns(column.raw for column in columns).filter(named if keep else ~named).select(*schema)


def _names(column: MappedColumn, rules: Rules) -> pl.Expr:
    found = column.value.is_in(sorted(suppressed_values(rules, column.type)))
    return pl.col(column.name).list.eval(found).list.any() if column.many else found
