"""What a target was given, remembered beside the lake: which version of each day, who loads it, columns and names."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime

from heap_assets.errors import DamagedFileError
from heap_assets.storage import Store, state_keys

_WHOLE = "all"
_TURN = "loading"
"""In the record of a day: the transaction or job that is loading it, or did and died before it could say so."""


@dataclass(frozen=True)
class Load:
    """A load as it is remembered: how many rows, and `load` as in Published (empty for one of an earlier release)."""

    rows: int
    load: str = ""

    @classmethod
    def of(cls, record: Mapping[str, str]) -> Load:
        """Return the load that the record of a day tells of."""
        return cls(int(record["rows"]), record.get("load", ""))


@dataclass(frozen=True)
class PublishLog:
    """The records of one target, below `_published/<target>/`. A day of None is a table that is not kept by day."""

    store: Store
    target: str

    def day(self, table: str, day: date | None) -> tuple[dict[str, str], str | None]:
        """Return what was loaded last (`version`, `rows`, `at`; empty if nothing was), and the load that has begun."""
        known = self._read(self._day_key(table, day))
        return known, known.pop(_TURN, None)

    def loads(self, table: str) -> Iterator[tuple[date, Load]]:
        """Yield the days of a table that were loaded, newest first, and what is remembered of each."""
        prefix = f"{state_keys.PUBLISHED}/{self.target}/{table}/"
        names = [info.key.removeprefix(prefix).removesuffix(".json") for info in self.store.list(prefix)]
        for day in sorted((date.fromisoformat(name) for name in names if name != _WHOLE), reverse=True):
            known, _ = self.day(table, day)
            if "rows" in known:
                yield day, Load.of(known)

    def begin(self, table: str, day: date | None, turn: str, wait: Callable[[str], None]) -> None:
        """Note who loads a day from now on; of what others have begun to load nobody remembers a version any more.

        Parameters
        ----------
        wait
            Called with a load that has begun before; returns when it is over.
        """
        key, begun = self._day_key(table, day), False

        def noted(data: bytes | None) -> bytes | None:
            nonlocal begun
            known = self._record(key, data or b"{}")
            begun = known.get(_TURN) in (before, turn)
            version = {} if before is None else {"version": ""}
            return json.dumps({**known, **version, _TURN: turn}).encode() if begun else None

        while not begun:
            before = self._read(key).get(_TURN)
            if before is not None:
                wait(before)
            self.store.update(key, noted)

    def withdraw(self, table: str, day: date | None, turn: str) -> None:
        """Forget a load that has begun and was not carried out."""
        key = self._day_key(table, day)

        def forgotten(data: bytes | None) -> bytes | None:
            known = self._record(key, data or b"{}")
            return json.dumps(known).encode() if known.pop(_TURN, None) == turn else None

        self.store.update(key, forgotten)

    def end(self, table: str, day: date | None, turn: str, record: Mapping[str, object]) -> None:
        """Remember what was loaded, unless somebody else has begun since: then what they load is what is there."""
        key = self._day_key(table, day)

        def ended(data: bytes | None) -> bytes | None:
            if self._record(key, data or b"{}").get(_TURN) != turn:
                return None
            return json.dumps({**record, "at": datetime.now(UTC).isoformat()}).encode()

        self.store.update(key, ended)

    def columns(self, table: str) -> list[str]:
        """Return the columns that a table was given."""
        return sorted(self._read(self._columns_key(table)))

    def add_columns(self, table: str, names: Iterable[str]) -> None:
        """Keep which columns a table was given, before the version of the day: who dies in between does both again."""
        key, given = self._columns_key(table), dict.fromkeys(names, "")
        if not given.keys() <= self._read(key).keys():
            self.store.update(key, lambda data: json.dumps({**self._record(key, data or b"{}"), **given}).encode())

    def names(self, table: str) -> dict[str, str]:
        """Return the name that each column of a table was published under, where it differs, and those beside it."""
        return {column: str(name) for column, name in self._read(self._names_key(table)).items()}

    def add_names(self, table: str, names: Mapping[str, str]) -> None:
        """Keep names that differ, and those of their table with them: none of them may be given away later."""
        key = self._names_key(table)
        if names.items() <= self._read(key).items():
            return
        # What another publisher gave away meanwhile stays given.
        self.store.update(key, lambda data: json.dumps({**names, **self._record(key, data or b"{}")}).encode())

    def rewritten(self, table: str) -> list[str]:
        """Return the transactions that wrote rows of earlier loads anew, as PostgreSQL does to change a type."""
        return list(self._read(self._rewritten_key(table)))

    def add_rewritten(self, table: str, transaction: str) -> None:
        """Note a transaction that is about to write rows of earlier loads anew."""
        key = self._rewritten_key(table)
        self.store.update(key, lambda data: json.dumps({**self._record(key, data or b"{}"), transaction: ""}).encode())

    def _day_key(self, table: str, day: date | None) -> str:
        return f"{state_keys.PUBLISHED}/{self.target}/{table}/{day or _WHOLE}.json"

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
