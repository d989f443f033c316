"""A connector's system as a source of tables."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from datetime import datetime

import polars as pl

from heap_assets.config import SourceSettings
from heap_assets.sources.warehouse import RowsWarehouse, Warehouse


class ReadSettings(SourceSettings, ABC):
    """A connector's system as a source of tables: a section of `sources:`, whose kind is the connector's.

    A subclass in the connector's file, named as its `source_model`, has `kind`, what it needs to connect, the two
    methods, and `hosts` for deployments that say which hosts may be called. Tables are related to as `<kind>.<table>`.
    With `key` and `updated_at` only what changed is read, from an hour before the newest `updated_at` that is known,
    and everything each `full_read_days`; else everything each time.
    """

    @abstractmethod
    def schemas(self) -> Mapping[str, pl.Schema]:
        """Return the columns of each table."""

    @abstractmethod
    def read(self, table: str, since: datetime | None) -> Iterable[pl.DataFrame]:
        """Yield the rows of a table, in frames that fit into memory.

        Parameters
        ----------
        since
            Only rows that changed at or after it (UTC); None for all.

        Raises
        ------
        SourceError
            If they cannot be read.
        """

    def open(self, section: str) -> Warehouse:
        del section
        return RowsWarehouse(self.kind, self.schemas, self.read)
