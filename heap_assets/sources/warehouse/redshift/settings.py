"""`kind: redshift` in the settings."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal

from pydantic import Field, SecretStr

from heap_assets.config import SourceSettings, SqlLocation, TargetSettings
from heap_assets.errors import SettingsError
from heap_assets.sources.warehouse.base import AccessError, Warehouse
from heap_assets.sources.warehouse.postgres.dsn import Dsn
from heap_assets.sources.warehouse.publish import Publisher
from heap_assets.storage import Store, state_keys

_DSN = "postgresql://user:password@name.region.redshift.amazonaws.com:5439/database, as ${REDSHIFT_DSN}"


class RedshiftSettings(SourceSettings):
    """Amazon Redshift, provisioned or serverless."""

    kind: Literal["redshift"]
    dsn: SecretStr = Field(description=_DSN)

    def dataset_shown(self, dataset: str) -> str:
        return dataset.lower()

    def dataset_of(self, relation: str) -> str:
        return self.dataset_shown(relation.rpartition(".")[0])

    def hosts(self) -> Iterator[str]:
        with contextlib.suppress(AccessError):  # told when it is read: what does not need it goes on
            yield from Dsn.parse(self.dsn.get_secret_value()).hosts

    def open(self, section: str) -> Warehouse:
        from heap_assets.sources.warehouse.redshift.connection import RedshiftDatabase
        from heap_assets.sources.warehouse.redshift.reader import RedshiftWarehouse

        return RedshiftWarehouse(RedshiftDatabase(self.dsn.get_secret_value(), section))


class RedshiftTarget(TargetSettings):
    """A schema in Amazon Redshift; files go through S3."""

    kind: Literal["redshift"]
    dsn: SecretStr = Field(description=_DSN)
    schema_name: str = Field(
        alias="schema",
        default="heap_assets",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Is made if it is missing; in small letters, as Redshift spells names",
    )
    staging: str | None = Field(
        default=None,
        pattern=r"^s3://[a-z0-9]",
        description="s3://bucket/prefix that files go through, in the cluster's region; the lake's own unless given",
    )
    staging_options: dict[str, str] = Field(default={}, description="Options of that bucket, as for the lake")
    iam_role: str = Field(
        default="default",
        pattern=r"^(default|arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+)$",
        description="ARN of the cluster's role that may read there, or `default` for the cluster's default role",
    )

    @property
    def container(self) -> str:
        return self.schema_name.lower()

    @property
    def sql_location(self) -> SqlLocation:
        dsn = Dsn.parse(self.dsn.get_secret_value())
        host, _, port = (dsn.hosts or ["localhost:5439"])[0].rpartition(":")
        database = dsn.server.rpartition("/")[2]
        tableau = {"class": "redshift", "server": host, "port": port, "dbname": database}
        uri = f"redshift+psycopg2://{host}:{port}/{database}"
        return SqlLocation("redshift", database, self.container, uri, tableau | {"authentication": "username-password"})

    def hosts(self) -> Iterator[str]:
        """Yield the cluster's host, and that of a staging bucket which is not Amazon's."""
        yield from Dsn.parse(self.dsn.get_secret_value()).hosts
        if endpoint := self.staging_options.get("aws_endpoint_url"):
            yield endpoint

    def open(self, store: Store, section: str) -> Publisher:
        from heap_assets.sources.warehouse.redshift.connection import RedshiftDatabase
        from heap_assets.sources.warehouse.redshift.publisher import RedshiftPublisher

        if self.staging is None and not store.url.startswith("s3://"):
            raise SettingsError(
                f"{section}.staging is not set and the lake is not on S3: Redshift loads from S3 only. "
                "Expected: staging: s3://bucket/prefix in the cluster's region"
            )
        files = Store(self.staging, self.staging_options) if self.staging else store.child(state_keys.LOADING)
        database = RedshiftDatabase(self.dsn.get_secret_value(), section)
        return RedshiftPublisher(database, self.container, store, files, self.iam_role)
