"""The compiled engine: Numba kernels over arrays of one machine, and a state into which changes are folded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from functools import partial
from typing import Any, Final

import polars as pl

from heap_assets.identity.engine.base import LinksOfDay, Resolution
from heap_assets.identity.engine.native.fold import fold, touch_last_seen
from heap_assets.identity.engine.native.memory import failing_clearly
from heap_assets.identity.engine.native.shared import shared_table
from heap_assets.identity.engine.native.state import State, load, save
from heap_assets.identity.engine.native.tables import Resolved, conflicts_table, graph_table, resolved, write_graph
from heap_assets.identity.rules import Rules
from heap_assets.identity.schemas import ENDS, LINKS, aggregated
from heap_assets.storage import Store

_KEY: Final = [*ENDS, "source"]
_TOO_MUCH: Final = 0.4
"""Share of changed links above which computing everything is no slower."""


@dataclass(frozen=True)
class Delta:
    """Changed links.

    Attributes
    ----------
    removed, added
        Ends and source of links; links.
    last_seen
        Tables all whose links are last seen on another day, with its first microsecond.
    inputs
        Number of changed inputs.
    """

    removed: pl.DataFrame
    added: pl.DataFrame
    last_seen: Mapping[str, int]
    inputs: int


def delta_of(
    store: Store,
    folded: Mapping[str, str],
    snapshots: Mapping[str, str],
    size: int,
    now: LinksOfDay,
) -> tuple[Delta | None, str]:
    """Compare inputs.

    Parameters
    ----------
    folded, snapshots
        Inputs of the state: `table|day` to file, and snapshot table to :attr:`CurrentSnapshot.version`.
    size
        How many links the state has.

    Returns the delta; or None and the reason why only computing all at once will do.
    """
    removed, added, inputs = [pl.LazyFrame(schema={key: LINKS[key] for key in _KEY})], [pl.LazyFrame(schema=LINKS)], 0
    current = {f"{part.table}|{part.day.isoformat()}": part for part in now.events.values()}
    changed = {key for key in {*folded, *current} if folded.get(key) != (current[key].file if key in current else None)}
    for table in sorted({key.rpartition("|")[0] for key in changed}):
        keys = sorted(key for key in changed if key.rpartition("|")[0] == table)
        former = {key: f"{folded[key]}-links.parquet" for key in keys if key in folded}
        if not all(map(store.is_whole, former.values())):
            return None, f"links of {table} that were folded are no longer there"
        added.extend(tagged(current[key].links, table) for key in keys if key in current)
        versions = [(store.scan(file), current[k].links if k in current else None) for k, file in former.items()]
        reduced = _reduced(versions)
        removed.append(tagged(reduced, table))
        if former and (remaining := [part.links for part in now.events.values() if part.table == table]):
            recombined = pl.concat(remaining).join(reduced, on=_KEY, how="semi", nulls_equal=True)
            added.append(tagged(recombined, table))
        inputs += len(keys)
    last_seen = {}
    for table in sorted({*snapshots, *now.snapshots}):
        snapshot = now.snapshots.get(table)
        if snapshot is not None and snapshots.get(table) == snapshot.version:
            continue
        day, timeless, file = snapshots.get(table, "||").split("|", 2)
        if file and not store.is_whole(file):
            return None, f"links of {table} that were folded are no longer there"
        before = store.scan(file) if file else pl.LazyFrame(schema=LINKS)
        after = pl.LazyFrame(schema=LINKS) if snapshot is None else snapshot.links
        compared = [*_KEY, "first_seen", "authoritative", "last_seen"]
        if snapshot is not None and snapshot.timeless and timeless == "1" and date.fromisoformat(day) <= snapshot.day:
            compared.remove("last_seen")
            last_seen[table] = int(datetime.combine(snapshot.day, time(), UTC).timestamp()) * 1_000_000
        removed.append(tagged(before.join(after, on=compared, how="anti", nulls_equal=True).select(_KEY), table))
        added.append(tagged(after.join(before, on=compared, how="anti", nulls_equal=True), table))
        inputs += 1
    out, into = pl.concat(removed).unique().collect(), aggregated(pl.concat(added)).select(list(LINKS)).collect()
    if out.height + into.height > _TOO_MUCH * max(size, 1):
        return None, f"{out.height + into.height} links changed of {size}"
    return Delta(out, into, last_seen, inputs), ""


def _reduced(versions: Sequence[tuple[pl.LazyFrame, pl.LazyFrame | None]]) -> pl.LazyFrame:
    """Find links whose range of dates, count or authority became less in an input: their table is aggregated again."""
    links = [pl.LazyFrame(schema={key: LINKS[key] for key in _KEY})]
    for before, after in versions:
        if after is None:
            links.append(before.select(_KEY))
            continue
        both = before.join(after, on=_KEY, how="left", nulls_equal=True, suffix="_now", coalesce=True)
        is_less = (
            pl.col("count_now").is_null()
            | (pl.col("first_seen").is_not_null() & (pl.col("first_seen_now") <= pl.col("first_seen")).ne_missing(True))
            | (pl.col("last_seen").is_not_null() & (pl.col("last_seen_now") >= pl.col("last_seen")).ne_missing(True))
            | (pl.col("authoritative") & ~pl.col("authoritative_now"))
        )
        links.append(both.filter(is_less).select(_KEY))
    return pl.concat(links).unique()


def tagged(links: pl.LazyFrame, table: str) -> pl.LazyFrame:
    """Prefix each source with the table: a state holds the links of each table separately."""
    return links.with_columns(pl.lit(f"{table}\x1f").add(pl.col("source")).alias("source"))


class NativeEngine:
    """The engine in `engine/native`. Its state is a cache: deleting it costs time and nothing else."""

    def resolve(self, links: pl.LazyFrame, rules: Rules) -> Resolution:
        """Resolve links, see :class:`Engine`."""
        with failing_clearly("resolving links"):
            return as_resolution(resolved(links, rules))

    def advance(self, store: Store, links: LinksOfDay, rules: Rules) -> tuple[Resolution, dict[str, Any]]:
        """Fold the changes since the stored state into it, or compute everything where that is no slower."""
        with failing_clearly(f"resolving {links.day}"):
            return _advance(store, links, rules)


def _advance(store: Store, now: LinksOfDay, rules: Rules) -> tuple[Resolution, dict[str, Any]]:
    inputs = {f"{part.table}|{part.day.isoformat()}": part.file for part in now.events.values()}
    snapshots = {name: part.version for name, part in now.snapshots.items()}
    state = load(store)
    why = "no state of this version" if state is None else ""
    if state is not None and state.digest != rules.rules_digest:
        why = "the rules changed"
    change: Delta | None = None
    if state is not None and not why:
        change, why = delta_of(store, state.inputs, state.snapshots, state.row_a.size, now)
    if state is None or change is None:
        parts = [tagged(part.links, part.table) for part in (*now.events.values(), *now.snapshots.values())]
        every = pl.concat(parts) if parts else pl.LazyFrame(schema=LINKS)
        state = State.of(resolved(every, rules, keep_rows=True), rules.rules_digest)
        state.inputs, state.snapshots = inputs, snapshots
        save(state, store)
        return as_resolution(state.resolved(rules)), {"mode": "full", "why": why}
    if state.inputs == inputs and state.snapshots == snapshots and state.apart == rules.apart:
        return as_resolution(state.resolved(rules)), {"mode": "unchanged", "why": "no input changed"}
    folded = fold(state, change.removed, change.added, rules)
    for name, last in change.last_seen.items():
        touch_last_seen(state, name, last)
    state.inputs, state.snapshots = inputs, snapshots
    save(state, store)
    notes = {
        "mode": "incremental", "why": f"{change.inputs} inputs changed", "changed_links": folded.changed_links,
        "touched_identifiers": folded.touched_identifiers, "touched_links": folded.touched_links,
    }  # fmt: skip
    return as_resolution(state.resolved(rules)), notes


def as_resolution(result: Resolved) -> Resolution:
    """Return arrays as lazy frames."""
    return Resolution(
        graph=graph_table(result),
        conflicts=conflicts_table(result).lazy(),
        shared=shared_table(result.components, result.encoded, result.rules).lazy(),
        profiles=result.profiles.order.size,
        identifiers=result.identifiers,
        graph_writer=partial(write_graph, result),
    )
