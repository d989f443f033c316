"""`kind: postgres` in the settings."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal

from pydantic import Field, SecretStr

from heap_assets.config import SourceSettings, SqlLocation, TargetSettings
from heap_assets.sources.warehouse.base import AccessError, Warehouse
from heap_assets.sources.warehouse.postgres.dsn import Dsn
from heap_assets.sources.warehouse.publish import Publisher
from heap_assets.storage import Store


class PostgresSettings(SourceSettings):
    """PostgreSQL."""

    kind: Literal["postgres"]
    dsn: SecretStr = Field(description="postgresql://user:password@host/database, as ${WAREHOUSE_DSN}")

    def hosts(self) -> Iterator[str]:
        with contextlib.suppress(AccessError):  # told when it is read: what does not need it goes on
            yield from Dsn.parse(self.dsn.get_secret_value()).hosts

    def open(self, section: str) -> Warehouse:
        from heap_assets.sources.warehouse.postgres.reader import PostgresWarehouse

        return PostgresWarehouse(self.dsn.get_secret_value(), section=section)


class PostgresTarget(TargetSettings):
    """A schema in PostgreSQL."""

    kind: Literal["postgres"]
    dsn: SecretStr = Field(description="postgresql://user:password@host/database, as ${PUBLISH_DSN}")
    schema_name: str = Field(
        alias="schema",
        default="heap_assets",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Is made if it is missing",
    )

    @property
    def container(self) -> str:
        return self.schema_name

    @property
    def sql_location(self) -> SqlLocation:
        dsn = Dsn.parse(self.dsn.get_secret_value())
        host, _, port = (dsn.hosts or ["localhost:5432"])[0].rpartition(":")
        database = dsn.server.rpartition("/")[2]
        tableau = {"class": "postgres", "server": host, "port": port, "dbname": database}
        uri = f"postgresql://{host}:{port}/{database}"
        return SqlLocation(
            "postgres", database, self.schema_name, uri, tableau | {"authentication": "username-password"}
        )

    def hosts(self) -> Iterator[str]:
        yield from Dsn.parse(self.dsn.get_secret_value()).hosts

    def open(self, store: Store, section: str) -> Publisher:
        del section
        from heap_assets.sources.warehouse.postgres.publisher import PostgresPublisher

        return PostgresPublisher(self.dsn.get_secret_value(), self.schema_name, store)
