"""Warehouse tables: keys, identifiers and freshness of the snapshot; rules and checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from heap_assets.identity import normalised
from heap_assets.quality import measures
from heap_assets.quality.engine import Check, CheckContext
from heap_assets.quality.measures import (
    column_check,
    facts_of,
    readable_check,
    shrink_check,
    unique_key_check,
    values_check,
)
from heap_assets.quality.results import CheckResult, Severity, nothing_to_compare
from heap_assets.quality.thresholds import Thresholds
from heap_assets.values import PRIVATE, key_text

_ROWS = f"{PRIVATE}rows"
_ANY = f"{PRIVATE}any"

PATTERNS: Mapping[str, str] = {
    "email": r"^[^\s@]+@[^\s@]+\.[^\s@.]+$",
    "heap_user_id": r"^[0-9]{1,19}$",
}
"""Identifier type to the regular expression of its normalised values; identity resolution uses the same."""
NORMALISERS: Mapping[str, str] = {"email": "email"}
"""Identifier type to its normaliser; values of other types are trimmed."""


def identifiers_filled(rows: pl.LazyFrame, columns: Mapping[str, str], least: float) -> CheckResult:
    """Check that a share of at least `least` of the rows has a value in one of the identifier columns."""
    filled = {name: _filled(name) for name in columns}
    measured = rows.select(
        pl.len().alias(_ROWS),
        pl.any_horizontal(*filled.values()).sum().alias(_ANY),
        *(expr.sum().alias(name) for name, expr in filled.items()),
    )
    counts = measured.collect().row(0, named=True)
    total, identified = counts.pop(_ROWS), counts.pop(_ANY) or 0
    share = identified / total if total else 1.0
    shares = {name: (count or 0) / total if total else 1.0 for name, count in counts.items()}
    return CheckResult(
        passed=share >= least,
        numbers={
            "rows": total,
            "identified_share": share,
            "least_share": least,
            **{f"filled_{name}": round(value, 4) for name, value in shares.items()},
        },
        memory={"null_shares": {name: 1 - value for name, value in shares.items()}},
    )


def identifiers_well_formed(
    rows: pl.LazyFrame,
    columns: Mapping[str, str],
    allowed: float,
    patterns: Mapping[str, str] = PATTERNS,
    normalisers: Mapping[str, str] = NORMALISERS,
) -> CheckResult:
    """Check that of each column at most `allowed` of the filled values do not match the pattern of their type.

    `columns` maps a column to its identifier type, `normalisers` a type to the normaliser that its values go through
    first, as they do in identity resolution. Types without a pattern are left out.
    """
    checked = {name: patterns[kind] for name, kind in columns.items() if kind in patterns}
    if not checked:
        return nothing_to_compare("no mapped column with a pattern is in the table")
    figures, schema = [], rows.collect_schema()
    for name, pattern in checked.items():
        text = normalised(key_text(pl.col(name), schema[name]), normalisers.get(columns[name], "strip"))
        text = text.str.strip_chars()
        figures += [
            _filled(name).sum().alias(f"filled {name}"),
            (_filled(name) & ~text.str.contains(pattern)).sum().alias(f"bad {name}"),
        ]
    measured = rows.select(figures).collect().row(0, named=True)
    shares = {name: (measured[f"bad {name}"] or 0) / max(measured[f"filled {name}"] or 0, 1) for name in checked}
    table = pl.DataFrame(
        {
            "column": list(checked),
            "type": [columns[name] for name in checked],
            "malformed": [measured[f"bad {name}"] or 0 for name in checked],
            "share": [round(shares[name], 4) for name in checked],
        }
    ).filter(pl.col("malformed") > 0)
    return CheckResult(
        passed=all(share <= allowed for share in shares.values()),
        numbers={"allowed_share": allowed, **{f"malformed_{name}": measured[f"bad {name}"] or 0 for name in checked}},
        offenders=table if table.height else None,
        plain=("column", "type", "malformed", "share"),
    )


def was_observed(notes: Mapping[str, object]) -> CheckResult:
    """Check that a snapshot was read from its source, not carried forward from an older day."""
    observed = notes.get("observed") is not False
    details = {key: str(notes[key]) for key in ("observed_at", "carried_from") if notes.get(key)}
    return CheckResult(passed=observed, numbers={"carried_forward": int(not observed)}, notes=details)


def _filled(name: str) -> pl.Expr:
    return (pl.col(name).cast(pl.String).str.strip_chars().fill_null("") != "").alias(name)


def checks_for_warehouse_table(
    asset: str,
    *,
    key: str | None,
    identifiers: Mapping[str, str | Sequence[str]],
    patterns: Mapping[str, str] = PATTERNS,
    normalisers: Mapping[str, str] = NORMALISERS,
    thresholds: Thresholds | None = None,
) -> list[Check]:
    """Return the checks of `warehouse/<t>`.

    `identifiers`: column to identifier type, or to several, as the settings have it; composites and nested paths are
    left out. `patterns` and `normalisers`: see :data:`PATTERNS` and :data:`NORMALISERS`.
    """
    t = thresholds or Thresholds()
    columns = {name: kinds if isinstance(kinds, str) else kinds[0] for name, kinds in identifiers.items()}
    checks = [readable_check(asset), shrink_check(asset, t)]
    if key:
        checks += [
            unique_key_check(asset, key, "mend the table in the warehouse, or map a view that has one row per key."),
            Check(
                asset,
                "ids_present",
                f"Every row has {key}.",
                lambda s: measures.ids_present(facts_of(s), [key]),
                remedy="correct the rows in the warehouse, or map another column as `key`.",
            ),
        ]
    if columns:
        checks += [
            Check(
                asset,
                "identifiers_filled",
                f"At least {t.filled_identifiers:.0%} of the rows carry an identifier ({', '.join(columns)}).",
                lambda s: identifiers_filled(s.rows(), _present(s, columns), t.filled_identifiers),
                remedy="look at the last load of the table: a column of `identifiers` was probably not filled; if so "
                "many rows name nobody, lower checks.filled_identifiers.",
                plotted=("identified_share",),
            ),
        ]
    if any(kind in patterns for kind in columns.values()):
        checks += [
            Check(
                asset,
                "identifiers_well_formed",
                f"At most {t.malformed_identifiers:.0%} of the filled identifiers do not look like their type.",
                lambda s: identifiers_well_formed(
                    s.rows(), _present(s, columns), t.malformed_identifiers, patterns, normalisers
                ),
                remedy="look at the last load of the table: a column was probably filled from another one.",
            ),
        ]
    return [
        *checks,
        column_check(asset, t),
        values_check(asset, "such values are null: read a view that turns them into text, or into null on purpose."),
        Check(
            asset,
            "read_from_source",
            "The day was read from the warehouse, not carried forward from an older one.",
            lambda s: was_observed(s.notes()),
            Severity.WARN,
            remedy="a live source has no past: older days stay as they were last seen.",
        ),
    ]


def _present(s: CheckContext, columns: Mapping[str, str]) -> dict[str, str]:
    return {name: kind for name, kind in columns.items() if name in facts_of(s).columns}
