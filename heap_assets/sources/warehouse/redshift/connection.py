"""The connection to a cluster or workgroup, over PostgreSQL's protocol: one session a call, times in UTC."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import adbc_driver_manager
from adbc_driver_postgresql import StatementOptions, dbapi  # type: ignore[import-untyped]

from heap_assets.sources.warehouse.base import AccessError, WarehouseError
from heap_assets.sources.warehouse.postgres.dsn import Dsn
from heap_assets.sources.warehouse.redshift.errors import explained, reason

_CONNECT_SECONDS = 10


@dataclass(frozen=True)
class RedshiftDatabase:
    """A database of a cluster or a workgroup.

    Parameters
    ----------
    uri
        Anything that libpq takes, such as `postgresql://user:password@host:5439/database`; shown nowhere.
    section
        Of the settings that name the database.
    """

    uri: str = field(repr=False)
    section: str = "warehouse"

    @property
    def name(self) -> str:
        """Host, port and database."""
        return Dsn.parse(self.uri).server

    @contextmanager
    def session(self, grant: str, other: type[WarehouseError] = WarehouseError) -> Iterator[dbapi.Cursor]:
        """Connect for the time of a `with` block; see :func:`explained` for what becomes of errors inside."""
        dsn = Dsn.parse(self.uri)
        try:
            connection = dbapi.connect(dsn.connecting(_CONNECT_SECONDS), autocommit=True)
        except adbc_driver_manager.Error as error:
            raise AccessError(f"{self.name} cannot be reached: {dsn.hidden(reason(error))}") from None
        try:
            with connection, connection.cursor() as cursor:
                # Redshift has no COPY to the client, by which the driver reads faster elsewhere
                cursor.adbc_statement.set_options(**{StatementOptions.USE_COPY.value: "false"})
                cursor.execute("SET timezone TO 'UTC'")
                yield cursor
        except adbc_driver_manager.Error as error:
            raise explained(error, self.name, grant, other) from error
