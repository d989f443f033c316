"""The `functions:` section: users' JavaScript files, and what they are attached to."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from heap_assets.config.base import Section
from heap_assets.tables import INBOX

ColumnType = Literal["text", "integer", "number", "boolean", "time", "date"]


class FunctionLimits(Section):
    """What a function may use up."""

    memory_mb: int = Field(default=64, ge=8, le=2048, description="Memory of JavaScript in one process")
    seconds: float = Field(default=1.0, gt=0, le=600, description="Processor time of one row")
    wall_seconds: float = Field(
        default=10.0, gt=0, le=3600, description="Time after which a process that does not answer is ended"
    )
    output_mb: int = Field(default=16, ge=1, le=512, description="Results of one batch")
    row_kb: int = Field(default=1024, ge=1, description="Result of one row")
    batch_rows: int = Field(default=1000, ge=1, le=100_000, description="Rows that share one context")


class FunctionSettings(FunctionLimits):
    """A file with `export default function`, and the columns that it adds."""

    file: str = Field(description="File in the folder of functions, such as clean.js")
    columns: dict[str, ColumnType] = Field(
        default={}, description="Columns that the function adds; others that it returns are left out and reported"
    )

    @field_validator("columns")
    @classmethod
    def _names_are_ours(cls, value: dict[str, ColumnType]) -> dict[str, ColumnType]:
        for name in value:
            if not name or name.strip() != name or not name.isprintable():
                raise ValueError(f"a name of a column; {name!r} is none")
        return value


class EnrichSettings(FunctionSettings):
    """A file with `export default function`, and the columns of profiles that it makes."""

    columns: dict[str, ColumnType] = Field(
        min_length=1, description="Columns of profiles that the function makes, each with its type"
    )


class FunctionsSettings(Section):
    """JavaScript functions."""

    folder: Path = Field(default=Path("functions"), description="Folder of the files; relative to the settings file")
    transform: dict[str, FunctionSettings] = Field(
        default={},
        description="Event table pattern (inbox/track and the like for tables of the inbox) to the function that "
        "changes, drops or splits its rows when a day is built",
    )
    enrich: dict[str, EnrichSettings] = Field(
        default={}, description="Name to the function that makes further columns of each profile, in this order"
    )

    def patterns_of(self, table: str) -> list[str]:
        """Return the patterns of `transform` that match an event table, or a table of the inbox by its asset."""
        return [
            pattern
            for pattern in self.transform
            if fnmatchcase(table, pattern) and pattern.startswith(INBOX) == table.startswith(INBOX)
        ]

    @property
    def profile_columns(self) -> list[str]:
        """Columns of `profiles` that functions make."""
        return [name for function in self.enrich.values() for name in function.columns]
