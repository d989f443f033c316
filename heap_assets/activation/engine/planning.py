"""Everything a run decides before it sends: what is due, what is set aside and why, what is worrying."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from statistics import median
from typing import Any

import polars as pl

from heap_assets.activation.engine.addressing import Addressed, nobody
from heap_assets.activation.engine.destination import Destination
from heap_assets.activation.engine.difference import OLD, Plan, Prepared, plan_insert, plan_upsert, prepare
from heap_assets.activation.engine.hashing import UNKNOWN, hashed_keys
from heap_assets.activation.engine.log import FIELD, Snapshot
from heap_assets.activation.engine.maintenance import forgotten
from heap_assets.activation.engine.report import SyncReport
from heap_assets.activation.engine.spec import Guard, Mode, SyncSpec
from heap_assets.activation.engine.tables import SET_ASIDE_SCHEMA, runs
from heap_assets.storage import Store


def concerns(
    guard: Guard, plan: Plan, prepared: Prepared, ledger: pl.DataFrame, changed_before: Sequence[float]
) -> list[str]:
    """Say what is unusual about an upsert plan; an empty list means that it can be sent.

    Parameters
    ----------
    changed_before
        Share of known keys changed by each of the last seven runs.
    """
    known = plan.counts["known"]
    if known < guard.at_least:
        return []
    return [
        *_removal(guard, plan.counts["withdrawn"], known),
        *([] if plan.full_resend_reason else _change(guard, plan.counts["changed"], known, changed_before)),
        *_takeover(guard, plan, prepared, ledger),
    ]


def _removal(guard: Guard, withdrawn: int, known: int) -> list[str]:
    if withdrawn <= guard.removed * known:
        return []
    return [
        f"{withdrawn} of {known} keys ({withdrawn / known:.0%}) would lose a value; up to {guard.removed:.0%} is usual"
    ]


def _change(guard: Guard, changed: int, known: int, before: Sequence[float]) -> list[str]:
    share = changed / known
    usual = median(before) if before else None
    if usual is None or share <= guard.changed or share <= guard.changed_times_median * usual:
        return []
    return [f"{changed} of {known} keys ({share:.0%}) would change; the median of the last runs is {usual:.1%}"]


def _takeover(guard: Guard, plan: Plan, prepared: Prepared, ledger: pl.DataFrame) -> list[str]:
    """Find a property of which one value spreads over keys that had another: a default that overwrites."""
    spreads = []
    for name in prepared.names:
        new, old = FIELD + name, OLD + name
        if old not in plan.send.columns or new not in ledger.columns:
            continue
        known = int((ledger[new] > UNKNOWN).sum())
        moved = plan.send.filter(pl.col(old) > UNKNOWN, pl.col(new) > UNKNOWN, pl.col(new) != pl.col(old))
        taken = moved.group_by(new).len().sort("len", descending=True).head(3)
        gains = [rows - int((moved[old] == value).sum()) for value, rows in taken.iter_rows()]
        if gains and max(gains) > guard.takeover * known:
            spreads.append(
                f"one value of {name} would spread to {max(gains) / known:.0%} more of the keys that have one"
            )
    return spreads


MEDIAN_OF = 7
"""Runs whose share of changes says what is usual."""


@dataclass(frozen=True)
class Considered:
    """A plan with everything that was set aside on the way to it."""

    plan: Plan
    prepared: Prepared
    set_aside: pl.DataFrame
    concerns: list[str]
    addressing: dict[str, int]


def consider(
    spec: SyncSpec,
    destination: Destination,
    rows: pl.LazyFrame | Addressed,
    state: Snapshot,
    store: Store,
    key: bytes,
    *,
    day: date,
    fence: int,
    force: bool,
) -> Considered:
    """Compare the rows with the ledger; reads, and writes nothing."""
    given = rows if isinstance(rows, Addressed) else Addressed(rows, nobody(), nobody())
    held, invalid = given.held.collect(), given.invalid.collect()
    prepared = prepare(spec, destination, given.rows, key)
    prepared, silenced = _without_forgotten(prepared, forgotten(store, spec.name), key)
    held = pl.concat([held, silenced])
    worries: list[str] = []
    if destination.mode is Mode.INSERT:
        plan = plan_insert(prepared, state.frame, fence, spec)
    else:
        untouchable = pl.concat([held["key"], invalid["key"]]).drop_nulls()
        writable = given.writable.collect()["key"] if given.writable is not None else None
        mapping = spec.mapping_version(destination.target)
        plan = plan_upsert(
            prepared,
            state.frame,
            spec,
            day=day,
            mapping=mapping,
            fence=fence,
            untouchable=untouchable,
            writable=writable,
            force=force,
        )
        history = runs(store, spec.folder, last=MEDIAN_OF).filter(pl.col("known") > 0, pl.col("sent") >= 0)
        shares = (history["changed"] / history["known"]).to_list()
        worries = concerns(spec.guard, plan, prepared, state.frame, shares)
    withheld = destination.withheld(plan.send, state.frame)
    late = plan.send.with_columns(reason=withheld).filter(withheld.is_not_null())
    plan = replace(plan, send=plan.send.filter(withheld.is_null()))
    aside = [(invalid, "invalid"), (prepared.invalid, "invalid"), (held, "held"), (late, "held")]
    return Considered(
        plan, prepared, pl.concat([_aside(f, k, spec.name, day, key) for f, k in aside]), worries, given.counts
    )


def _without_forgotten(prepared: Prepared, hashes: pl.Series, key: bytes) -> tuple[Prepared, pl.DataFrame]:
    """Set rows of forgotten people apart; nothing of theirs is written down but the hash that refuses them."""
    if not len(hashes):
        return prepared, nobody().collect()
    silenced = pl.Series([False] * len(prepared.rows), dtype=pl.Boolean)
    for column in (c for c in ("key", "anonymous_id", "event_key") if c in prepared.rows.columns):
        silenced |= hashed_keys(prepared.rows[column], key).is_in(hashes.to_list()).fill_null(value=False)
    count = int(silenced.sum())
    nameless = pl.DataFrame({"profile_id": [None] * count, "key": [None] * count, "reason": ["forgotten"] * count})
    rows = prepared.rows.filter(~silenced)
    return replace(prepared, rows=rows), nameless.cast(nobody().collect_schema())


def _aside(frame: pl.DataFrame, kind: str, sync: str, day: date, key: bytes) -> pl.DataFrame:
    profile = pl.col("profile_id") if "profile_id" in frame.columns else pl.lit(None)
    labelled = frame.select(profile_id=profile, reason="reason").with_columns(
        hashed_keys(frame["key"], key), sync=pl.lit(sync), kind=pl.lit(kind), day=pl.lit(day), run_id=pl.lit("")
    )
    return labelled.select(pl.col(c).cast(t) for c, t in SET_ASIDE_SCHEMA.items())


def planned(report: SyncReport, seen: Considered, key: bytes) -> SyncReport:
    """Put the numbers of a plan into a report."""
    counts: dict[str, Any] = dict(seen.plan.counts)
    invalid = seen.set_aside.filter(pl.col("kind") == "invalid")
    held = seen.set_aside.filter(pl.col("kind") == "held")
    return replace(
        report,
        planned=len(seen.plan.send),
        invalid=len(invalid),
        held=len(held),
        invalid_reasons=counted(invalid["reason"]),
        held_reasons=counted(held["reason"]),
        full_resend_reason=seen.plan.full_resend_reason,
        new_properties=seen.plan.new_names,
        concerns=tuple(seen.concerns),
        addressing=seen.addressing,
        forced=tuple(hashed_keys(seen.plan.forced, key).to_list()),
        **counts,
    )


def counted(reasons: pl.Series) -> dict[str, int]:
    """Count equal reasons, the twenty most frequent."""
    counts = reasons.alias("reason").to_frame().group_by("reason").len().sort("len", "reason", descending=[True, False])
    return dict(counts.head(20).iter_rows())
