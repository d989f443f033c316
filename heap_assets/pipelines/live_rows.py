"""Rows of a table in memory, found by the people that they name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import polars as pl

from heap_assets.identity import SourceTable, identifier_hashes, row_identifiers
from heap_assets.project import Project

_LEAST_REDUCED: Final = 20_000
_CHUNKS: Final = 64
"""Pieces in which a table lies in memory before they are put together."""


class RowsOfPeople:
    """Rows of a table, found by the identifiers that they name.

    `deciding`: returns those of some rows that are enough; it is asked whenever there are twice as many as after the
    last time.
    """

    def __init__(
        self,
        rows: Iterable[pl.DataFrame],
        table: SourceTable,
        project: Project,
        deciding: Callable[[pl.DataFrame], pl.DataFrame] | None = None,
    ) -> None:
        self.table, self._project, self._deciding = table, project, deciding
        self._enough = _LEAST_REDUCED
        for number, part in enumerate(rows):
            if number == 0:
                self._forget(part.clear())
            self.add(part)

    def _forget(self, rows: pl.DataFrame) -> None:
        self.rows = rows
        self._by_identifier = pl.DataFrame(schema={"row": pl.UInt32, "hash": pl.UInt64})

    def add(self, rows: pl.DataFrame) -> None:
        """Take in more rows."""
        named = row_identifiers(rows.lazy(), self.table, self._project.rules)
        hashes = pl.Series("hash", identifier_hashes(named["identifier_type"], named["identifier"]), pl.UInt64)
        at = named.select((pl.col("row") + self.rows.height).cast(pl.UInt32)).with_columns(hashes)
        self._by_identifier = pl.concat([self._by_identifier, at])
        self.rows = pl.concat([self.rows, rows])
        if self.rows.n_chunks() > _CHUNKS:
            self.rows, self._by_identifier = self.rows.rechunk(), self._by_identifier.rechunk()
        if self._deciding is not None and self.rows.height > 2 * self._enough:
            enough = self._deciding(self.rows)
            self._enough = max(enough.height, _LEAST_REDUCED)
            self._forget(enough.clear())
            self.add(enough)

    def naming(self, hashes: pl.Series) -> pl.DataFrame:
        """Return the rows that name one of these identifiers."""
        at = self._by_identifier.filter(pl.col("hash").is_in(hashes.implode()))["row"].unique().sort()
        return self.rows[at]
