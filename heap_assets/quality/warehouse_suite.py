"""The checks of warehouse tables: rules, judges, severities and thresholds of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from heap_assets.quality import heap_tables, warehouse
from heap_assets.quality.engine import Check, Subject
from heap_assets.quality.measures import column_check, facts_of, readable_check, shrink_check, values_check
from heap_assets.quality.results import Severity
from heap_assets.quality.thresholds import Thresholds
from heap_assets.quality.uniqueness import unique_keys


def checks_for_warehouse_table(
    asset: str,
    *,
    key: str | None,
    identifiers: Mapping[str, str | Sequence[str]],
    patterns: Mapping[str, str] = warehouse.PATTERNS,
    normalisers: Mapping[str, str] = warehouse.NORMALISERS,
    thresholds: Thresholds | None = None,
) -> list[Check]:
    """Return the checks of `warehouse/<t>`.

    Parameters
    ----------
    identifiers
        Column to identifier type, or to several, as the settings have it; composites and nested paths are left out.
    patterns, normalisers
        Identifier type to the regular expression that its values match, and to how they are normalised before.
    """
    t = thresholds or Thresholds()
    columns = {name: kinds if isinstance(kinds, str) else kinds[0] for name, kinds in identifiers.items()}
    checks = [readable_check(asset), shrink_check(asset, t)]
    if key:
        checks += [
            Check(
                asset,
                "unique_keys",
                f"No {key} is there twice.",
                lambda s: unique_keys(s.rows(), [key]),
                blocking=True,
                mend="mend the table in the warehouse, or map a view that has one row per key.",
            ),
            Check(asset, "ids_present", f"Every row has {key}.", lambda s: heap_tables.ids_present(facts_of(s), [key])),
        ]
    if columns:
        checks += [
            Check(
                asset,
                "identifiers_filled",
                f"At least {t.filled_identifiers:.0%} of the rows carry an identifier ({', '.join(columns)}).",
                lambda s: warehouse.identifiers_filled(s.rows(), _present(s, columns), t.filled_identifiers),
            ),
        ]
    if any(kind in patterns for kind in columns.values()):
        checks += [
            Check(
                asset,
                "identifiers_well_formed",
                f"At most {t.malformed_identifiers:.0%} of the filled identifiers do not look like their type.",
                lambda s: warehouse.identifiers_well_formed(
                    s.rows(), _present(s, columns), t.malformed_identifiers, patterns, normalisers
                ),
                mend="look at the last load of the table: a column was probably filled from another one.",
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
            lambda s: warehouse.was_observed(s.notes()),
            Severity.WARN,
            mend="a live source has no past: older days stay as they were last seen.",
        ),
    ]


def _present(s: Subject, columns: Mapping[str, str]) -> dict[str, str]:
    return {name: kind for name, kind in columns.items() if name in facts_of(s).columns}
