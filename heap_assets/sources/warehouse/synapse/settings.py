"""`kind: synapse` and `kind: fabric` in the settings."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator

from heap_assets.config import Section, SourceSettings, SqlLocation, TargetSettings
from heap_assets.errors import SettingsError
from heap_assets.sources.warehouse.base import Warehouse
from heap_assets.sources.warehouse.publish import Publisher
from heap_assets.storage import Store

_CONTAINER = re.compile(r"https://[a-z0-9]+\.(blob|dfs)\.core\.windows\.net/[a-z0-9-]+(/[^?#]*)?")


class _Server(Section):
    """Where a database is, and who logs in."""

    server: str = Field(description="Host: pool.sql.azuresynapse.net, or the SQL connection string of Fabric")
    database: str = Field(description="The dedicated pool, or the warehouse")
    login: Literal["password", "service_principal", "managed_identity", "default"] = Field(
        default="service_principal",
        description="What user and password are: a login of SQL (not in Fabric), or id and secret of a service "
        "principal; managed_identity (of this machine) and default (as the Azure CLI is logged in) have no password",
    )
    user: str | None = Field(default=None, description="Login, id of the service principal, or of the managed identity")
    password: SecretStr | None = Field(default=None, description="Password or secret, by ${SYNAPSE_PASSWORD}")

    @model_validator(mode="after")
    def _has_what_its_login_needs(self) -> _Server:
        needs = self.login in ("password", "service_principal")
        if needs and (self.user is None or self.password is None):
            raise ValueError(f"login: {self.login} needs user and password")
        if not needs and self.password is not None:
            raise ValueError(f"login: {self.login} has no password")
        return self

    def hosts(self) -> Iterator[str]:
        """Yield the server's host, and that of Microsoft's logins."""
        yield self.server.removeprefix("tcp:").partition(",")[0]
        if self.login != "password":
            yield "login.microsoftonline.com"

    def server_in(self, section: str) -> Any:
        """Return what connects; SettingsError where the driver is not installed."""
        if importlib.util.find_spec("mssql_python") is None:
            raise SettingsError(
                f"{section}.kind is {getattr(self, 'kind', '')}, whose driver is not installed: "
                "pip install 'heap_assets[synapse]'"
            )
        from heap_assets.sources.warehouse.synapse.connection import SynapseServer

        password = None if self.password is None else self.password.get_secret_value()
        return SynapseServer(self.server, self.database, self.login, self.user, password, section)


class SynapseSettings(_Server, SourceSettings):
    """A dedicated SQL pool of Azure Synapse."""

    kind: Literal["synapse"]

    def open(self, section: str) -> Warehouse:
        server = self.server_in(section)
        from heap_assets.sources.warehouse.synapse.reader import SynapseWarehouse

        return SynapseWarehouse(server, self.kind)


class FabricSettings(_Server, SourceSettings):
    """A warehouse, or a lakehouse's SQL endpoint, of Microsoft Fabric."""

    kind: Literal["fabric"]

    def open(self, section: str) -> Warehouse:
        server = self.server_in(section)
        from heap_assets.sources.warehouse.synapse.reader import SynapseWarehouse

        return SynapseWarehouse(server, self.kind)


class _Target(_Server, TargetSettings):
    """A schema, and where files go through."""

    schema_name: str = Field(
        alias="schema",
        default="heap_assets",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Is made if it is missing",
    )
    staging: str = Field(
        pattern=f"^{_CONTAINER.pattern}$",
        description="https://account.blob.core.windows.net/container/folder that files go through",
    )
    staging_options: dict[str, str] = Field(
        default={},
        description="How this process logs in there, as obstore spells it, such as azure_storage_account_key",
    )
    staging_sas: SecretStr | None = Field(
        default=None, description="Shared access signature that COPY reads with, in place of an identity"
    )

    @property
    def container(self) -> str:
        return self.schema_name

    @property
    def sql_location(self) -> SqlLocation:
        host = next(self.hosts())
        tableau = {"class": "azure_sql_dw", "server": host, "dbname": self.database}
        uri = f"mssql+pyodbc://{host}/{self.database}?driver=ODBC+Driver+18+for+SQL+Server"
        return SqlLocation("tsql", self.database, self.schema_name, uri, tableau)

    def files(self, identity: str) -> Any:
        """Return the folder of Azure; `identity` is what the engine reads it with unless there is a signature."""
        from obstore.store import AzureStore

        from heap_assets.sources.warehouse.synapse.publisher import AzureFiles

        parts = urlsplit(self.staging.rstrip("/"))
        container, _, folder = parts.path.lstrip("/").partition("/")
        account = str(parts.hostname).partition(".")[0]
        options: Any = {"account_name": account, **self.staging_options}
        objects = AzureStore(container, prefix=folder or None, config=options)
        if self.staging_sas is not None:
            secret = self.staging_sas.get_secret_value().replace("'", "''")
            identity = f"IDENTITY = 'Shared Access Signature', SECRET = '{secret}'"
        return AzureFiles(objects, self.staging.rstrip("/"), identity)


class SynapseTarget(_Target):
    """A schema in a dedicated SQL pool of Azure Synapse."""

    kind: Literal["synapse"]

    def open(self, store: Store, section: str) -> Publisher:
        server = self.server_in(section)
        from heap_assets.sources.warehouse.synapse.publisher import SynapsePublisher

        files = self.files("IDENTITY = 'Managed Identity'")
        return SynapsePublisher(server, self.schema_name, store, files)


class FabricTarget(_Target):
    """A schema in a warehouse of Microsoft Fabric."""

    kind: Literal["fabric"]

    def open(self, store: Store, section: str) -> Publisher:
        server = self.server_in(section)
        from heap_assets.sources.warehouse.synapse.publisher import FabricPublisher

        return FabricPublisher(server, self.schema_name, store, self.files(""))
