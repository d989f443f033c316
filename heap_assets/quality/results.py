"""The result of a check on one partition, and the hashed sample of offending rows that may leave the company."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import polars as pl

Number = int | float
SAMPLE_ROWS = 10
_HASH_DIGITS = 12


class Severity(StrEnum):
    """WARN: somebody should look. ERROR: something is wrong."""

    WARN = "WARN"
    ERROR = "ERROR"


@dataclass(frozen=True)
class CheckResult:
    """The result of one rule on one partition."""

    passed: bool
    """Whether the rule holds."""
    numbers: Mapping[str, Number] = field(default_factory=dict)
    """Figures that the UI plots over time."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Short texts: column names, kinds, what would put it right. Never a value of a row."""
    offenders: pl.DataFrame | None = None
    """Rows that break the rule. They are hashed before they are stored, but for the columns in `plain`."""
    plain: tuple[str, ...] = ()
    """Columns of `offenders` that name no person (a column, a reason, a count)."""
    memory: Mapping[str, Any] = field(default_factory=dict)
    """Figures that later partitions are compared with and that are not worth a plot."""
    not_judged: str = ""
    """Why the rule was not held against the partition; empty if it was. Such a result counts neither as passed nor as
    failed, and `passed` then says whether a sync may send nevertheless: see :func:`nothing_to_compare` and
    :func:`could_not_evaluate`."""

    @property
    def failed(self) -> bool:
        """Whether the rule was held against the partition and does not hold."""
        return not self.passed and not self.not_judged

    def shown(self) -> pl.DataFrame:
        """Return the offenders that are shown, at most ten, in clear."""
        return pl.DataFrame() if self.offenders is None else self.offenders.head(SAMPLE_ROWS)

    def sample(self, key: bytes) -> list[dict[str, Any]]:
        """Return the offenders that are shown, every value outside `plain` replaced by a keyed hash."""
        return [
            {name: _plain(value) if name in self.plain else hashed(value, key) for name, value in row.items()}
            for row in self.shown().to_dicts()
        ]


def share_within(count: int, total: int, allowed: float, numbers: Mapping[str, Number], **fields: Any) -> CheckResult:
    """Return the result of a rule that allows a share of `total`; an empty total has a share of 0."""
    share = count / total if total else 0.0
    return CheckResult(share <= allowed, {**numbers, "share": share, "allowed_share": allowed}, **fields)


def nothing_to_compare(
    reason: str, numbers: Mapping[str, Number] | None = None, memory: Mapping[str, Any] | None = None
) -> CheckResult:
    """Return the result of a rule that lacks what it compares with: an earlier day, another table.

    It does not block syncs, or the first day would never be sent.
    """
    return CheckResult(True, numbers or {}, memory=memory or {}, not_judged=reason)


def could_not_evaluate(reason: str) -> CheckResult:
    """Return the result of a rule that raised an error; a blocking check then blocks syncs as a failed one does."""
    return CheckResult(False, not_judged=reason)


def combine_results(*results: CheckResult) -> CheckResult:
    """Return one result for several rules: a check costs Dagster events, so related rules share one.

    It has failed if one rule has, else it is not judged if one is not, else it has passed.
    """
    shown = next((v for v in results if v.offenders is not None), CheckResult(passed=True))
    return CheckResult(
        passed=all(v.passed for v in results),
        numbers={name: value for v in results for name, value in v.numbers.items()},
        notes={name: value for v in results for name, value in v.notes.items()},
        offenders=shown.offenders,
        plain=shown.plain,
        memory={name: value for v in results for name, value in v.memory.items()},
        not_judged="" if any(v.failed for v in results) else "; ".join(v.not_judged for v in results if v.not_judged),
    )


def hashed(value: object, key: bytes) -> str | None:
    """Return the first 12 hex digits of HMAC-SHA256: the same person is recognised, nobody can be looked up."""
    if value is None:
        return None
    if isinstance(value, list):
        return " ".join(hashed(part, key) or "" for part in value[:5])
    return hmac.new(key, str(value).encode(), hashlib.sha256).hexdigest()[:_HASH_DIGITS]


def is_hash(text: str) -> bool:
    """Say whether a text looks like what :func:`hashed` returns."""
    return len(text) == _HASH_DIGITS and set(text) <= set("0123456789abcdef")


def _plain(value: object) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
