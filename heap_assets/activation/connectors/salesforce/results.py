"""What Salesforce says of one row, and what that means for it; the codes of collections and of jobs are the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from heap_assets import clock
from heap_assets.activation.engine.destination import Row
from heap_assets.activation.engine.verdict import RowVerdict, Verdict

CONVERTED = "CANNOT_UPDATE_CONVERTED_LEAD"
_LOCKED = "UNABLE_TO_LOCK_ROW"
_BUSY_TRIGGER = ("CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", "Too many SOQL queries")
_NO_RECORD = frozenset({"ENTITY_IS_DELETED", "INVALID_CROSS_REFERENCE_KEY"})
_LATER = timedelta(minutes=5)
"""After which a row is sent again that others keep locked."""


@dataclass(frozen=True)
class Write:
    """One row as it is written: to the record of an id, or of its key."""

    index: int
    key: str
    fields: Mapping[str, Any]
    id: str | None = None


@dataclass(frozen=True)
class Result:
    """What is said of one row: its record's id, or why it was refused."""

    id: str | None = None
    code: str = ""
    message: str = ""
    fields: Sequence[str] = ()

    @property
    def is_locked(self) -> bool:
        """Whether it may be taken in a moment: somebody else writes the record, or a trigger has too much to do."""
        busy, text = _BUSY_TRIGGER
        return self.code == _LOCKED or (self.code == busy and text in self.message)


def result_of(row: Mapping[str, Any]) -> Result:
    """Return what an answer to a collection says of one row."""
    id = str(row.get("id") or "") or None
    if row.get("success"):
        return Result(id)
    first = (row.get("errors") or [{}])[0]
    fields = tuple(str(name) for name in first.get("fields") or ())
    return Result(id, str(first.get("statusCode") or "refused"), str(first.get("message", "")), fields)


@dataclass
class Work:
    """One batch: its rows, what is known of each by now, and those whose lead turned out to be converted.

    `key`: field of the key. `creates_only`: records that are there already stay as they are.
    """

    rows: Sequence[Row]
    key: str
    creates_only: bool = False
    verdicts: dict[int, RowVerdict] = field(default_factory=dict)
    converted: list[int] = field(default_factory=list)
    refused: str | None = None

    def tell(self, index: int, result: Result) -> None:
        """Note what is said of a row."""
        if result.code == CONVERTED and index not in self.converted:
            self.converted.append(index)
        else:
            self.verdicts[index] = self._verdict(result)

    def verdict(self, stop: str | None = None) -> Verdict:
        """Return what became of the rows; those of which nothing is known were in a call that was refused."""
        is_whole = len(self.verdicts) == len(self.rows)
        return Verdict(
            self.verdicts, "applied" if is_whole else "not_applied", None if is_whole else self.refused, stop
        )

    def _verdict(self, result: Result) -> RowVerdict:
        reason = f"{result.code}: {result.message}"
        if not result.code:
            return RowVerdict("acknowledged", remote_id=result.id)
        if result.is_locked:
            return RowVerdict("deferred", reason, until=clock.now() + _LATER)
        if result.code in _NO_RECORD and set(result.fields) <= {"Id"}:
            return RowVerdict("no_match", "its record is gone")
        if result.code == "DUPLICATE_EXTERNAL_ID":
            return RowVerdict("invalid", "several records have this key")
        if result.code == "DUPLICATE_VALUE" and self.key in (*result.fields, *result.message.split()):
            if self.creates_only:
                return RowVerdict("no_match", "it has a record already, which create_only leaves as it is")
            return RowVerdict("invalid", reason)
        return RowVerdict("rejected", reason.removesuffix(": "))
