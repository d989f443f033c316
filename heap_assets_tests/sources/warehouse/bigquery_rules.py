"""What BigQuery refuses and its emulator accepts: every statement of ours is held to these rules.

sqlglot says whether a statement is BigQuery's dialect at all. The rules are those that we came across, or that Google's
documents state; they are no judge of types that depend on a table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import sqlglot
from sqlglot import exp

_RESERVED_PREFIXES = ("_TABLE_", "_FILE_", "_PARTITION", "_ROW_TIMESTAMP", "__ROOT__", "_COLIDENTIFIER", "_CHANGE_")
_DUCKDB_ONLY = frozenset(
    {"LIST", "STRUCT_PACK", "LIST_AGGREGATE", "REGEXP_MATCHES", "STRFTIME", "EPOCH_MS", "HASH", "UNNEST_ALIAS"}
)


def refusals(statement: str) -> list[str]:
    """Return why BigQuery would refuse a statement; empty if nothing is known against it."""
    try:
        parsed = sqlglot.parse(statement, dialect="bigquery")
    except sqlglot.ParseError as error:
        return [f"is not BigQuery's dialect: {error.errors[0]['description'] if error.errors else error}"]
    found = [reason for tree in parsed if tree is not None for reason in _judged(tree)]
    if re.search(r"::\s*[A-Za-z]", re.sub(r"'[^']*'", "''", statement)):
        found.append("casts with ::, which BigQuery does not have")
    return found


def _judged(tree: exp.Expression) -> Iterator[str]:
    for comparison in tree.find_all(exp.GT, exp.GTE, exp.LT, exp.LTE, exp.EQ, exp.NEQ):
        kinds = {_literal_kind(side) for side in (comparison.left, comparison.right)} - {None}
        if len(kinds) > 1:
            yield f"compares {' with '.join(sorted(str(k) for k in kinds))}"
    for grouping in tree.find_all(exp.Group):
        if any("properties" in column.name for column in grouping.find_all(exp.Column)):
            yield "groups by JSON"
    for statement in (tree, *tree.find_all(exp.Delete, exp.Update)):
        if isinstance(statement, exp.Delete | exp.Update) and statement.args.get("where") is None:
            yield "DELETE or UPDATE without WHERE"
    for table in tree.find_all(exp.Table):
        if table.name.isidentifier() is False and "$" in table.name:
            yield "a partition's address in SQL"
    for function in tree.find_all(exp.Anonymous):
        if str(function.this).upper() in _DUCKDB_ONLY:
            yield f"calls {function.this}, which is DuckDB's"
    for definition in tree.find_all(exp.ColumnDef):
        if definition.name.upper().startswith(_RESERVED_PREFIXES):
            yield f"a column called {definition.name}"
    for merge in tree.find_all(exp.Merge):
        for when in merge.find_all(exp.When):
            if isinstance(when.args.get("then"), exp.Insert) and when.args.get("source"):
                yield "INSERT for rows not matched by source"


def _literal_kind(side: exp.Expression) -> str | None:
    """The type of a typed literal or a cast of one: DATE '…' against TIMESTAMP '…' is refused."""
    cast = side if isinstance(side, exp.Cast) else None
    return None if cast is None else str(cast.to.this.name if hasattr(cast.to.this, "name") else cast.to)
