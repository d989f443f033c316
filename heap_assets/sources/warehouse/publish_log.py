"""The record of what was loaded to a target: version of each day, load in progress, columns and their names."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime

from heap_assets.errors import DamagedFileError
from heap_assets.storage import Store, state_keys

_ALL_DAYS = "all"
_LOADING = "loading"
"""Key in the record of a day: the id of the load in progress, or of one that ended without recording its end."""


@dataclass(frozen=True)
class Load:
    """The record of a load: its rows, and `load` as in Published (empty in records of an earlier release)."""

    rows: int
    load: str = ""

    @classmethod
    def of(cls, record: Mapping[str, str]) -> Load:
        """Return the load in the record of a day."""
        return cls(int(record["rows"]), record.get("load", ""))


@dataclass(frozen=True)
class PublishLog:
    """The records of one target, below `_published/<target>/`. A day of None is a table that is not kept by day."""

    store: Store
    target: str

    def day(self, table: str, day: date | None) -> tuple[dict[str, str], str | None]:
        """Return the last load (`version`, `rows`, `at`; empty without one) and the id of a load in progress."""
        record = self._read(self._day_key(table, day))
        return record, record.pop(_LOADING, None)

    def loads(self, table: str) -> Iterator[tuple[date, Load]]:
        """Yield the loaded days of a table, newest first, with the record of each load."""
        prefix = f"{state_keys.PUBLISHED}/{self.target}/{table}/"
        names = [info.key.removeprefix(prefix).removesuffix(".json") for info in self.store.list(prefix)]
        for day in sorted((date.fromisoformat(name) for name in names if name != _ALL_DAYS), reverse=True):
            record, _ = self.day(table, day)
            if "rows" in record:
                yield day, Load.of(record)

    def begin(self, table: str, day: date | None, load_id: str, wait: Callable[[str], None]) -> None:
        """Record the id of a load before it starts; takes over from a load that did not finish, and drops its version.

        Parameters
        ----------
        wait
            Called with the id of a load in progress; returns when that load has ended.
        """
        key, has_begun = self._day_key(table, day), False

        def with_load_id(data: bytes | None) -> bytes | None:
            nonlocal has_begun
            record = self._record(key, data or b"{}")
            has_begun = record.get(_LOADING) in (pending, load_id)
            version = {} if pending is None else {"version": ""}
            return json.dumps({**record, **version, _LOADING: load_id}).encode() if has_begun else None

        while not has_begun:
            pending = self._read(key).get(_LOADING)
            if pending is not None:
                wait(pending)
            self.store.update(key, with_load_id)

    def withdraw(self, table: str, day: date | None, load_id: str) -> None:
        """Remove the id of a load that was not committed."""
        key = self._day_key(table, day)

        def without_load_id(data: bytes | None) -> bytes | None:
            record = self._record(key, data or b"{}")
            return json.dumps(record).encode() if record.pop(_LOADING, None) == load_id else None

        self.store.update(key, without_load_id)

    def end(self, table: str, day: date | None, load_id: str, record: Mapping[str, object]) -> None:
        """Record a finished load, unless another one has begun since: its rows replace these."""
        key = self._day_key(table, day)

        def new_record(data: bytes | None) -> bytes | None:
            if self._record(key, data or b"{}").get(_LOADING) != load_id:
                return None
            return json.dumps({**record, "at": datetime.now(UTC).isoformat()}).encode()

        self.store.update(key, new_record)

    def columns(self, table: str) -> list[str]:
        """Return the columns that were published to a table."""
        return sorted(self._read(self._columns_key(table)))

    def add_columns(self, table: str, names: Iterable[str]) -> None:
        """Record published columns; called before the version is recorded, so that an interrupted run repeats both."""
        key, columns = self._columns_key(table), dict.fromkeys(names, "")
        if not columns.keys() <= self._read(key).keys():
            self.store.update(key, lambda data: json.dumps({**self._record(key, data or b"{}"), **columns}).encode())

    def names(self, table: str) -> dict[str, str]:
        """Return column to published name for every table with a renamed column; empty for other tables."""
        return {column: str(name) for column, name in self._read(self._names_key(table)).items()}

    def add_names(self, table: str, names: Mapping[str, str]) -> None:
        """Record the published names of columns, so that no other column gets one of them later."""
        key = self._names_key(table)
        if names.items() <= self._read(key).items():
            return
        # names that another publisher has recorded since take precedence
        self.store.update(key, lambda data: json.dumps({**names, **self._record(key, data or b"{}")}).encode())

    def rewritten(self, table: str) -> list[str]:
        """Return the transactions that rewrote rows of earlier loads, as PostgreSQL does to change a type."""
        return list(self._read(self._rewritten_key(table)))

    def add_rewritten(self, table: str, transaction: str) -> None:
        """Record a transaction that is about to rewrite rows of earlier loads."""
        key = self._rewritten_key(table)
        self.store.update(key, lambda data: json.dumps({**self._record(key, data or b"{}"), transaction: ""}).encode())

    def _day_key(self, table: str, day: date | None) -> str:
        return f"{state_keys.PUBLISHED}/{self.target}/{table}/{day or _ALL_DAYS}.json"

    def _columns_key(self, table: str) -> str:
        return f"{state_keys.PUBLISHED}/{self.target}/_columns/{table}.json"

    def _names_key(self, table: str) -> str:
        return f"{state_keys.PUBLISHED}/{self.target}/_names/{table}.json"

    def _rewritten_key(self, table: str) -> str:
        return f"{state_keys.PUBLISHED}/{self.target}/_rewritten/{table}.json"

    def _read(self, key: str) -> dict[str, str]:
        try:
            return self._record(key, self.store.read(key))
        except FileNotFoundError:
            return {}

    def _record(self, key: str, data: bytes) -> dict[str, str]:
        try:
            return {str(name): value for name, value in json.loads(data).items()}
        except (ValueError, AttributeError) as error:
            raise DamagedFileError(
                f"{self.store.uri(key)} is damaged: delete it, and what it tells of is published again"
            ) from error
