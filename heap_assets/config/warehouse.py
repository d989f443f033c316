"""What every source of tables and every publish target has; what an engine has besides is in the engine's folder."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, Union

from pydantic import AfterValidator, Field

from heap_assets.config.base import Cron, Owner, Section, TimeZone
from heap_assets.config.heap import IdentifierTypes
from heap_assets.config.sql_location import SqlLocation
from heap_assets.tables import GRAPH, HEAP, PROFILES, RESERVED_SOURCES, UNIFIED_EVENTS, is_source_name

_TABLE = re.compile(r"[A-Za-z0-9_]{1,100}")
"""What Dagster and every file system hold; what a table is called in the warehouse, `relation` says."""


class WarehouseTable(Section):
    """One warehouse table: where it is, its key, and what its columns mean."""

    relation: str = Field(
        description="schema.table; in BigQuery also project.dataset.table, and dataset.events_* for tables by day"
    )
    key: str = Field(description="Column (or path) that is unique in the table")
    created_at: str | None = Field(
        default=None, description="Column that says when the record came to be; never updated_at"
    )
    updated_at: str | None = Field(
        default=None, description="Column that every change sets: for 'newest' traits, and for reading changes only"
    )
    time_zone: TimeZone = Field(
        default="UTC", description="Of the table's times without zone, such as Europe/Berlin; they are kept as UTC"
    )
    full_read_days: int = Field(
        default=7, ge=1, description="With updated_at: how often all rows are read nevertheless; 1 is every time"
    )
    identifiers: dict[str, IdentifierTypes] = Field(
        default={}, description="Column to identifier type, or identifier type to the columns that make it up"
    )
    columns: list[str] | None = Field(
        default=None, description="Columns to keep besides the mapped ones; all by default"
    )
    upstream: list[Annotated[str, Field(min_length=1)]] | None = Field(
        default=None,
        min_length=1,
        description="Asset key of what makes the table, such as [dbt, marts, crm_contacts]: the table is read when "
        "that asset materializes, not by the schedule, and column lineage begins there",
    )
    required: bool = Field(default=True, description="Identity waits for a required table, and carries another forward")
    description: str | None = Field(default=None, description="Description of the asset")
    owner: Owner | None = Field(default=None, description="Owner of the asset; `run.owners` decides unless given")
    cadence_hours: int = Field(default=24, ge=1, description="How often the table is expected to change")


class SourceSettings(Section, ABC):
    """A system that tables are read from: `warehouse:`, or one of `sources:`."""

    kind: str
    tables: dict[str, WarehouseTable] = Field(
        default={}, description="Name of an asset to the table that it is read from"
    )
    datasets: list[str] = Field(
        default=[], description="Datasets or schemas that browsing shows and mappings may name; all unless given"
    )

    schedule: Cron | None = Field(
        default=None, description="When its tables are read, cron in UTC; run.warehouse_schedule unless given"
    )

    def mistake(self, section: str) -> str | None:
        """Return what is wrong with the relations of its tables, None if nothing is.

        Parameters
        ----------
        section
            The key of these settings, for messages.
        """
        own = [self.dataset_shown(dataset) for dataset in self.datasets]
        for name, table in self.tables.items():
            key = f"{section}.tables.{name}"
            if not _TABLE.fullmatch(name):
                return f"{key}: a table's name here is of letters a to z, digits and _, and at most 100 long"
            if "." not in table.relation:
                return f"{key}.relation is {table.relation!r}; expected: schema.table"
            dataset = self.dataset_of(table.relation)
            if own and dataset not in own:
                return (
                    f"{key}.relation is {table.relation!r}, but {dataset} is not among "
                    f"{section}.datasets: {', '.join(self.datasets)}"
                )
        return None

    def dataset_of(self, relation: str) -> str:
        """Return the dataset or schema that a relation lies in."""
        return relation.split(".")[-2]

    def dataset_shown(self, dataset: str) -> str:
        """Return the name of a dataset as :meth:`dataset_of` spells it."""
        return dataset

    def anchored(self, folder: Path) -> Self:
        """Return the settings with the file's relative paths made relative to the file."""
        del folder
        return self

    def hosts(self) -> Iterator[str]:
        """Yield the hosts that reading calls, as `host`, `host:port` or a URL."""
        yield from ()

    @abstractmethod
    def open(self, section: str) -> Any:
        """Return the warehouse (:class:`heap_assets.sources.warehouse.Warehouse`), which connects when it is asked.

        Parameters
        ----------
        section
            The key of these settings, for messages: `warehouse`, `sources.crm`.
        """


DEFAULT_ASSETS = [f"{HEAP}*", GRAPH, PROFILES, "events", f"{UNIFIED_EVENTS}*"]


class TargetSettings(Section, ABC):
    """A place that tables are published to."""

    kind: str
    assets: list[str] = Field(
        default=DEFAULT_ASSETS,
        description="Assets by key, patterns as in a shell: heap/*, warehouse/crm_*, profiles. `events` is the wide "
        "table of all event tables: 17 columns, the rest as JSON",
    )
    exclude: list[str] = Field(default=[], description="Assets that the patterns would take in, and that stay out")
    schedule: Cron | None = Field(
        default=None, description="Cron in UTC at which new days are published, instead of as soon as they are built"
    )
    full: Literal["daily"] | None = Field(
        default=None,
        description="`daily` publishes every table whole, too, as `<table>_full`: all days of events, the newest of a "
        "snapshot, replaced at once",
    )
    full_schedule: Cron = Field(default="0 7 * * *", description="When tables are published whole, cron in UTC")
    resolved_views: str | None = Field(
        default="heap_resolved",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Dataset or schema of the views that give event rows today's user and profile; null for none",
    )

    @property
    @abstractmethod
    def container(self) -> str:
        """The dataset or schema that tables are published to."""

    @property
    @abstractmethod
    def sql_location(self) -> SqlLocation:
        """Where other programs find the tables."""

    def hosts(self) -> Iterator[str]:
        """Yield the hosts that publishing calls, as `host`, `host:port` or a URL."""
        yield from ()

    @abstractmethod
    def open(self, store: Any, section: str) -> Any:
        """Return the publisher (:class:`heap_assets.sources.warehouse.Publisher`), which connects when it is asked.

        Parameters
        ----------
        store
            Of the lake: what was published is remembered there.
        section
            The key of these settings, for messages.
        """


def _is_free(name: str) -> str:
    if not is_source_name(name):
        raise ValueError(
            "a name of lower-case letters, digits and _ that begins with a letter, not with heap or publish__, and is "
            f"none of ours: {', '.join(sorted(RESERVED_SOURCES))}"
        )
    return name


SourceName = Annotated[str, AfterValidator(_is_free)]
"""What a source is called: `<name>/<table>` are its assets."""
TargetName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
"""What a target is called: `publish/<name>/<table>` are its assets."""


def one_of(models: Sequence[type[Section]]) -> Any:
    """Return the type of a section that is of one of several kinds, told by its key `kind`."""
    members: Any = tuple(models)
    return Annotated[Union[members], Field(discriminator="kind")]  # noqa: UP007  built of a list
