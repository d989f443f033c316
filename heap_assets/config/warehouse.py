"""The `warehouse:` and `publish:` sections: what is read, and what is written to a warehouse."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self
from zoneinfo import available_timezones

from pydantic import Field, SecretStr, field_validator, model_validator

from heap_assets.config.base import Section
from heap_assets.config.heap import IdentifierTypes
from heap_assets.tables import GRAPH, HEAP, PROFILES


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
    time_zone: str = Field(
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
    required: bool = Field(default=True, description="Identity waits for a required table, and carries another forward")
    description: str | None = None
    owner: str | None = None
    cadence_hours: int = Field(default=24, ge=1, description="How often the table is expected to change")

    @field_validator("time_zone")
    @classmethod
    def _is_a_zone(cls, value: str) -> str:
        if value not in available_timezones():
            raise ValueError("a name of the time zone database, such as UTC or America/New_York")
        return value

    @field_validator("relation")
    @classmethod
    def _is_qualified(cls, value: str) -> str:
        if "." not in value:
            raise ValueError("schema.table")
        return value


class _Common(Section):
    tables: dict[str, WarehouseTable] = {}
    datasets: list[str] = Field(
        default=[], description="Datasets or schemas that browsing shows and mappings may name; all unless given"
    )

    @model_validator(mode="after")
    def _relations_are_in_datasets(self) -> Self:
        own = [self._shown(dataset) for dataset in self.datasets]
        for name, table in self.tables.items():
            dataset = self._dataset_of(table.relation)
            if own and dataset not in own:
                raise ValueError(
                    f"warehouse.tables.{name}.relation is {table.relation!r}, but {dataset} is not among "
                    f"warehouse.datasets: {', '.join(self.datasets)}"
                )
        return self

    def _dataset_of(self, relation: str) -> str:
        return relation.split(".")[-2]

    def _shown(self, dataset: str) -> str:
        return dataset


class DuckDBWarehouse(_Common):
    """A DuckDB file."""

    kind: Literal["duckdb"]
    path: Path


class PostgresWarehouse(_Common):
    """PostgreSQL or Redshift."""

    kind: Literal["postgres"]
    dsn: SecretStr = Field(description="postgresql://user:password@host/database, as ${WAREHOUSE_DSN}")


class BigQueryWarehouse(_Common):
    """BigQuery."""

    kind: Literal["bigquery"]
    project: str
    location: str | None = None
    credentials: SecretStr | None = Field(default=None, description="Path of a key file or its JSON; else the default")
    max_bytes_billed: int | None = Field(default=None, ge=1)
    endpoint: str | None = Field(default=None, description="Of an emulator, as http://host:port")
    storage_endpoint: str | None = Field(default=None, description="Of an emulator's Storage API, as host:port")

    def _dataset_of(self, relation: str) -> str:
        return self._shown(relation.rpartition(".")[0])

    def _shown(self, dataset: str) -> str:
        """The project is part of a dataset's name, unless it is the warehouse's own."""
        return dataset.removeprefix(f"{self.project}.")


WarehouseSettings = Annotated[DuckDBWarehouse | PostgresWarehouse | BigQueryWarehouse, Field(discriminator="kind")]


DEFAULT_ASSETS = [f"{HEAP}*", GRAPH, PROFILES, "events"]


class _Target(Section):
    assets: list[str] = Field(
        default=DEFAULT_ASSETS,
        description="Assets by key, patterns as in a shell: heap/*, warehouse/crm_*, profiles. `events` is the wide "
        "table of all event tables: 17 columns, the rest as JSON",
    )
    exclude: list[str] = Field(default=[], description="Assets that the patterns would take in, and that stay out")
    resolved_views: str | None = Field(
        default="heap_resolved",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Dataset or schema of the views that give event rows today's user and profile; null for none",
    )


class BigQueryTarget(_Target):
    """A dataset in BigQuery."""

    kind: Literal["bigquery"]
    project: str
    dataset: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="Must exist")
    location: str | None = None
    credentials: SecretStr | None = Field(default=None, description="Path of a key file or its JSON; else the default")
    staging: str | None = Field(
        default=None, description="gs://bucket/prefix that files go through; else they are sent by the run itself"
    )
    staging_options: dict[str, str] = Field(default={}, description="Options of that bucket, as for the lake")
    endpoint: str | None = Field(default=None, description="Of an emulator, as http://host:port")

    @field_validator("staging")
    @classmethod
    def _is_on_gcs(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith("gs://"):
            raise ValueError("gs://bucket/prefix: BigQuery loads from Google's storage only")
        return value


class PostgresTarget(_Target):
    """A schema in PostgreSQL."""

    kind: Literal["postgres"]
    dsn: SecretStr = Field(description="postgresql://user:password@host/database, as ${PUBLISH_DSN}")
    schema_name: str = Field(
        alias="schema",
        default="heap_assets",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Is made if it is missing",
    )


PublishTarget = Annotated[BigQueryTarget | PostgresTarget, Field(discriminator="kind")]
TargetName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
"""What a target is called: `publish/<name>/<table>` are its assets."""
