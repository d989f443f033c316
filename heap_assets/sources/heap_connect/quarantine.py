"""What landing could not take and keeps for people to look at: files in quarantine, and rows set aside."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from heap_assets.sources.heap_connect.landing import Landing

ROWS_SCHEMA = pl.Schema(
    {
        "table": pl.String(),
        "dump_id": pl.Int64(),
        "file": pl.String(),
        "row": pl.Int64(),
        "reason": pl.String(),
        "content": pl.String(),
    }
)
FILES_SCHEMA = pl.Schema(
    {
        "table": pl.String(),
        "dump_id": pl.Int64(),
        "file": pl.String(),
        "block": pl.Int64(),
        "reason": pl.String(),
        "attempts": pl.Int64(),
        "retry_at": pl.Datetime("us", "UTC"),
    }
)


def rows_set_aside(landing: Landing, table: str | None = None) -> pl.DataFrame:
    """Return rows with an id or a time that cannot be read, of one table or all: :data:`ROWS_SCHEMA`.

    `row` counts from 0 in its file; `content` is the row as JSON and holds personal data.
    """
    found = [pl.DataFrame(schema=ROWS_SCHEMA)]
    for dump, name, key in _keys(landing, table):
        rows = landing.store.scan(key).collect()
        found.append(rows.select(table=pl.lit(name), dump_id=pl.lit(dump, pl.Int64), **_kept(rows)))
    return pl.concat(found)


def files_in_quarantine(landing: Landing, table: str | None = None) -> pl.DataFrame:
    """Return the files that could not be read and are tried again, of one table or all: :data:`FILES_SCHEMA`."""
    failed = landing.reports().filter(pl.col("error").is_not_null())
    chosen = failed if table is None else failed.filter(pl.col("table") == table)
    return chosen.rename({"error_file": "file", "error_block": "block", "error": "reason"}).select(*FILES_SCHEMA)


def _keys(landing: Landing, table: str | None) -> Iterator[tuple[int, str, str]]:
    for record in landing.records().values():
        for name, known in record.tables.items():
            if table in (None, name):
                yield from ((record.dump_id, name, key) for key in known.rejected_keys)


def _kept(rows: pl.DataFrame) -> dict[str, pl.Expr]:
    return {name: pl.col(name).cast(dtype) for name, dtype in ROWS_SCHEMA.items() if name in rows.columns}
