"""The compiled engine: Numba kernels over arrays of one machine, and a state that takes in what changed since."""

from __future__ import annotations

from functools import partial
from typing import Any

import polars as pl

from heap_assets.identity.engine.base import LinksOfDay, Resolution
from heap_assets.identity.engine.native.delta import Delta, delta_of, tagged
from heap_assets.identity.engine.native.fold import carry, fold
from heap_assets.identity.engine.native.graph import graph_table
from heap_assets.identity.engine.native.graph_file import write_graph
from heap_assets.identity.engine.native.memory import failing_clearly
from heap_assets.identity.engine.native.shared import shared_table
from heap_assets.identity.engine.native.state import State, load, save
from heap_assets.identity.engine.native.tables import Resolved, conflicts_table, resolved
from heap_assets.identity.rules import Rules
from heap_assets.identity.shapes import LINKS
from heap_assets.storage import Store


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
