"""The connection to a pool or a warehouse, by Microsoft's own driver: one session a call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from heap_assets.sources.warehouse.base import WarehouseError
from heap_assets.sources.warehouse.synapse.errors import explained

_CONNECT_SECONDS = 30
_LOGINS = {
    "password": "SqlPassword",
    "service_principal": "ActiveDirectoryServicePrincipal",
    "managed_identity": "ActiveDirectoryMSI",
    "default": "ActiveDirectoryDefault",
}


def _connect(text: str) -> Any:
    import mssql_python

    return mssql_python.connect(text, autocommit=True, timeout=_CONNECT_SECONDS)


@dataclass(frozen=True)
class SynapseServer:
    """A database of a server.

    Parameters
    ----------
    login
        How `user` and `password` are meant; the other two logins need no password.
    section
        Of the settings that name the database.
    """

    server: str
    database: str
    login: str = "service_principal"
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    section: str = "warehouse"
    connect: Callable[[str], Any] = field(default=_connect, repr=False)

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.server} {self.database}"

    @contextmanager
    def session(self, grant: str, other: type[WarehouseError] = WarehouseError) -> Iterator[Any]:
        """Connect for the time of a `with` block; see :func:`explained` for what becomes of errors inside."""
        try:
            connection = self.connect(self._text())
        except Exception as error:
            raise explained(error, self.name, grant, other) from None
        try:
            with connection, connection.cursor() as cursor:
                yield cursor
        except Exception as error:
            if not type(error).__module__.startswith(_driver_of(connection)):
                raise
            raise explained(error, self.name, grant, other) from error

    def _text(self) -> str:
        parts = {
            "Server": f"tcp:{self.server},1433" if "," not in self.server else self.server,
            "Database": self.database,
            "Encrypt": "yes",
            "Authentication": None if self.login == "password" else _LOGINS[self.login],
            "UID": self.user,
            "PWD": self.password,
        }
        return ";".join(f"{name}={_braced(value)}" for name, value in parts.items() if value is not None)


def _braced(value: str) -> str:
    return "{" + value.replace("}", "}}") + "}" if set(value) & set(";{}= ") else value


def _driver_of(connection: Any) -> str:
    return type(connection).__module__.partition(".")[0]
