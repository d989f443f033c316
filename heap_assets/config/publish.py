"""The `publish:` section: which assets are put into which warehouse, for those who ask questions there."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator

from heap_assets.config.base import Section
from heap_assets.tables import GRAPH, HEAP, PROFILES

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
