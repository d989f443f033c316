"""`kind: snowflake` in the settings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, SecretStr, model_validator

from heap_assets.config import Section, SourceSettings, SqlLocation, TargetSettings
from heap_assets.errors import SettingsError
from heap_assets.sources.warehouse.base import Warehouse
from heap_assets.sources.warehouse.publish import Publisher
from heap_assets.storage import Store

_DRIVER = "snowflake-connector-python"


class _Account(Section):
    """Where an account is, and who logs in."""

    account: str = Field(description="Account identifier, such as myorg-account123")
    user: str = Field(description="A user of its own, with a role that has least rights")
    private_key: SecretStr | None = Field(
        default=None, description="Key of the user, as the text of a PEM file, by ${SNOWFLAKE_KEY}"
    )
    passphrase: SecretStr | None = Field(default=None, description="Of that key, if it has one")
    token: SecretStr | None = Field(default=None, description="Programmatic access token, in place of a key")
    password: SecretStr | None = Field(default=None, description="In place of a key, where the account still allows it")
    role: str | None = Field(default=None, description="Role; the user's default unless given")
    warehouse: str | None = Field(default=None, description="Virtual warehouse that runs queries; else the default")
    database: str = Field(description="Database, as Snowflake spells it: SALES")
    endpoint: str | None = Field(default=None, description="Of a stand-in, as http://host:port")

    @model_validator(mode="after")
    def _has_one_login(self) -> _Account:
        logins = [name for name in ("private_key", "token", "password") if getattr(self, name) is not None]
        if len(logins) != 1:
            raise ValueError(f"one of private_key, token and password; there are {len(logins)}")
        return self

    def hosts(self) -> Iterator[str]:
        """Yield the account's host; the stage of a load is in the storage of the account's cloud."""
        yield self.endpoint or f"{self.account.lower().replace('_', '-')}.snowflakecomputing.com"

    def account_in(self, section: str) -> Any:
        """Return what connects; SettingsError where the driver is not installed."""
        try:
            from heap_assets.sources.warehouse.snowflake.connection import SnowflakeAccount
        except ModuleNotFoundError as error:
            raise SettingsError(
                f"{section}.kind is snowflake, whose driver is not installed: pip install 'heap_assets[snowflake]'"
            ) from error
        secrets = {
            name: None if (value := getattr(self, name)) is None else value.get_secret_value()
            for name in ("private_key", "passphrase", "token", "password")
        }
        return SnowflakeAccount(
            self.account, self.user, self.database, self.role, self.warehouse, self.endpoint, section=section, **secrets
        )


class SnowflakeSettings(_Account, SourceSettings):
    """Snowflake."""

    kind: Literal["snowflake"]

    def dataset_of(self, relation: str) -> str:
        return self.dataset_shown(relation.rpartition(".")[0])

    def dataset_shown(self, dataset: str) -> str:
        """Schemas are compared without case, as Snowflake does with names that are not quoted."""
        return dataset.upper()

    def open(self, section: str) -> Warehouse:
        account = self.account_in(section)
        from heap_assets.sources.warehouse.snowflake.reader import SnowflakeWarehouse

        return SnowflakeWarehouse(account)


class SnowflakeTarget(_Account, TargetSettings):
    """A schema in Snowflake."""

    kind: Literal["snowflake"]
    schema_name: str = Field(
        alias="schema",
        default="HEAP_ASSETS",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Is made if it is missing; in capitals, as names are that are not quoted",
    )

    @property
    def container(self) -> str:
        return self.schema_name.upper()

    @property
    def sql_location(self) -> SqlLocation:
        tableau = {"class": "snowflake", "server": next(self.hosts()), "dbname": self.database}
        if self.warehouse:
            tableau["warehouse"] = self.warehouse
        uri = f"snowflake://{self.account}/{self.database}/{self.container}"
        return SqlLocation("snowflake", self.database, self.container, uri, tableau, qualifies=True, is_upper=True)

    def open(self, store: Store, section: str) -> Publisher:
        account = self.account_in(section)
        from heap_assets.sources.warehouse.snowflake.publisher import SnowflakePublisher

        return SnowflakePublisher(account, self.container, store)
