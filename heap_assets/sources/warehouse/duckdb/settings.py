"""`kind: duckdb` in the settings."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from heap_assets.config import SourceSettings
from heap_assets.sources.warehouse.base import Warehouse


class DuckDBSettings(SourceSettings):
    """A DuckDB file."""

    kind: Literal["duckdb"]
    path: Path

    def anchored(self, folder: Path) -> Self:
        return self.model_copy(update={"path": folder / self.path})

    def open(self, section: str) -> Warehouse:
        from heap_assets.sources.warehouse.duckdb.reader import DuckDBWarehouse

        return DuckDBWarehouse(self.path, section=section)
