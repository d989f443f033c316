"""Judges of warehouse tables: what makes a table fit to identify people by."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from heap_assets.identity import normalised
from heap_assets.quality.results import Verdict, nothing_to_judge_by
from heap_assets.values import (
    PRIVATE,
)

_ROWS = f"{PRIVATE}rows"
_ANY = f"{PRIVATE}any"

PATTERNS: Mapping[str, str] = {
    "email": r"^[^\s@]+@[^\s@]+\.[^\s@.]+$",
    "heap_user_id": r"^[0-9]{1,19}$",
}
"""What a value of a type looks like, once normalised; the same as the engine takes for an identifier."""
NORMALISERS: Mapping[str, str] = {"email": "email"}
"""How values of a type are normalised before they are looked at; trimmed where nothing is said."""


def identifiers_filled(rows: pl.LazyFrame, columns: Mapping[str, str], least: float) -> Verdict:
    """Judge that the columns which identify people are filled at all.

    Parameters
    ----------
    columns
        Column to identifier type.
    least
        Share of rows that must carry at least one of them.
    """
    filled = {name: _filled(name) for name in columns}
    found = rows.select(
        pl.len().alias(_ROWS),
        pl.any_horizontal(*filled.values()).sum().alias(_ANY),
        *(expr.sum().alias(name) for name, expr in filled.items()),
    )
    counts = found.collect().row(0, named=True)
    total, identified = counts.pop(_ROWS), counts.pop(_ANY) or 0
    share = identified / total if total else 1.0
    shares = {name: (count or 0) / total if total else 1.0 for name, count in counts.items()}
    return Verdict(
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
) -> Verdict:
    """Judge that values look like their type: an email column full of names links nobody, or everybody.

    Parameters
    ----------
    columns
        Column to identifier type.
    allowed
        Share of a column's filled values that may be malformed.
    patterns
        Identifier type to a regular expression; types without one are not judged.
    normalisers
        Identifier type to the normaliser that its values go through first, as they do when people are resolved.
    """
    judged = {name: patterns[kind] for name, kind in columns.items() if kind in patterns}
    if not judged:
        return nothing_to_judge_by("no mapped column with a pattern is in the table")
    figures = []
    for name, pattern in judged.items():
        text = normalised(pl.col(name).cast(pl.String), normalisers.get(columns[name], "strip")).str.strip_chars()
        figures += [
            _filled(name).sum().alias(f"filled {name}"),
            (_filled(name) & ~text.str.contains(pattern)).sum().alias(f"bad {name}"),
        ]
    found = rows.select(figures).collect().row(0, named=True)
    shares = {name: (found[f"bad {name}"] or 0) / max(found[f"filled {name}"] or 0, 1) for name in judged}
    table = pl.DataFrame(
        {
            "column": list(judged),
            "type": [columns[name] for name in judged],
            "malformed": [found[f"bad {name}"] or 0 for name in judged],
            "share": [round(shares[name], 4) for name in judged],
        }
    ).filter(pl.col("malformed") > 0)
    return Verdict(
        passed=all(share <= allowed for share in shares.values()),
        numbers={"allowed_share": allowed, **{f"malformed_{name}": found[f"bad {name}"] or 0 for name in judged}},
        offenders=table if table.height else None,
        plain=("column", "type", "malformed", "share"),
    )


def was_observed(notes: Mapping[str, object]) -> Verdict:
    """Judge that a snapshot was read from its source, not carried forward from an older day."""
    observed = notes.get("observed") is not False
    told = {key: str(notes[key]) for key in ("observed_at", "carried_from") if notes.get(key)}
    return Verdict(passed=observed, numbers={"carried_forward": int(not observed)}, notes=told)


def values_kept(notes: Mapping[str, object]) -> Verdict:
    """Judge that every value could be kept: what no type of the lake holds is null instead (docs/values.md).

    Parameters
    ----------
    notes
        Of the partition; `values_lost_in` has column to count.
    """
    lost = notes.get("values_lost_in")
    counts = {str(name): int(count) for name, count in lost.items()} if isinstance(lost, Mapping) else {}
    return Verdict(
        passed=not counts,
        numbers={"values_lost": sum(counts.values())},
        notes={"columns": ", ".join(f"{name}: {count}" for name, count in sorted(counts.items()))} if counts else {},
    )


def _filled(name: str) -> pl.Expr:
    return (pl.col(name).cast(pl.String).str.strip_chars().fill_null("") != "").alias(name)
