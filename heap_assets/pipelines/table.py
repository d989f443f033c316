"""A partition about to be built, and one about to be stored."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from heap_assets.project import Project
from heap_assets.storage import FileWriter, Inputs

UNREADABLE = "unreadable"
"""The note of a partition that lacks rows which could not be read: why. Its check `readable` fails."""

VALUES_LOST, VALUES_LOST_IN = "values_lost", "values_lost_in"
"""Notes of a partition some of whose values no type of the lake holds: how many, and by column (docs/values.md)."""


@dataclass(frozen=True)
class Task:
    """Build one day of one table; files below `scratch` live until the partition is stored."""

    project: Project
    day: date
    scratch: Path
    force: bool = False


class Table(Protocol):
    """A partition about to be stored: its rows, what they are a function of, and what to say about them.

    `writer`, if there is one, writes `frame` faster.
    """

    @property
    def frame(self) -> pl.LazyFrame: ...
    @property
    def inputs(self) -> Inputs | None: ...
    @property
    def notes(self) -> Mapping[str, Any]: ...
    @property
    def writer(self) -> FileWriter | None: ...


@dataclass(frozen=True)
class Made:
    """A partition made by a step; `writer`, if there is one, writes `frame` faster."""

    frame: pl.LazyFrame
    inputs: Inputs | None
    notes: Mapping[str, Any] = field(default_factory=dict)
    writer: FileWriter | None = None
