"""The contract of the table of unified events as a check."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from heap_assets.profiles import UNIFIED, UNIFIED_KEY
from heap_assets.quality.engine import Check, CheckContext
from heap_assets.quality.measures import TableFacts, readable_check, table_facts, unique_keys
from heap_assets.quality.results import CheckResult

_REQUIRED = [name for name, column in UNIFIED.items() if column.required]


def contract_holds(facts: TableFacts, contract: Mapping[str, str]) -> CheckResult:
    """Check that a day has the columns of the contract in their order with their types, and nulls where it may."""
    wrong = [name for name, dtype in contract.items() if facts.columns.get(name) != dtype]
    more = [name for name in facts.columns if name not in contract]
    is_ordered = bool(wrong or more) or list(facts.columns) == list(contract)
    missing = {name: facts.nulls[name] for name in _REQUIRED if facts.nulls.get(name)}
    notes = {"wrong_columns": ", ".join(wrong), "other_columns": ", ".join(more)}
    return CheckResult(
        passed=not (wrong or more or missing or facts.outside) and is_ordered,
        numbers={
            "rows": facts.rows,
            "wrong_columns": len(wrong) + len(more),
            "rows_of_other_days": facts.outside,
            **{f"rows_without_{name}": count for name, count in missing.items()},
        },
        notes={name: columns for name, columns in notes.items() if columns},
    )


def checks_for_unified_events(asset: str) -> list[Check]:
    """Return the checks of `unified_events`."""
    contract = {name: str(column.dtype) for name, column in UNIFIED.items()}
    remedy = "materialize the day again; if it stays, something else writes to the lake."

    def holds(s: CheckContext) -> CheckResult:
        return contract_holds(table_facts(s.rows(), s.day), contract)

    return [
        readable_check(asset),
        Check(
            asset,
            "contract_holds",
            f"The columns are those of the contract, each of its type; {', '.join(_REQUIRED)} are never null, and all "
            "rows are of the day.",
            holds,
            blocking=True,
            remedy=remedy,
        ),
        Check(
            asset,
            "unique_keys",
            f"No row is there twice by {', '.join(UNIFIED_KEY)}.",
            # rows of nobody have no identifier
            lambda s: unique_keys(s.rows().with_columns(pl.col(UNIFIED_KEY[-1]).fill_null("")), UNIFIED_KEY),
            remedy="look at the same check of the table that event_table names.",
        ),
    ]
