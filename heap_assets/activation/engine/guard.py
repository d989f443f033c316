"""What is unusual about a plan, so that somebody has to confirm it before it is sent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import median

import polars as pl

from heap_assets.activation.engine.difference import OLD, Plan
from heap_assets.activation.engine.event_keys import EventKey
from heap_assets.activation.engine.hashing import UNKNOWN
from heap_assets.activation.engine.log import FIELD
from heap_assets.activation.engine.spec import Guard
from heap_assets.activation.engine.spill import PlannedRows
from heap_assets.values import read_times

_ROUNDED = 1 - 1e-9
"""What is computed of a whole may be more than it by as much as floats are inexact."""


def concerns(
    guard: Guard,
    plan: Plan,
    rows: PlannedRows,
    valued: Mapping[str, int],
    respelt: int,
    changed_before: Sequence[float],
) -> list[str]:
    """Return what is unusual about an upsert plan; an empty list means that it can be sent.

    Parameters
    ----------
    rows
        All rows of the plan.
    valued
        Property to the number of keys that have a value of it at the destination.
    respelt
        Keys that are withdrawn because they are spelled otherwise now.
    changed_before
        Share of known keys changed by each of the last seven runs.
    """
    keys = plan.counts["known"]
    if keys < guard.at_least:
        return []
    return [
        *_removal(guard, plan.counts["withdrawn"], keys, respelt),
        *([] if plan.full_resend_reason else _change(guard, plan.counts["changed"], keys, changed_before)),
        *(_takeover(guard, rows, valued) if plan.counts["changed"] else []),
    ]


def _removal(guard: Guard, withdrawn: int, keys: int, respelt: int) -> list[str]:
    if withdrawn <= guard.removed * keys:
        return []
    spelling = f"; {respelt} of them are numbers that are spelled otherwise now and are sent anew" if respelt else ""
    usual = f"up to {guard.removed:.0%} is usual"
    return [f"{withdrawn} of {keys} keys ({withdrawn / keys:.0%}) would lose a value; {usual}{spelling}"]


def _change(guard: Guard, changed: int, keys: int, earlier_shares: Sequence[float]) -> list[str]:
    share = changed / keys
    usual = median(earlier_shares) if earlier_shares else None
    if usual is None or share <= guard.changed or share <= guard.changed_times_median * usual:
        return []
    return [f"{changed} of {keys} keys ({share:.0%}) would change; the median of the last runs is {usual:.1%}"]


def _takeover(guard: Guard, rows: PlannedRows, valued: Mapping[str, int]) -> list[str]:
    """Find properties of which one value replaces others on many keys, as a wrong default would."""
    spreads = []
    for name, gains in _gains(rows, {name: guard.takeover * count for name, count in valued.items()}).items():
        if max(gains) > guard.takeover * valued[name]:
            spreads.append(
                f"one value of {name} would spread to {max(gains) / valued[name]:.0%} more of the keys that have one"
            )
    return spreads


def _gains(rows: PlannedRows, limits: Mapping[str, float]) -> dict[str, list[int]]:
    """Return by property, of the three values that replace most others, how many keys each gains.

    `limits`: by property, how many others a value has to replace to be of interest. Some frame has its share of
    them, so that only values that have it are counted in all frames.
    """
    frequent: defaultdict[str, list[pl.Series]] = defaultdict(list)
    for frame in rows.frames():
        for name, replaced in _replaced(frame, limits):
            share = limits[name] * (len(frame) / len(rows))
            counts = replaced.group_by("new").len().filter(pl.col("len") > share * _ROUNDED)
            frequent[name] += [counts["new"]] if len(counts) else []
    values = {name: pl.concat(frequent[name]).unique() for name in limits if frequent[name]}
    counted: defaultdict[str, list[pl.DataFrame]] = defaultdict(list)
    for frame in rows.frames() if values else ():
        for name, replaced in _replaced(frame, values):
            gained, lost = (replaced.group_by(value=side).len() for side in ("new", "old"))
            both = pl.concat(
                [gained.with_columns(lost=0), lost.select("value", len=0, lost="len")], how="vertical_relaxed"
            )
            counted[name].append(both.filter(pl.col("value").is_in(values[name].implode())))
    gains = {}
    for name, frames in counted.items():
        sums = pl.concat(frames, how="vertical_relaxed").group_by("value").sum().sort("len", descending=True).head(3)
        gains[name] = sums.select(pl.col("len").cast(pl.Int64) - pl.col("lost").cast(pl.Int64)).to_series().to_list()
    return gains


def _replaced(frame: pl.DataFrame, names: Mapping[str, object]) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yield by property the hashes `new` and `old` of the rows in which one value takes the place of another."""
    for name in names:
        if OLD + name in frame.columns:
            pair = frame.select(new=FIELD + name, old=OLD + name)
            yield name, pair.filter(pl.col("old") > UNKNOWN, pl.col("new") > UNKNOWN, pl.col("new") != pl.col("old"))


def resent(guard: Guard, plan: Plan, rows: PlannedRows, key: EventKey, history: pl.DataFrame) -> tuple[Plan, list[str]]:
    """Count as changed the events of a plan that were delivered under another key, and return what is unusual about it.

    Those are events from before the newest day that was delivered (or without a time), as many as there are events that
    the last run knew and this one does not: one that came late, or was held, leaves no such gap.

    `rows`: all rows of the plan. `history`: as :func:`heap_assets.activation.engine.tables.usual_runs` gives it.
    """
    in_table = (history["unchanged"] + history["sent"]).to_list()
    if not in_table or in_table[-1] < guard.at_least:
        return plan, []
    keys, newest = in_table[-1], history["newest_day"].max()
    if newest is None:  # no run has come to its end yet
        return plan, []
    happened = read_times(pl.col("time")).dt.date() if "time" in plan.send.columns else pl.lit(None, pl.Date)
    earlier = len(rows.filter((happened < newest).fill_null(value=True)))
    changed = max(0, min(earlier, keys - plan.counts["unchanged"]))
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
