"""The compiled engine: Numba kernels over arrays of one machine, and a state that takes in what changed since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from functools import partial
from typing import Any, Final

import polars as pl

from heap_assets.identity.engine.base import LinksOfDay, Resolution
from heap_assets.identity.engine.native.fold import carry, fold
from heap_assets.identity.engine.native.graph import graph_table, write_graph
from heap_assets.identity.engine.native.memory import failing_clearly
from heap_assets.identity.engine.native.shared import shared_table
from heap_assets.identity.engine.native.state import State, load, save
from heap_assets.identity.engine.native.tables import Resolved, conflicts_table, resolved
from heap_assets.identity.rules import Rules
from heap_assets.identity.shapes import ENDS, LINKS, aggregated
from heap_assets.storage import Store

_KEY: Final = [*ENDS, "source"]
_TOO_MUCH: Final = 0.4
"""Share of changed links above which computing all at once is no slower."""


@dataclass(frozen=True)
class Delta:
    """Links that go (ends and source), links that come, and tables whose links all are last seen at another day."""

    gone: pl.DataFrame
    came: pl.DataFrame
    carried: Mapping[str, int]
    inputs: int


def delta_of(
    store: Store,
    folded: Mapping[str, str],
    stood: Mapping[str, str],
    size: int,
    now: LinksOfDay,
) -> tuple[Delta | None, str]:
    """Compare inputs.

    Parameters
    ----------
    folded, stood
        What the state has folded: `table|day` to file, and snapshot table to :attr:`StandingSnapshot.version`.
    size
        How many links the state has.

    Returns
    -------
    The delta; or None and the reason why only computing all at once will do.
    """
    gone, came, inputs = [pl.LazyFrame(schema={key: LINKS[key] for key in _KEY})], [pl.LazyFrame(schema=LINKS)], 0
    current = {f"{part.table}|{part.day.isoformat()}": part for part in now.events.values()}
    changed = {key for key in {*folded, *current} if folded.get(key) != (current[key].file if key in current else None)}
    for table in sorted({key.rpartition("|")[0] for key in changed}):
        mine = sorted(key for key in changed if key.rpartition("|")[0] == table)
        lost = [f"{folded[key]}-links.parquet" for key in mine if key in folded]
        if not all(map(store.is_whole, lost)):
            return None, f"links of {table} that were folded are no longer there"
        added = [current[key].links for key in mine if key in current]
        reduced = _reduced(
            [
                (store.scan(f"{folded[k]}-links.parquet"), current[k].links if k in current else None)
                for k in mine
                if k in folded
            ]
        )
        left = [part.links for part in now.events.values() if part.table == table]
        again = pl.concat(left).join(reduced, on=_KEY, how="semi", nulls_equal=True) if left and lost else None
        gone.append(tagged(reduced, table))
        came.extend(tagged(part, table) for part in (*added, *([again] if again is not None else [])))
        inputs += len(mine)
    carried = {}
    for table in sorted({*stood, *now.standing}):
        stands = now.standing.get(table)
        if stands is not None and stood.get(table) == stands.version:
            continue
        day, timeless, file = stood.get(table, "||").split("|", 2)
        if file and not store.is_whole(file):
            return None, f"links of {table} that were folded are no longer there"
        before = store.scan(file) if file else pl.LazyFrame(schema=LINKS)
        after = pl.LazyFrame(schema=LINKS) if stands is None else stands.links
        carries = stands is not None and stands.timeless and timeless == "1" and date.fromisoformat(day) <= stands.day
        compared = [*_KEY, "first_seen", "authoritative", *([] if carries else ["last_seen"])]
        gone.append(tagged(before.join(after, on=compared, how="anti", nulls_equal=True).select(_KEY), table))
        came.append(tagged(after.join(before, on=compared, how="anti", nulls_equal=True), table))
        if carries and stands is not None:
            carried[table] = int(datetime.combine(stands.day, time(), UTC).timestamp()) * 1_000_000
        inputs += 1
    out, into = pl.concat(gone).unique().collect(), aggregated(pl.concat(came)).select(list(LINKS)).collect()
    if out.height + into.height > _TOO_MUCH * max(size, 1):
        return None, f"{out.height + into.height} links changed of {size}"
    return Delta(out, into, carried, inputs), ""


def _reduced(versions: Sequence[tuple[pl.LazyFrame, pl.LazyFrame | None]]) -> pl.LazyFrame:
    """Find links of which an input no longer says all that it said: those must be gathered from its table again."""
    links = [pl.LazyFrame(schema={key: LINKS[key] for key in _KEY})]
    for before, after in versions:
        if after is None:
            links.append(before.select(_KEY))
            continue
        both = before.join(after, on=_KEY, how="left", nulls_equal=True, suffix="_now", coalesce=True)
        said_less = (
            pl.col("count_now").is_null()
            | (pl.col("first_seen").is_not_null() & (pl.col("first_seen_now") <= pl.col("first_seen")).ne_missing(True))
            | (pl.col("last_seen").is_not_null() & (pl.col("last_seen_now") >= pl.col("last_seen")).ne_missing(True))
            | (pl.col("authoritative") & ~pl.col("authoritative_now"))
        )
        links.append(both.filter(said_less).select(_KEY))
    return pl.concat(links).unique()


def tagged(links: pl.LazyFrame, table: str) -> pl.LazyFrame:
    """Put the table before each source: a state keeps the links of each table apart."""
    return links.with_columns(pl.lit(f"{table}\x1f").add(pl.col("source")).alias("source"))


class NativeEngine:
    """The engine in `engine/native`. Its state is a cache: deleting it costs time and nothing else."""

    def resolve(self, links: pl.LazyFrame, rules: Rules) -> Resolution:
        """Resolve links, see :class:`Engine`."""
        with failing_clearly("resolving links"):
            return as_resolution(resolved(links, rules))

    def advance(self, store: Store, links: LinksOfDay, rules: Rules) -> tuple[Resolution, dict[str, Any]]:
        """Fold what changed since the stored state into it, or compute all at once where that is no slower."""
        with failing_clearly(f"resolving {links.day}"):
            return _advance(store, links, rules)


def _advance(store: Store, now: LinksOfDay, rules: Rules) -> tuple[Resolution, dict[str, Any]]:
    inputs = {f"{part.table}|{part.day.isoformat()}": part.file for part in now.events.values()}
    stands = {name: part.version for name, part in now.standing.items()}
    state = load(store)
    why = "no state of this version" if state is None else ""
    if state is not None and state.digest != rules.digest:
        why = "the rules changed"
    change: Delta | None = None
    if state is not None and not why:
        change, why = delta_of(store, state.inputs, state.standing, state.row_a.size, now)
    if state is None or change is None:
        parts = [tagged(part.links, part.table) for part in (*now.events.values(), *now.standing.values())]
        every = pl.concat(parts) if parts else pl.LazyFrame(schema=LINKS)
        state = State.of(resolved(every, rules, keep_rows=True), rules.digest)
        state.inputs, state.standing = inputs, stands
        save(state, store)
        return as_resolution(state.resolved(rules)), {"mode": "full", "why": why}
    if state.inputs == inputs and state.standing == stands:
        return as_resolution(state.resolved(rules)), {"mode": "unchanged", "why": "no input changed"}
    done = fold(state, change.gone, change.came, rules)
    for name, last in change.carried.items():
        carry(state, name, last)
    state.inputs, state.standing = inputs, stands
    save(state, store)
    notes = {
        "mode": "incremental", "why": f"{change.inputs} inputs changed", "changed_links": done.changed_links,
        "touched_identifiers": done.touched_identifiers, "touched_links": done.touched_links,
    }  # fmt: skip
    return as_resolution(state.resolved(rules)), notes


def as_resolution(result: Resolved) -> Resolution:
    """Present arrays as lazy frames."""
    return Resolution(
        graph=graph_table(result),
        conflicts=conflicts_table(result).lazy(),
        shared=shared_table(result.components, result.encoded, result.rules).lazy(),
        profiles=result.profiles.order.size,
        identifiers=result.identifiers,
        graph_writer=partial(write_graph, result),
    )
