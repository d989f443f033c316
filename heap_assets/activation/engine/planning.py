"""Plans a run: the rows to send, the rows set aside with reasons, and concerns that need confirmation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from statistics import median
from typing import Any

import polars as pl

from heap_assets.activation.engine.addressing import Addressed, no_addresses
from heap_assets.activation.engine.destination import Destination
from heap_assets.activation.engine.difference import OLD, Plan, plan_insert, plan_upsert, respelled
from heap_assets.activation.engine.event_keys import EventKey
from heap_assets.activation.engine.hashing import UNKNOWN, hashed_keys
from heap_assets.activation.engine.log import FIELD, Snapshot
from heap_assets.activation.engine.prepare import Prepared, prepare
from heap_assets.activation.engine.report import SyncReport
from heap_assets.activation.engine.spec import Guard, Mode, SyncSpec
from heap_assets.activation.engine.tables import SET_ASIDE_SCHEMA, usual_runs
from heap_assets.activation.engine.two_way import Merged, load_settled, merged
from heap_assets.storage import Store
from heap_assets.values import read_times


def concerns(
    guard: Guard, plan: Plan, prepared: Prepared, ledger: pl.DataFrame, changed_before: Sequence[float]
) -> list[str]:
    """Return what is unusual about an upsert plan; an empty list means that it can be sent.

    `changed_before`: share of known keys changed by each of the last seven runs.
    """
    keys = plan.counts["known"]
    if keys < guard.at_least:
        return []
    return [
        *_removal(guard, plan, keys),
        *([] if plan.full_resend_reason else _change(guard, plan.counts["changed"], keys, changed_before)),
        *_takeover(guard, plan, prepared, ledger),
    ]


def _removal(guard: Guard, plan: Plan, keys: int) -> list[str]:
    withdrawn = plan.counts["withdrawn"]
    if withdrawn <= guard.removed * keys:
        return []
    respelt = len(respelled(plan.send)[0])
    spelling = f"; {respelt} of them are numbers that are spelled otherwise now and are sent anew" if respelt else ""
    usual = f"up to {guard.removed:.0%} is usual"
    return [f"{withdrawn} of {keys} keys ({withdrawn / keys:.0%}) would lose a value; {usual}{spelling}"]


def _change(guard: Guard, changed: int, keys: int, earlier_shares: Sequence[float]) -> list[str]:
    share = changed / keys
    usual = median(earlier_shares) if earlier_shares else None
    if usual is None or share <= guard.changed or share <= guard.changed_times_median * usual:
        return []
    return [f"{changed} of {keys} keys ({share:.0%}) would change; the median of the last runs is {usual:.1%}"]


def _takeover(guard: Guard, plan: Plan, prepared: Prepared, ledger: pl.DataFrame) -> list[str]:
    """Find properties of which one value replaces others on many keys, as a wrong default would."""
    spreads = []
    for name in prepared.names:
        new, old = FIELD + name, OLD + name
        if old not in plan.send.columns or new not in ledger.columns:
            continue
        with_value = int((ledger[new] > UNKNOWN).sum())
        replaced = plan.send.filter(pl.col(old) > UNKNOWN, pl.col(new) > UNKNOWN, pl.col(new) != pl.col(old))
        frequent = replaced.group_by(new).len().sort("len", descending=True).head(3)
        gains = [rows - int((replaced[old] == value).sum()) for value, rows in frequent.iter_rows()]
        if gains and max(gains) > guard.takeover * with_value:
            spreads.append(
                f"one value of {name} would spread to {max(gains) / with_value:.0%} more of the keys that have one"
            )
    return spreads


def resent(guard: Guard, plan: Plan, key: EventKey, history: pl.DataFrame) -> tuple[Plan, list[str]]:
    """Count as changed the events of a plan that were delivered under another key, and return what is unusual about it.

    Those are events from before the newest day that was delivered (or without a time), as many as there are events that
    the last run knew and this one does not: one that came late, or was held, leaves no such gap.

    `history`: as :func:`heap_assets.activation.engine.tables.usual_runs` gives it.
    """
    in_table = (history["unchanged"] + history["sent"]).to_list()
    if not in_table or in_table[-1] < guard.at_least:
        return plan, []
    keys, newest = in_table[-1], history["newest_day"].max()
    if newest is None:  # no run has come to its end yet
        return plan, []
    happened = read_times(pl.col("time")).dt.date() if "time" in plan.send.columns else pl.lit(None, pl.Date)
    earlier = plan.send.filter((happened < newest).fill_null(value=True))
    changed = max(0, min(len(earlier), keys - plan.counts["unchanged"]))
    counted = replace(plan, counts={**plan.counts, "added": plan.counts["added"] - changed, "changed": changed})
    shares = [count / rows for count, rows in zip(history["changed"].to_list(), in_table, strict=True) if rows]
    usual = median(shares)
    if changed <= max(guard.changed, guard.changed_times_median * usual) * keys:
        return counted, []
    return counted, [
        f"{changed} events of days that were delivered would be sent again: of {keys} that the last run knew, "
        f"{plan.counts['unchanged']} are there under the key they had, which is made of {', '.join(key.needed)}. "
        "To send none of them, set `since` to today"
    ]


_AT_WORK = "the destination is still working on it"
_DECIMAL_PLACES = 9


@dataclass(frozen=True)
class SyncPlan:
    """The changes to send, with the rows set aside and the concerns."""

    changes: Plan
    set_aside: pl.DataFrame
    concerns: list[str]
    addressing: dict[str, int]
    no_consent: int = 0
    merge: Merged | None = None
    """Of a sync whose records are read back."""


def build_plan(
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
    forgotten: pl.Series,
    still_open: pl.Series | None = None,
) -> SyncPlan:
    """Compare the rows with the ledger; reads, and writes nothing.

    `forgotten`: keyed hashes of the keys that must never be sent again. `still_open`: keys that the destination is
    working on since an earlier run.
    """
    addressed_rows = rows if isinstance(rows, Addressed) else Addressed(rows, no_addresses(), no_addresses())
    held, invalid = addressed_rows.held.collect(), addressed_rows.invalid.collect()
    prepared = prepare(spec, destination, addressed_rows.rows, key)
    prepared, silenced = _without_forgotten(prepared, forgotten, key)
    held = pl.concat([held, silenced])
    worries: list[str] = []
    merge: Merged | None = None
    history = usual_runs(store, spec.folder)
    if destination.mode is Mode.INSERT:
        plan = plan_insert(prepared, state.frame, fence, spec, destination.dedupe)
        if addressed_rows.keyed is not None:
            plan, worries = resent(spec.guard, plan, addressed_rows.keyed.key, history)
    else:
        if addressed_rows.read_back is not None and destination.mode is Mode.UPSERT:
            merge = merged(
                *(addressed_rows.read_back, prepared, state.frame, addressed_rows.rows),
                load_settled(store, spec.folder),
                spec=spec,
                destination=destination,
                salt=key,
            )
            prepared, state = merge.prepared, replace(state, frame=merge.ledger)
        withdraws = destination.mode is Mode.SET or spec.clears_without_consent
        unasked = [] if withdraws else [prepared.no_consent]
        untouchable = pl.concat([held["key"], invalid["key"], *unasked]).drop_nulls()
        writable = addressed_rows.writable.collect()["key"] if addressed_rows.writable is not None else None
        mapping = spec.mapping_version(destination.target)
        plan = plan_upsert(
            prepared,
            state.frame,
            spec,
            day=day,
            mapping=mapping,
            fence=fence,
            dedupe=destination.dedupe,
            untouchable=untouchable,
            writable=writable,
            force=force,
            replaces=destination.replaces,
        )
        changing = history.filter(pl.col("known") > 0)
        shares = (changing["changed"] / changing["known"]).to_list()
        worries = concerns(spec.guard, plan, prepared, state.frame, shares)
    reasons = destination.held_rows(plan.send, state.frame)
    if still_open is not None and len(still_open):
        reasons = reasons.set(plan.send["key"].is_in(still_open.implode()) & reasons.is_null(), _AT_WORK)
    late = plan.send.with_columns(reason=reasons).filter(reasons.is_not_null())
    plan = replace(plan, send=plan.send.filter(reasons.is_null()))
    aside = [(invalid, "invalid"), (prepared.invalid, "invalid"), (held, "held"), (late, "held")]
    labelled = [_aside(frame, kind, spec.name, day, key) for frame, kind in aside if len(frame)]
    set_aside = pl.concat([pl.DataFrame(schema=SET_ASIDE_SCHEMA), *labelled])
    return SyncPlan(plan, set_aside, worries, addressed_rows.counts, len(prepared.no_consent), merge)


def _without_forgotten(prepared: Prepared, hashes: pl.Series, key: bytes) -> tuple[Prepared, pl.DataFrame]:
    """Remove rows of forgotten people; returns them as held rows without key and profile."""
    if not len(hashes):
        return prepared, no_addresses().collect()
    silenced = pl.Series([False] * len(prepared.rows), dtype=pl.Boolean)
    for column in (c for c in ("key", "anonymous_id", "event_key") if c in prepared.rows.columns):
        for spelt in _spellings(prepared.rows[column]):
            silenced |= hashed_keys(spelt, key).is_in(hashes.to_list()).fill_null(value=False)
    count = int(silenced.sum())
    nameless = pl.DataFrame({"profile_id": [None] * count, "key": [None] * count, "reason": ["forgotten"] * count})
    rows = prepared.rows.filter(~silenced)
    return replace(prepared, rows=rows), nameless.cast(no_addresses().collect_schema())


def _spellings(keys: pl.Series) -> Iterator[pl.Series]:
    """Yield keys as they are, and whole numbers as floats and decimals of up to 9 places spelled them before."""
    yield keys
    is_whole = keys.str.contains(r"^-?[0-9]+$").fill_null(value=False)
    if is_whole.any():
        numbers = keys.to_frame("key").select(pl.when(is_whole).then("key"))["key"]
        yield from (numbers + ("." + "0" * places) for places in range(1, _DECIMAL_PLACES + 1))


def _aside(frame: pl.DataFrame, kind: str, sync: str, day: date, key: bytes) -> pl.DataFrame:
    profile = pl.col("profile_id") if "profile_id" in frame.columns else pl.lit(None)
    labelled = frame.select(profile_id=profile, reason="reason").with_columns(
        hashed_keys(frame["key"], key), sync=pl.lit(sync), kind=pl.lit(kind), day=pl.lit(day), run_id=pl.lit("")
    )
    return labelled.select(pl.col(c).cast(t) for c, t in SET_ASIDE_SCHEMA.items())


def planned(report: SyncReport, plan: SyncPlan, key: bytes) -> SyncReport:
    """Put the numbers of a plan into a report."""
    counts: dict[str, Any] = dict(plan.changes.counts)
    refused = counts.pop("invalid", 0)
    invalid = plan.set_aside.filter(pl.col("kind") == "invalid")
    held = plan.set_aside.filter(pl.col("kind") == "held")
    return replace(
        report,
        planned=len(plan.changes.send),
        invalid=len(invalid) + refused,
        no_consent=plan.no_consent,
        left=plan.merge.fields if plan.merge is not None else 0,
        held=len(held),
        invalid_reasons=count_reasons(invalid["reason"]),
        held_reasons=count_reasons(held["reason"]),
        full_resend_reason=plan.changes.full_resend_reason,
        new_properties=plan.changes.new_names,
        concerns=tuple(plan.concerns),
        addressing=plan.addressing,
        forced=tuple(hashed_keys(plan.changes.forced, key).to_list()),
        **counts,
    )


def count_reasons(reasons: pl.Series) -> dict[str, int]:
    """Count equal reasons, the twenty most frequent."""
    if not len(reasons):
        return {}
    counts = reasons.alias("reason").to_frame().group_by("reason").len().sort("len", "reason", descending=[True, False])
    return dict(counts.head(20).iter_rows())
