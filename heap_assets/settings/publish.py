"""The `publish:` section: which assets are put into which warehouse, for those who ask questions there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator

from heap_assets.errors import SettingsError
from heap_assets.settings.base import Section

DEFAULT_ASSETS = ["heap/*", "identity/graph", "profiles", "events"]


class _Target(Section):
    assets: list[str] = Field(
        default=DEFAULT_ASSETS,
        description="Assets by key, patterns as in a shell: heap/*, warehouse/crm_*, profiles. `events` is the wide "
        "table of all event tables: 16 columns, the rest as JSON",
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


def check_no_secrets(raw: Any, file: str) -> None:
    """SettingsError if a key or a password stands in the file itself, before variables are filled in."""
    targets = raw.get("publish") if isinstance(raw, Mapping) else None
    for name, target in targets.items() if isinstance(targets, Mapping) else ():
        given = target if isinstance(target, Mapping) else {}
        key, dsn = str(given.get("credentials") or ""), str(given.get("dsn") or "")
        if key.lstrip().startswith("{"):  # also what YAML makes of it without quotes
            raise SettingsError(
                f"{file}: publish.{name}.credentials holds a key; expected: the path of a key file, "
                "or its JSON from the environment, as ${BIGQUERY_KEY}"
            )
        if "${" not in dsn and _password(dsn):
            raise SettingsError(
                f"{file}: publish.{name}.dsn holds a password; expected: all of it, or the password, "
                "from the environment, as ${PUBLISH_DSN}"
            )


def _password(dsn: str) -> str | None:
    try:
        return urlsplit(dsn).password
    except ValueError:
        return None
