"""`kind: bigquery` in the settings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, SecretStr, field_validator

from heap_assets.config import GOOGLE_STORAGE, SourceSettings, SqlLocation, TargetSettings, bigquery_hosts
from heap_assets.sources.warehouse.base import Warehouse
from heap_assets.sources.warehouse.publish import Publisher
from heap_assets.storage import Store, state_keys


class BigQuerySettings(SourceSettings):
    """BigQuery."""

    kind: Literal["bigquery"]
    project: str = Field(description="Google Cloud project that is billed for reads")
    location: str | None = Field(default=None, description="Location of the datasets, such as EU")
    credentials: SecretStr | None = Field(default=None, description="Path of a key file or its JSON; else the default")
    max_bytes_billed: int | None = Field(default=None, ge=1, description="A read that would scan more is refused")
    endpoint: str | None = Field(default=None, description="Of an emulator, as http://host:port")
    storage_endpoint: str | None = Field(default=None, description="Of an emulator's Storage API, as host:port")

    def dataset_of(self, relation: str) -> str:
        return self.dataset_shown(relation.rpartition(".")[0])

    def dataset_shown(self, dataset: str) -> str:
        """The project is part of a dataset's name, unless it is the warehouse's own."""
        return dataset.removeprefix(f"{self.project}.")

    def hosts(self) -> Iterator[str]:
        yield from bigquery_hosts(self.endpoint)

    def open(self, section: str) -> Warehouse:
        from heap_assets.sources.warehouse.bigquery.client import BigQueryAccount
        from heap_assets.sources.warehouse.bigquery.reader import BigQueryWarehouse

        account = BigQueryAccount(
            self.project, _text(self.credentials), self.location, self.endpoint, self.storage_endpoint, section=section
        )
        relations = tuple(table.relation for table in self.tables.values())
        return BigQueryWarehouse(account, tuple(self.datasets), self.max_bytes_billed, relations)


class BigQueryTarget(TargetSettings):
    """A dataset in BigQuery."""

    kind: Literal["bigquery"]
    project: str = Field(description="Google Cloud project of the dataset")
    dataset: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="Must exist")
    location: str | None = Field(default=None, description="Location of the dataset, such as EU")
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

    @property
    def container(self) -> str:
        return self.dataset

    @property
    def sql_location(self) -> SqlLocation:
        tableau = {"class": "bigquery", "CATALOG": self.project, "project": self.project, "authentication": "oauth"}
        uri = f"bigquery://{self.project}/{self.dataset}"
        return SqlLocation("bigquery", self.project, self.dataset, uri, tableau, qualifies=True)

    def hosts(self) -> Iterator[str]:
        yield from bigquery_hosts(self.endpoint)
        yield from GOOGLE_STORAGE if self.staging else ()

    def open(self, store: Store, section: str) -> Publisher:
        from heap_assets.sources.warehouse.bigquery.client import BigQueryAccount
        from heap_assets.sources.warehouse.bigquery.publisher import BigQueryPublisher

        credentials = _text(self.credentials)
        account = BigQueryAccount(self.project, credentials, self.location, self.endpoint, section=section)
        staging = Store(self.staging, self.staging_options) if self.staging else None
        if staging is None and store.url.startswith("gs://"):
            staging = store.child(state_keys.LOADING)
        return BigQueryPublisher(account, self.dataset, store, staging)


def _text(credentials: SecretStr | None) -> str | None:
    return credentials.get_secret_value() if credentials else None
