"""Tables of the inbox: rejected and unnamed content, keys; rules and checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from heap_assets.quality.engine import Check, CheckContext
from heap_assets.quality.measures import facts_of, readable_check, rejected_rows, shrink_check, unique_keys
from heap_assets.quality.results import CheckResult, Severity
from heap_assets.quality.thresholds import Thresholds


def messages_accepted(rows: int, notes: Mapping[str, Any], allowed: float) -> CheckResult:
    """Check that at most `allowed` of the messages have values that are not of their column's type."""
    reasons = {f"not of the type of {name}": int(count) for name, count in (notes.get("rejected_by") or {}).items()}
    return rejected_rows(rows, int(notes.get("rejected") or 0), reasons, allowed)


def names_declared(notes: Mapping[str, Any]) -> CheckResult:
    """Check that every name in traits or properties is a column of the settings."""
    undeclared = {str(name): int(count) for name, count in (notes.get("undeclared") or {}).items()}
    listed = ", ".join(f"{name}: {count}" for name, count in undeclared.items())
    return CheckResult(
        passed=not undeclared,
        numbers={"undeclared_names": len(undeclared)},
        notes={"names": listed} if undeclared else {},
    )


def checks_for_message_table(asset: str, *, key: str, thresholds: Thresholds | None = None) -> list[Check]:
    """Return the checks of a table of messages."""
    t = thresholds or Thresholds()
    table = asset.rpartition("/")[2]

    def accepted(s: CheckContext) -> CheckResult:
        return messages_accepted(facts_of(s).rows, s.notes(), t.rejected_rows)

    return [
        readable_check(asset),
        Check(
            asset,
            "rejected_rows",
            f"At most {t.rejected_rows:.2%} of the messages have a value that is not of its column's type.",
            accepted,
            remedy=f"correct who posts, or the type below inbox.tables.{table}.columns; the messages are kept.",
        ),
        Check(
            asset,
            "names_declared",
            "Every name in traits or properties is a column of the settings.",
            lambda s: names_declared(s.notes()),
            Severity.WARN,
            remedy=f"add wanted ones below inbox.tables.{table}.columns and materialize the days again: `body` has all",
            plotted=("undeclared_names",),
        ),
        Check(
            asset,
            "unique_keys",
            f"No {key} is there twice.",
            lambda s: unique_keys(s.rows(), [key]),
            blocking=True,
            remedy="materialize the partition again.",
        ),
    ]


def checks_for_folded_table(asset: str, *, key: str, thresholds: Thresholds | None = None) -> list[Check]:
    """Return the checks of what is folded from messages: users and accounts."""
    t = thresholds or Thresholds()
    return [
        readable_check(asset),
        shrink_check(asset, t),
        Check(
            asset,
            "unique_keys",
            f"No {key} is there twice.",
            lambda s: unique_keys(s.rows(), [key]),
            blocking=True,
            remedy="materialize the partition again.",
        ),
    ]
