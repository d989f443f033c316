"""Decisions of people: those that the data broke, and those that touch nothing any more; the rule and its check."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from typing import Final

import polars as pl

from heap_assets.identity import Decision, Unusable
from heap_assets.quality.engine import Check, CheckContext
from heap_assets.quality.results import SAMPLE_ROWS, CheckResult, Severity
from heap_assets.storage import Lake
from heap_assets.tables import GRAPH

_KEY: Final = ("identifier_type", "identifier")
_LEAST: Final = {"same": 2, "apart": 2, "confirmed": 1}
"""How many of a decision's identifiers the graph must have; the values of `nobody` are in no graph."""
IDLE_DECISIONS: Final = "idle_decisions"
"""Note of `identity/graph`: ids of the `nobody` decisions no value of which any table has."""
_IDLE: Final = "touches nothing"


def decisions_hold(
    graph: pl.LazyFrame,
    decisions: Sequence[Decision],
    day: date,
    unusable: Sequence[Unusable] = (),
    idle: Sequence[str] = (),
) -> CheckResult:
    """Check that every decision of a day is followed by its graph, and is about identifiers that the data names.

    `graph`: identity/graph; an identifier without dates is named by nothing but a decision. `unusable`: decisions that
    cannot be followed, and why. `idle`: its note :data:`IDLE_DECISIONS`.

    A `same` is broken if its identifiers are on several profiles: an `apart`, or the removal of links, is between them.
    """
    excluding = [decision for decision in decisions if decision.holds_on(day) and decision.kind == "nobody"]
    held = [decision for decision in decisions if decision.holds_on(day) and decision.kind in _LEAST]
    rows = [(at, *pair) for at, decision in enumerate(held) for pair in decision.identifiers]
    named = pl.LazyFrame(rows, schema={"at": pl.Int64, **dict.fromkeys(_KEY, pl.String)}, orient="row")
    in_data = pl.col("first_seen").is_not_null() | pl.col("last_seen").is_not_null()
    counts = (
        named.join(graph.select(*_KEY, "profile_id", in_data=in_data), on=list(_KEY), how="left")
        .group_by("at")
        .agg(
            pl.col("profile_id").drop_nulls().n_unique().alias("profiles"),
            pl.col("profile_id").count().alias("owned"),
            pl.col("in_data").fill_null(value=False).sum(),
        )
        .sort("at")
        .collect()
    )
    failed = [(one.id, one.kind, one.problem) for one in unusable]
    for at, profiles, owned, in_data_count in counts.iter_rows():
        decision = held[at]
        is_broken = (decision.kind == "same" and profiles > 1) or (decision.kind == "apart" and profiles < owned)
        if is_broken or in_data_count < _LEAST[decision.kind]:
            failed.append((decision.id, decision.kind, "broken" if is_broken else _IDLE))
    failed += [(one.id, one.kind, _IDLE) for one in excluding if one.id in set(idle)]
    schema = {"decision": pl.String, "kind": pl.String, "problem": pl.String}
    offenders = pl.DataFrame(failed, schema=schema, orient="row")
    broken = offenders.filter(pl.col("problem") == "broken").height
    return CheckResult(
        passed=offenders.is_empty(),
        numbers={
            "decisions": len(held) + len(excluding),
            "broken": broken,
            "touch_nothing": offenders.height - broken - len(unusable),
            "unusable": len(unusable),
        },
        offenders=offenders.head(SAMPLE_ROWS) if failed else None,
        plain=("decision", "kind", "problem"),
    )


def checks_for_decisions(decisions: Callable[[Lake], tuple[Sequence[Decision], Sequence[Unusable]]]) -> list[Check]:
    """Return the check of `identity/graph` on what people have settled.

    `decisions`: returns all decisions, and those that cannot be followed.
    """

    def judged(subject: CheckContext) -> CheckResult:
        usable, unusable = decisions(subject.lake)
        idle = subject.notes().get(IDLE_DECISIONS, ())
        return decisions_hold(subject.rows(), usable, subject.day, unusable, idle)

    return [
        Check(
            GRAPH,
            "decisions_hold",
            "Every decision of a person holds, and is about identifiers that the data names.",
            judged,
            Severity.WARN,
            remedy="`heap-assets explain` on two identifiers of a broken one shows what is between them; take one that "
            "touches nothing out of the file of `identity.decisions`, or give it an end (`until`).",
        )
    ]
