"""The connection to an account: its login, one session a call, times in UTC."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from snowflake.connector import SnowflakeConnection
from snowflake.connector.cursor import SnowflakeCursor
from snowflake.connector.errors import Error

from heap_assets.errors import SettingsError
from heap_assets.sources.warehouse.base import WarehouseError
from heap_assets.sources.warehouse.snowflake.errors import explained

_LOGIN_SECONDS, _LOCK_SECONDS = 30, 600
# the driver logs statements, whose texts may hold values
logging.getLogger("snowflake.connector").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class SnowflakeAccount:
    """A database of an account. Secrets are shown nowhere; `endpoint` stands in for Snowflake's host."""

    account: str
    user: str
    database: str
    role: str | None = None
    warehouse: str | None = None
    endpoint: str | None = None
    private_key: str | None = field(default=None, repr=False)
    passphrase: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    section: str = "warehouse"

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"Snowflake {self.account} {self.database}"

    @contextmanager
    def session(self, grant: str, other: type[WarehouseError] = WarehouseError) -> Iterator[SnowflakeCursor]:
        """Connect for the time of a `with` block; see :func:`explained` for what becomes of errors inside."""
        try:
            connection = SnowflakeConnection(**self._options())
        except Error as error:
            raise explained(error, self.name, grant, other) from None
        try:
            with connection, connection.cursor() as cursor:
                yield cursor
        except Error as error:
            raise explained(error, self.name, grant, other) from error

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {
            "account": self.account,
            "user": self.user,
            "database": self.database,
            "role": self.role,
            "warehouse": self.warehouse,
            "login_timeout": _LOGIN_SECONDS,
            "network_timeout": _LOCK_SECONDS + _LOGIN_SECONDS,
            "application": "heap_assets",
            "arrow_number_to_decimal": True,
            "session_parameters": {"TIMEZONE": "UTC", "QUERY_TAG": "heap_assets", "LOCK_TIMEOUT": _LOCK_SECONDS},
        }
        if self.endpoint is not None:
            parts = urlsplit(self.endpoint)
            options |= {"host": parts.hostname, "port": parts.port, "protocol": parts.scheme}
        if self.private_key is not None:
            options["private_key"] = self._key()
        elif self.token is not None:
            options |= {"authenticator": "PROGRAMMATIC_ACCESS_TOKEN", "token": self.token}
        else:
            options["password"] = self.password
        return options

    def _key(self) -> bytes:
        passphrase = None if self.passphrase is None else self.passphrase.encode()
        try:
            key = load_pem_private_key((self.private_key or "").encode(), passphrase)
        except (ValueError, TypeError):
            raise SettingsError(
                f"{self.section}.private_key is no key in PEM form, or {self.section}.passphrase is not its own"
            ) from None
        return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
