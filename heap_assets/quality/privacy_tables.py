"""Tables of privacy: credentials, findings of personal data, and what retention has left; their checks."""

from __future__ import annotations

from datetime import date
from typing import Final

import polars as pl

from heap_assets import clock
from heap_assets.quality.engine import Check, CheckContext
from heap_assets.quality.results import CheckResult, Severity
from heap_assets.quality.thresholds import Thresholds
from heap_assets.tables import FINDINGS, KEYS, RETENTION

_SHOWN: Final = ("table", "column", "kind", "rule", "values")


def keys_are_replaced(keys: pl.DataFrame, today: date) -> CheckResult:
    """Check that no credential is past its end, or of unknown age. `keys`: `key`, `ends`; names of variables only."""
    overdue = keys.filter((pl.col("ends") < today).fill_null(value=True))
    return _of_keys(keys, overdue, "overdue")


def keys_last(keys: pl.DataFrame, today: date, days: int) -> CheckResult:
    """Check that no credential ends within so many days; one that has ended already is no longer warned of."""
    left = (pl.col("ends") - today).dt.total_days()
    return _of_keys(keys, keys.filter(left.is_between(0, days - 1).fill_null(value=False)), "ending")


def _of_keys(keys: pl.DataFrame, failing: pl.DataFrame, name: str) -> CheckResult:
    shown = failing.select("key", "ends", "why").sort("ends", "key", nulls_last=True)
    return CheckResult(
        passed=failing.is_empty(),
        numbers={"keys": keys.height, f"{name}_keys": failing.height},
        offenders=shown if shown.height else None,
        plain=("key", "ends", "why"),
    )


def findings_are_settled(findings: pl.DataFrame) -> CheckResult:
    """Check that all that looks like personal data is there on purpose.

    `findings`: `table`, `column`, `kind`, `rule`, `values` and `settled_by`, empty where nobody has said anything.
    """
    open_findings = findings.filter(pl.col("settled_by") == "")
    return CheckResult(
        passed=open_findings.is_empty(),
        numbers={
            "findings": findings.height,
            "open_findings": open_findings.height,
            "columns_with_open_findings": open_findings.select("table", "column").n_unique(),
        },
        offenders=open_findings.select(_SHOWN).sort("table", "column", "kind") if open_findings.height else None,
        plain=_SHOWN,
    )


def nothing_is_older(retention: pl.DataFrame) -> CheckResult:
    """Check that no expired day is left. `retention`: `table`, `expired_days`, `expired_sources`."""
    left = retention.filter((pl.col("expired_days") > 0) | (pl.col("expired_sources") > 0))
    columns = ("table", "expired_days", "expired_sources")
    return CheckResult(
        passed=left.is_empty(),
        numbers={
            "tables": retention.height,
            "expired_days": int(retention["expired_days"].sum()),
            "expired_sources": int(retention["expired_sources"].sum()),
        },
        offenders=left.select(columns) if left.height else None,
        plain=columns,
    )


def checks_for_privacy(thresholds: Thresholds | None = None, overdue: Severity = Severity.ERROR) -> list[Check]:
    """Return the checks of `privacy/*`; `overdue`: how severe a credential is that has to be replaced."""
    t = thresholds or Thresholds()

    def rows(s: CheckContext) -> pl.DataFrame:
        return s.rows().collect()

    return [
        Check(
            KEYS,
            "keys_are_replaced_in_time",
            "No credential of privacy.keys is past its end, and the age of each is known.",
            lambda s: keys_are_replaced(rows(s), clock.today()),
            severity=overdue,
            partitioned=False,
            remedy="make a new one, put it into the environment, and set `issued` or `expires` in privacy.keys.",
        ),
        Check(
            KEYS,
            "no_key_ends_soon",
            f"No credential of privacy.keys ends within {t.key_notice_days} days.",
            lambda s: keys_last(rows(s), clock.today(), t.key_notice_days),
            severity=Severity.WARN,
            partitioned=False,
            remedy="make a new one before the old one ends; both may be valid for a while.",
        ),
        Check(
            FINDINGS,
            "findings_are_settled",
            "All that looks like personal data is there on purpose.",
            lambda s: findings_are_settled(rows(s)),
            severity=Severity.WARN,
            partitioned=False,
            remedy="write a rule into privacy.rules and take the table anew, or name the column in privacy.personal, "
            "or as `pii: true` in Heap's catalogue.",
        ),
        Check(
            RETENTION,
            "nothing_is_older",
            "Nothing is left of days that `keep` no longer asks for.",
            lambda s: nothing_is_older(rows(s)),
            partitioned=False,
            remedy="see why the job `retention` has not run, or run it: its log says what it could not delete.",
        ),
    ]
