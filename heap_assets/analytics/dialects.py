"""Statements with named parameters, written for DuckDB and translated for other engines by sqlglot.

No value is ever part of a statement's text: `$name` in DuckDB, `@name` in BigQuery.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from heap_assets.errors import SettingsError

if TYPE_CHECKING:
    from sqlglot import exp

Dialect = Literal["lake", "bigquery"]
"""DuckDB's over the views of the lake, or BigQuery's over published tables."""
DIALECTS: tuple[Dialect, ...] = ("lake", "bigquery")


@dataclass(frozen=True)
class Statement:
    """One SELECT.

    Attributes
    ----------
    sql
        For DuckDB.
    parameters
        By name; every one of them is named in `sql`.
    """

    sql: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def text(self, dialect: Dialect = "lake") -> str:
        """Return the statement for an engine, one clause a line."""
        return translated(self.sql, dialect)


def translated(sql: str, dialect: Dialect = "lake") -> str:
    """Translate a statement from DuckDB's dialect, laid out for reading.

    Raises SettingsError: it cannot be parsed; the message names line and column.
    """
    import sqlglot  # takes a quarter of a second, which only those who translate shall wait
    from sqlglot.dialects import BigQuery, DuckDB

    tree = parsed(sql)
    if dialect == "bigquery":
        tree = tree.transform(_for_bigquery)
    text: str = tree.sql(
        dialect=BigQuery if dialect == "bigquery" else DuckDB, pretty=True, unsupported_level=sqlglot.ErrorLevel.RAISE
    )
    return text


def parsed(sql: str) -> exp.Expr:
    """Parse one statement of DuckDB; SettingsError names line and column of a mistake."""
    import sqlglot
    from sqlglot.dialects import DuckDB

    try:
        tree = sqlglot.parse_one(sql, dialect=DuckDB)
    except sqlglot.ParseError as error:
        first = error.errors[0] if error.errors else {}
        place = f"line {first.get('line')}, column {first.get('col')}: " if first else ""
        raise SettingsError(f"{place}{first.get('description') or 'it is no SQL'}") from error
    return tree


def _for_bigquery(node: exp.Expr) -> exp.Expr:
    """Replace what sqlglot leaves as DuckDB has it."""
    from sqlglot import exp

    if isinstance(node, exp.Placeholder | exp.Parameter):
        return exp.Parameter(this=exp.Var(this=node.name))
    if isinstance(node, exp.Anonymous) and node.name.lower() == "epoch_us":
        return exp.Anonymous(this="UNIX_MICROS", expressions=node.expressions)
    if isinstance(node, exp.Anonymous) and node.name.lower() == "make_timestamptz":
        return exp.Anonymous(this="TIMESTAMP_MICROS", expressions=node.expressions)
    if isinstance(node, exp.Cast) and node.to.this in (exp.DataType.Type.TIMESTAMPTZ, exp.DataType.Type.TIMESTAMP):
        return exp.cast(node.this, exp.DataType.Type.TIMESTAMPTZ, copy=False)
    return node
