"""A connector's system as a source of tables."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any, Self

import orjson
import polars as pl
from pydantic import Field, PrivateAttr

from heap_assets.activation.engine.api import Api
from heap_assets.activation.engine.destination import Service
from heap_assets.config import SourceSettings
from heap_assets.errors import DeliveryError, SourceError
from heap_assets.http_client import AllowedHosts, host_and_port
from heap_assets.sources.warehouse import DELETED, RowsWarehouse, Warehouse
from heap_assets.storage import Store

_LOG = logging.getLogger("heap_assets.sources")
_TIME = "%Y-%m-%dT%H:%M:%S%.f%#z"


class ReadSettings(SourceSettings, ABC):
    """A connector's system as a source of tables: a section of `sources:` of the connector's kind, or of its vendor's.

    A subclass beside the connector, named as its `source_model`, has `kind`, what it needs to connect, the two
    methods, and `hosts` for deployments that say which hosts may be called. Tables are related to as `<kind>.<table>`.
    With `key` and `updated_at` only what changed is read, from an hour before the newest `updated_at` that is known,
    and everything each `full_read_days`; else everything each time.
    """

    @abstractmethod
    def schemas(self) -> Mapping[str, pl.Schema]:
        """Return the columns of each table."""

    def ids(self) -> Mapping[str, str]:
        """Return the column that names a record, of the tables of which a record may come again or be deleted.

        Of such a table a later row of the same record takes the place of an earlier one, and a row whose further
        Boolean column :data:`DELETED` is true says that there is no such record any more.
        """
        return {}

    @abstractmethod
    def read(self, table: str, since: datetime | None) -> Iterable[pl.DataFrame]:
        """Yield the rows of a table, in frames that fit into memory.

        Parameters
        ----------
        since
            Only rows that changed at or after it (UTC); None for all.

        Raises
        ------
        SourceError
            If they cannot be read.
        """

    def open(self, section: str) -> Warehouse:
        del section
        return RowsWarehouse(self.kind, cache(self.schemas), self.read, self.ids())


class ApiSettings(ReadSettings, ABC):
    """A system that is read by calls of the engine: with the login, the limits and the retries of its connector.

    Calls and windows are counted with those of the syncs to the same account in the same process, and daily quotas with
    all that a lake counts. Only the hosts that the settings name are called.
    """

    limit_share: float = Field(default=0.9, gt=0, le=1, description="Share of the documented limits to use")
    _counted_in: Store | None = PrivateAttr(default=None)

    def counted_in(self, store: Store) -> Self:
        """Return the same system, whose calls draw from the daily quotas that a lake counts for its account."""
        counted = self.model_copy()
        counted._counted_in = store
        return counted

    @property
    @abstractmethod
    def url(self) -> str:
        """The address that is called."""

    @abstractmethod
    def reader(self) -> Service:
        """Return what has the login, the limits and the meaning of errors."""

    @abstractmethod
    def columns(self, api: Api) -> Mapping[str, pl.Schema]:
        """Ask for the columns of each table."""

    @abstractmethod
    def pages(self, api: Api, table: str, since: datetime | None) -> Iterator[pl.DataFrame]:
        """Yield the rows of a table, as :meth:`read` does."""

    def hosts(self) -> Iterator[str]:
        yield self.url

    def schemas(self) -> Mapping[str, pl.Schema]:
        with self._api() as api:
            try:
                return self.columns(api)
            except DeliveryError as error:
                raise SourceError(f"{self.kind} cannot be read: {error}") from error

    def read(self, table: str, since: datetime | None) -> Iterator[pl.DataFrame]:
        with self._api() as api:
            try:
                yield from self.pages(api, table, since)
            except DeliveryError as error:
                raise SourceError(f"{self.kind}.{table} cannot be read: {error}") from error

    def _api(self) -> Api:
        named = map(host_and_port, self.hosts())
        allowed = AllowedHosts.of(f"{host}:{port}" if port else host for host, port in named)
        return Api(self.reader(), allowed=allowed, share=self.limit_share, store=self._counted_in)


def frame_of(records: Sequence[Mapping[str, Any]], schema: pl.Schema, subject: str) -> pl.DataFrame:
    """Return JSON records as a frame of a schema; a record may lack members, and texts may hold numbers and times.

    A value that is not of its column's type is null, and a warning tells how many there are. `subject` names the table.
    """
    columns = [_column(name, dtype, [record.get(name) for record in records]) for name, dtype in schema.items()]
    for column in columns:
        lost = sum(record.get(column.name) not in (None, "") for record in records) - column.count()
        if lost > 0:
            _LOG.warning("%s: %d values of %s are no %s, and null", subject, lost, column.name, column.dtype)
    return pl.DataFrame(columns)


def _column(name: str, dtype: pl.DataType, values: Sequence[Any]) -> pl.Series:
    texts = pl.Series(name, [_text(value) for value in values], pl.String)
    return texts if dtype == pl.String else texts.to_frame().select(_read_as(pl.col(name), dtype).alias(name))[name]


def _read_as(text: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if dtype == pl.Boolean:
        return pl.when(text.is_in(["true", "false"])).then(text == "true")
    if dtype == pl.Date:
        return text.str.head(10).str.to_date("%Y-%m-%d", strict=False)
    if isinstance(dtype, pl.Datetime):
        since_1970 = pl.from_epoch(text.cast(pl.Int64, strict=False), "ms").dt.replace_time_zone("UTC")
        written = text.str.to_datetime(_TIME, time_unit="us", time_zone="UTC", strict=False)
        return pl.coalesce(written, since_1970).cast(dtype)
    if dtype.is_integer():
        number = text.cast(pl.Float64, strict=False).cast(dtype, strict=False)
        return pl.coalesce(text.cast(dtype, strict=False), number)
    return text.cast(dtype, strict=False)


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number else orjson.dumps(value).decode()


__all__ = ["DELETED", "ApiSettings", "ReadSettings", "frame_of"]
