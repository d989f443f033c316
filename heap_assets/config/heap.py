"""The `heap:` section: which Heap environment, where its export lies, which tables are taken."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from heap_assets.config.base import Section, TimeZone
from heap_assets.tables import SNAPSHOT_TABLES, WAREHOUSE_SOURCE

IdentifierTypes = str | list[str]
"""One identifier type, several, or (under an identifier type's own name) the columns that make up one composite."""


_TIME_OF_DAY = re.compile(r"([01]\d|2[0-3]):[0-5]\d")
_DAY_HOURS = 24


class Region(StrEnum):
    """Heap's data centre; decides the host that syncs post to (heap.md 1.1)."""

    US = "us"
    EU = "eu"


GOOGLE_STORAGE = ("storage.googleapis.com", "oauth2.googleapis.com")


def bigquery_hosts(endpoint: str | None) -> tuple[str, ...]:
    """Return the hosts of BigQuery, or the URL of its emulator."""
    google = ("bigquery.googleapis.com", "bigquerystorage.googleapis.com", "oauth2.googleapis.com")
    return google if endpoint is None else (endpoint,)


class FolderSource(Section):
    """A folder laid out like the bucket: `manifests/` beside `sync_<dump id>/`."""

    kind: Literal["folder"]
    path: Path = Field(description="The folder; relative to the settings file")

    def hosts(self) -> Iterator[str]:
        """Yield no host: a folder is on this machine."""
        yield from ()


class S3Source(Section):
    """Heap Connect's bucket. Keys come from the environment, a profile, or a role that is assumed."""

    kind: Literal["s3"]
    bucket: str = Field(description="Bucket name only, such as heap-rs3-acme")
    region: str = Field(default="us-east-1", description="AWS region of the bucket")
    profile: str | None = Field(default=None, description="Named profile of the AWS configuration files")
    role_arn: str | None = Field(default=None, description="Role that is assumed for reading")
    external_id: SecretStr | None = Field(default=None, description="External id with which the role is assumed")
    endpoint_url: str | None = Field(default=None, description="For S3-compatible stores and tests")

    def hosts(self) -> Iterator[str]:
        """Yield the URL of a store that is not Amazon's."""
        yield from (self.endpoint_url,) if self.endpoint_url else ()


_IDS = ("event_id", "user_id", "session_id", "from_user_id", "to_user_id")


class FileTable(Section):
    """Files of one table: of an event, of `users` or of `user_migrations`."""

    files: str = Field(description="Pattern of their paths below `path` or the bucket: signups/*.csv")
    format: Literal["avro", "parquet", "jsonl", "csv"] | None = Field(
        default=None, description="By the files' ending unless given; .gz is seen by itself"
    )
    columns: dict[str, str | Annotated[list[str], Field(min_length=2)]] = Field(
        default={},
        description="Heap's column to the files' own: {user_id: uid, time: ts}. Several columns in a list make an id "
        "by a hash, as those of `hashed` do",
    )
    hashed: list[str] = Field(
        default=[],
        description="Id columns whose texts (UUIDs, e-mails) become numbers, by the same hash each time",
    )
    types: dict[str, Literal["text", "integer", "number", "boolean", "time", "date"]] = Field(
        default={}, description="Heap's column to its type; a value that is none is null, and counted"
    )
    event_column: str | None = Field(
        default=None, description="The files' column that names the event, where files hold several: a table for each"
    )
    full: bool | None = Field(
        default=None,
        description="Whether a file holds all rows there are, and replaces those of earlier ones; so of "
        "user_migrations unless given",
    )


class FilesSource(Section):
    """Files that no Heap Connect wrote, in a folder or a bucket: Avro, Parquet, JSON lines or CSV."""

    kind: Literal["files"]
    path: Path | None = Field(default=None, description="The folder; relative to the settings file")
    bucket: str | None = Field(default=None, description="In place of a folder: bucket name only")
    prefix: str = Field(default="", description="Folder of the bucket below which the files lie")
    region: str = Field(default="us-east-1", description="AWS region of the bucket")
    profile: str | None = Field(default=None, description="Named profile of the AWS configuration files")
    role_arn: str | None = Field(default=None, description="Role that is assumed for reading")
    external_id: SecretStr | None = Field(default=None, description="External id with which the role is assumed")
    endpoint_url: str | None = Field(default=None, description="For S3-compatible stores and tests")
    tables: dict[str, FileTable] = Field(
        min_length=1,
        description="Table to its files: an event, users, user_migrations; with event_column any name. A file belongs "
        "to the first whose pattern it matches",
    )

    @model_validator(mode="after")
    def _is_in_one_place(self) -> FilesSource:
        if (self.path is None) == (self.bucket is None):
            raise ValueError("one of path (a folder) and bucket")
        for name, table in self.tables.items():
            if table.event_column and name in SNAPSHOT_TABLES:
                raise ValueError(f"tables.{name} has no events: event_column belongs to another table")
            if beyond := sorted(set(table.hashed) - set(_IDS)):
                raise ValueError(f"tables.{name}.hashed names {beyond[0]!r}; expected: {', '.join(_IDS)}")
        return self

    def hosts(self) -> Iterator[str]:
        """Yield the URL of a store that is not Amazon's."""
        yield from (self.endpoint_url,) if self.endpoint_url else ()


class ExportedSource(Section):
    """Heap Connect's tables in a warehouse."""

    dataset: str = Field(
        description="Dataset or schema of one environment, as Heap Connect writes it, such as main_production; in "
        "BigQuery project.dataset in another project"
    )
    events_table: str | None = Field(
        default=None, description="Name of the one wide table of all events, where there is no view for each"
    )
    overlap_days: int = Field(default=3, ge=0, description="Days before the last sync that every look reads again")
    look_back_days: int = Field(default=90, ge=0, description="How far back late rows are looked for now and then")
    look_back_every_days: int = Field(default=7, ge=1, description="How often that is done")


class BigQuerySource(ExportedSource):
    """Heap Connect's dataset in BigQuery, such as main_production."""

    kind: Literal["bigquery"]
    project: str = Field(description="Google Cloud project that is billed for reads")
    location: str | None = Field(default=None, description="Location of the dataset, such as EU")
    credentials: SecretStr | None = Field(default=None, description="Path of a key file or its JSON; else the default")
    max_bytes_billed: int | None = Field(default=None, ge=1, description="A read that would scan more is refused")
    endpoint: str | None = Field(default=None, description="Of an emulator, as http://host:port")
    storage_endpoint: str | None = Field(default=None, description="Of an emulator's Storage API, as host:port")

    def hosts(self) -> Iterator[str]:
        """Yield Google's hosts, or the emulator's."""
        yield from bigquery_hosts(self.endpoint)


class WarehouseSource(ExportedSource):
    """Heap Connect's schema in a warehouse of the settings: in Snowflake, Redshift or PostgreSQL."""

    kind: Literal["warehouse"]
    source: str = Field(
        default=WAREHOUSE_SOURCE,
        description="Which one: a name under `sources:`, or `warehouse`; its login is used",
    )

    def hosts(self) -> Iterator[str]:
        """Yield no host: the warehouse names its own."""
        yield from ()


HeapSource = Annotated[
    FolderSource | S3Source | FilesSource | BigQuerySource | WarehouseSource, Field(discriminator="kind")
]


class TableSelection(Section):
    """Which tables and columns are loaded; patterns as in a shell (`*`, `?`). Keys always are."""

    include: list[str] = Field(default=["*"], description="Tables that are loaded")
    exclude: list[str] = Field(default=[], description="Of these, tables that are not")
    accept: Literal["first", "always", "never"] = Field(
        default="first",
        description="Which tables and columns become assets without `catalogue accept`: those that the source holds "
        "when a deployment starts with an empty catalogue, all that ever come, or none",
    )
    columns: dict[str, list[str]] = Field(
        default={}, description="Table pattern to column patterns; `!name` leaves one out"
    )
    leave_out: dict[str, dict[str, object] | list[dict[str, object]]] = Field(
        default={},
        description="Event table pattern to conditions by column (as of audiences): rows that meet all are left out; "
        "of several such sets in a list, all of one",
    )


class RowQuota(Section):
    """Rows a calendar month that may be landed: warned about at a share of it (`checks.quota`), stopped at if asked."""

    rows_a_month: int | None = Field(default=None, ge=1, description="Instead of what the plan allows")
    stop: bool = Field(default=False, description="Land no further dump this month once the quota is reached")
    count_free_days: bool = Field(default=True, description="Whether rows of the first seven days count")


class FileLimits(Section):
    """What a data file of a dump may take up once it is decompressed; one that takes more is refused."""

    block_mb: int = Field(default=256, ge=1, description="One block; decoding takes about twice as much memory")
    file_mb: int = Field(default=32_768, ge=1, description="All blocks of one file")


class IngestSchedule(Section):
    """When dumps are landed, instead of as they come: an interval, and the time of day at which it begins."""

    every_hours: int = Field(
        default=_DAY_HOURS, description="The interval: 1, 2, 3, 4, 6, 8, 12 or 24, so that each day has the same times"
    )
    begins_at: str = Field(
        default="00:00",
        description="The time of day from which intervals count, as HH:MM: with 02:30 and 6 hours 02:30, 08:30, 14:30, "
        "20:30",
    )
    time_zone: TimeZone = Field(
        default="UTC",
        description="Of begins_at, such as Europe/Berlin; a time that a clock change skips or repeats comes once. Days "
        "of tables stay those of UTC",
    )

    @field_validator("every_hours")
    @classmethod
    def _divides_a_day(cls, value: int) -> int:
        if value < 1 or _DAY_HOURS % value:
            raise ValueError("hours that divide a day: 1, 2, 3, 4, 6, 8, 12 or 24")
        return value

    @field_validator("begins_at")
    @classmethod
    def _is_a_time_of_day(cls, value: str) -> str:
        if not _TIME_OF_DAY.fullmatch(value):
            raise ValueError("a time of day such as 02:30")
        return value

    @property
    def cron(self) -> str:
        """The schedule in the time zone, as cron.

        >>> IngestSchedule(every_hours=6, begins_at="14:30").cron, IngestSchedule(every_hours=1).cron
        ('30 2,8,14,20 * * *', '0 * * * *')
        """
        hour, minute = map(int, self.begins_at.split(":"))
        hours = range(hour % self.every_hours, _DAY_HOURS, self.every_hours)
        return f"{minute} {'*' if self.every_hours == 1 else ','.join(map(str, hours))} * * *"


class HeapSettings(Section):
    """Where Heap's data comes from, and which environment profiles are sent to."""

    app_id: str = Field(description="Heap's environment ID: digits")
    environment: Literal["production", "staging", "development"] | None = Field(
        default=None, description="What this deployment is; any of Heap's environments is taken unless given"
    )
    production_app_ids: list[str] = Field(
        default=[], description="Environment IDs that only a deployment with environment: production may use"
    )
    region: Region = Field(default=Region.US, description="Heap's data centre, which decides where syncs post to")
    plan: Literal["growth", "pro", "premier"] = Field(
        default="pro",
        description="Heap's plan, which decides the quota of rows and the fastest cadence; once it is written, what it "
        "does not cover is refused",
    )
    beyond_plan: list[Literal["destinations", "custom", "sql", "api", "frequency"]] = Field(
        default=[], description="What the contract allows beyond the plan; docs/how_to/plan.md lists what plans allow"
    )
    base_url: str | None = Field(default=None, description="Instead of the region's host: a proxy or the demo's server")
    deletion_key: SecretStr | None = Field(
        default=None, description="API key of Heap's user deletion, ${HEAP_DELETION_KEY}; of Main Production only"
    )
    source: HeapSource = Field(description="Where Heap Connect writes")
    tables: TableSelection = Field(default=TableSelection(), description="Which tables, columns and rows are taken")
    quota: RowQuota = Field(default=RowQuota(), description="Rows a month")
    limits: FileLimits = Field(default=FileLimits(), description="Size of data files")
    cadence_hours: int = Field(default=24, ge=1, description="How often Heap delivers a dump")
    manifest_poll_seconds: int = Field(default=60, ge=30, description="How often new dumps are looked for")
    ingest: IngestSchedule | None = Field(
        default=None, description="When dumps, or changes of the export, are landed; as they come unless given"
    )
    identifiers: dict[str, dict[str, IdentifierTypes]] = Field(
        default={},
        description="Table (`users`, `events` for all event tables, or one table's name) to column to identifier type",
    )

    @model_validator(mode="after")
    def _is_of_this_environment(self) -> HeapSettings:
        is_production = self.app_id in self.production_app_ids
        if is_production and self.environment != "production":
            raise ValueError(
                f"app_id {self.app_id} is the environment of production, and this deployment is "
                f"{self.environment or 'none (environment is not set)'}: use the ID of another environment of Heap"
            )
        if self.environment == "production" and self.production_app_ids and not is_production:
            raise ValueError(f"app_id {self.app_id} is none of production_app_ids, and this deployment is production")
        return self

    @field_validator("app_id")
    @classmethod
    def _is_digits(cls, value: str) -> str:
        if not (value.isascii() and value.isdigit()):
            raise ValueError("Heap's environment ID, digits only (Account > Manage > Projects)")
        return value

    @property
    def cadence(self) -> timedelta:
        """How often new rows can be expected here: no more often than Heap delivers, and than they are landed."""
        return timedelta(hours=max(self.cadence_hours, self.ingest.every_hours if self.ingest else 0))
