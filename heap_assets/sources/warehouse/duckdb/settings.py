"""`kind: duckdb` in the settings."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field

from heap_assets.config import SourceSettings
from heap_assets.sources.warehouse.base import Warehouse


class DuckDBSettings(SourceSettings):
    """A DuckDB file."""

    kind: Literal["duckdb"]
    path: Path = Field(description="The file; relative to the settings file")

    def anchored(self, folder: Path) -> Self:
        return self.model_copy(update={"path": folder / self.path})

    def open(self, section: str) -> Warehouse:
        from heap_assets.sources.warehouse.duckdb.reader import DuckDBWarehouse

        return DuckDBWarehouse(self.path, section=section)
