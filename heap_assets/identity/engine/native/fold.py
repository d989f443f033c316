"""Fold changed links into a state: only components with a changed link are resolved again (rule 8).

A component here is one of all links, shared values included. Every rule decides within one, so resolving the touched
ones alone, by the same code, gives the result of resolving everything. Links of the state stay encoded: only the
changed ones are read as text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl

from heap_assets.identity.engine.native import kernel, kernel_table
from heap_assets.identity.engine.native.apart import apart_nodes, nodes_of, pairs_of
from heap_assets.identity.engine.native.encode import SPILL, Encoded, LinkBatch, encode, grown
from heap_assets.identity.engine.native.kernel import (
    BEFORE,
    FIRST,
    KEY,
    LAST,
    NEVER,
    NO_TYPE,
    NONE,
    PLACE,
    PLACE_SHIFT,
    U8,
    U32,
)
from heap_assets.identity.engine.native.memory import Blocks, aligned, in_ranges
from heap_assets.identity.engine.native.rows import Rows, match_rows
from heap_assets.identity.engine.native.shared import raw_components
from heap_assets.identity.engine.native.state import State
from heap_assets.identity.engine.native.tables import Resolved, decided
from heap_assets.identity.engine.native.texts import Texts
from heap_assets.identity.rules import Rules
from heap_assets.identity.schemas import ENDS, LINKS

SEPARATOR: Final = "\x1f"
"""Rows of a state have `table 0x1F source` as their source: two tables may both have links of source own_identify."""

_BATCH: Final = 1 << 18


@dataclass(frozen=True)
class Folded:
    """Numbers of changed links and of what was resolved again."""

    changed_links: int
    touched_identifiers: int
    touched_links: int


def fold(state: State, removed: pl.DataFrame, added: pl.DataFrame, rules: Rules) -> Folded:
    """Remove links from a state, then add links; one that exists already is widened.

    Parameters
    ----------
    removed
        Ends and source of links.
    added
        Links.
    rules
        `apart` decisions that differ from those of the state are changes too: their components are resolved again.
    """
    changed_apart = {*state.apart} ^ {*rules.apart}
    if removed.is_empty() and added.is_empty() and not changed_apart:
        return Folded(0, 0, 0)
    leaving = _Changed.of(state, removed.select(*ENDS, "source"), rules)
    coming = _Changed.of(state, added.select(list(LINKS)), rules)
    reached = np.zeros(state.components, np.uint8)
    for changed in (leaving, coming):
        reached[state.component[changed.home[changed.home != NONE]]] = 1
    reached[state.component[nodes_of(pairs_of(changed_apart), state, rules)]] = 1
    nodes = np.flatnonzero(reached[state.component] & (state.ranks != NO_TYPE)).astype(np.uint32)
    of_row = np.append(state.component, np.uint32(0)).take(
        state.row_a, mode="clip"
    )  # that of a removed row counts for nothing
    rows = np.flatnonzero(reached[of_row] & (state.row_a != NONE)).astype(np.uint32)
    refused, report = _beyond(state, state.refused, "a", reached), _beyond(state, state.report, "node", reached)
    old_count = state.ranks.size
    coming.enter(state)
    alive = _changed_rows(state, rows, leaving, coming)
    part = _part(state, alive, rules)
    state.apart = rules.apart
    _put_back(state, part, old_count, nodes)
    state.refused = pl.concat([refused, part.refused])
    state.report = pl.concat([report, part.report])
    return Folded(removed.height + added.height, nodes.size, rows.size)


def touch_last_seen(state: State, table: str, last: int) -> None:
    """Set last seen of all rows of a table without record times to `last`, the day of its current snapshot."""
    codes = [code for code, name in enumerate(state.sources) if name.partition(SEPARATOR)[0] == table]
    rows = np.flatnonzero(np.isin(state.row_tag >> 1, codes) & (state.row_a != NONE))
    state.row_last[rows] = last
    for ends in (state.row_a[rows], state.row_b[rows]):
        nodes = ends[ends != NONE]
        state.facts[nodes, LAST] = np.maximum(state.facts[nodes, LAST], last)


@dataclass
class _Changed:
    """Changed links, encoded.

    `home`: the state's node of each node; NONE for an identifier that the state never had.
    """

    encoded: Encoded
    home: U32

    @classmethod
    def of(cls, state: State, links: pl.DataFrame, rules: Rules) -> _Changed:
        encoded = encode(links.lazy(), rules, keep_rows=True)
        home = np.full(encoded.nodes, NONE, np.uint32)
        in_ranges(
            encoded.size,
            lambda begin, end: kernel_table.look_up(
                encoded.slots, encoded.size, encoded.facts, state.slots, state.size, state.facts, home, begin, end
            ),
        )
        return cls(encoded, home)

    def enter(self, state: State) -> None:
        """Add identifiers that the state never had, or that were removed, to it."""
        fresh = np.flatnonzero(self.home == NONE).astype(np.uint32)
        self.home[fresh] = np.arange(state.ranks.size, state.ranks.size + fresh.size, dtype=np.uint32)
        _enter(state, self.encoded, self.home, fresh)
        _write_changed(state.ranks, self.home, self.encoded.ranks)

    def rows(self, state: State) -> Rows:
        """Return rows with the nodes and sources of the state; those with unknown ones are left out."""
        own = self.encoded.rows
        numbers = {name: number for number, name in enumerate(state.sources)}
        codes = np.array([numbers.get(name, -1) for name in self.encoded.sources], np.int32)
        home = np.append(self.home, NONE)
        a, b, code = home[own.a], home.take(own.b, mode="clip"), codes[own.tag >> 1]
        linked = (a != NONE) & ((own.b == NONE) | (b != NONE)) & (code >= 0)
        tag = (code * 2 + (own.tag & 1)).astype(np.uint16)
        return Rows(a, b, own.first, own.last, tag)[linked]


def _write_changed(array: Any, places: Any, values: Any) -> None:
    """Write values that differ; the pages of others stay those of the stored state."""
    changed = array[places] != values
    array[places[changed]] = values[changed]


def _beyond(state: State, frame: pl.DataFrame, column: str, reached: U8) -> pl.DataFrame:
    """Return the rows of nodes that are not reached."""
    return frame.filter(pl.Series(reached[state.component[frame[column].to_numpy()]] == 0))


def _changed_rows(state: State, rows: U32, leaving: _Changed, coming: _Changed) -> U32:
    """Remove, widen and add rows; returns those of the touched components."""
    state.sources += [name for name in coming.encoded.sources if name not in state.sources]
    free = rows[_matched(state, rows, leaving.rows(state)) != NONE]
    state.row_a[free] = NONE
    rows = rows[state.row_a[rows] != NONE]
    new = coming.rows(state)
    matches = _matched(state, rows, new)
    existing = matches != NONE
    repeated = new[matches[existing]]
    widened = rows[existing]
    _write_changed(state.row_first, widened, np.minimum(state.row_first[widened], repeated.first))
    _write_changed(state.row_last, widened, np.maximum(state.row_last[widened], repeated.last))
    _write_changed(state.row_tag, widened, state.row_tag[widened] | (repeated.tag & 1))
    fresh = np.ones(new.a.size, np.bool_)
    fresh[matches[existing]] = False
    return np.concatenate([rows, _new_rows(state, new[fresh], free)])


def _matched(state: State, rows: U32, links: Rows) -> U32:
    """Return for each of some rows the equal one of some links; NONE for none of them."""
    matches = np.full(rows.size, NONE, np.uint32)
    if links.a.size:
        match_rows(rows, state.row_a, state.row_b, state.row_tag, links.a, links.b, links.tag, links.table(), matches)
    return matches


def _new_rows(state: State, links: Rows, free: U32) -> U32:
    """Write new rows to the places of removed ones, then at the end; returns their places."""
    size, reuse = state.row_a.size, min(free.size, links.a.size)
    more = links.a.size - reuse
    for name in ("a", "b", "first", "last", "tag"):
        values = getattr(links, name)
        state.array(f"row_{name}")[free[:reuse]] = values[:reuse]
        state.widened(f"row_{name}", size + more)[size:] = values[reuse:]
    return np.concatenate([free[:reuse], np.arange(size, size + more, dtype=np.uint32)])


@dataclass(frozen=True)
class _Part:
    """Touched components, resolved again; `nodes` are the state's, and so are those in `refused` and `report`.

    `is_inside` is 1 for the nodes of the state that are among them.
    """

    nodes: U32
    is_inside: U8
    resolved: Resolved
    component: U32
    components: int

    @property
    def refused(self) -> pl.DataFrame:
        refused = self.resolved.clusters.refused
        return refused.with_columns(pl.Series(end, self.nodes[refused[end].to_numpy()]) for end in ("a", "b"))

    @property
    def report(self) -> pl.DataFrame:
        report = self.resolved.components.report
        return report.with_columns(pl.Series("node", self.nodes[report["node"].to_numpy()]))


def _part(state: State, rows: U32, rules: Rules) -> _Part:
    is_inside = np.zeros(state.ranks.size, np.uint8)
    is_inside[state.row_a[rows]] = 1
    ends_b = state.row_b[rows]
    is_inside[ends_b[ends_b != NONE]] = 1
    nodes = np.flatnonzero(is_inside).astype(np.uint32)
    place = np.empty(state.ranks.size, np.uint32)
    place[nodes] = np.arange(nodes.size, dtype=np.uint32)
    ranks = state.ranks[nodes]
    facts, texts = _facts(state, nodes)
    room = Blocks()
    batches = [
        _batch(state, rows[begin : begin + _BATCH], place, ranks, facts, len(rules.types), room)
        for begin in range(0, rows.size, _BATCH)
    ]
    encoded = Encoded(ranks, facts, np.zeros(1, np.uint64), 0, texts, state.sources, batches)
    component, count = raw_components(encoded)
    apart = apart_nodes(state, rules).placed(place, is_inside)
    return _Part(nodes, is_inside, decided(encoded, rules, apart), component, count)


def _facts(state: State, nodes: U32) -> tuple[kernel.I64, Texts]:
    """Copy the text of some nodes, without dates."""
    facts = aligned((nodes.size + 1, 4), np.int64)
    offsets, data = state.texts.gathered(nodes)
    facts[:, FIRST], facts[:, LAST], facts[:, PLACE] = NEVER, BEFORE, offsets << PLACE_SHIFT
    return facts, Texts(facts, data)


def _batch(
    state: State, rows: U32, place: U32, ranks: U8, facts: kernel.I64, types: int, room: Blocks
) -> LinkBatch:  # fmt: skip
    """Return the links of some rows with their nodes numbered by `place`; `facts` receives first and last seen."""
    first, last, row_b = state.row_first[rows], state.row_last[rows], state.row_b[rows]
    a, is_link = place[state.row_a[rows]], row_b != NONE
    b = np.where(is_link, place.take(row_b, mode="clip"), NONE)
    for nodes, of in ((a, slice(None)), (b[is_link], is_link)):
        np.minimum.at(facts[:, FIRST], nodes, first[of])
        np.maximum.at(facts[:, LAST], nodes, last[of])
    rank_b = np.where(is_link, ranks.take(b, mode="clip"), NO_TYPE)
    return LinkBatch.of(a, b, ranks[a], rank_b, first, state.row_tag[rows], types, room)


def _put_back(state: State, part: _Part, old_count: int, before: U32) -> None:
    """Replace the touched components of a state by their new resolution.

    Parameters
    ----------
    old_count
        Number of nodes of the state before.
    before
        Nodes of the touched components before.
    """
    nodes, size = part.nodes, state.ranks.size
    removed = before[part.is_inside[before] == 0]
    for column in (FIRST, LAST):
        _write_changed(state.facts[:, column], nodes, part.resolved.encoded.facts[:-1, column])
    _write_changed(state.widened("shared", size), nodes, part.resolved.components.shared)
    numbers, state.components = _numbers(
        part.component, part.components, nodes, state.component[:old_count], state.components
    )
    _write_changed(state.widened("component", size), nodes, numbers[part.component])
    clusters, labels = part.resolved.clusters, part.resolved.clusters.labels
    numbers, count = _numbers(labels, clusters.count, nodes, state.labels[:old_count], state.high.size)
    used = np.flatnonzero(numbers != NONE)
    for name, ids in (("high", part.resolved.high), ("low", part.resolved.low)):
        _write_changed(state.widened(name, count), numbers[used], ids[used])
    with_none = np.append(numbers, NONE)
    _write_changed(state.widened("labels", size), nodes, with_none[np.minimum(labels, clusters.count)])
    state.ranks[removed] = NO_TYPE
    state.labels[removed] = NONE


def _numbers(groups: U32, count: int, nodes: U32, before: U32, following: int) -> tuple[U32, int]:
    """Number groups of nodes in the state; returns the numbers, and the first that is free."""
    numbers = np.full(count, NONE, np.uint32)
    claimed = np.zeros(following, np.uint8)
    return numbers, kernel.renumber(groups, nodes, before, claimed, numbers, following)


def _enter(state: State, part: Encoded, home: U32, fresh: U32) -> None:
    """Add new identifiers: their text, their keys and their slots of the hash table."""
    old_count, used = state.ranks.size, state.texts.size
    offsets, data = part.texts.gathered(fresh)
    state.widened("data", used + data.size)[used:] = data
    facts = state.widened("facts", old_count + fresh.size + 1)
    key_bits = part.facts[fresh, PLACE] & ((1 << PLACE_SHIFT) - 1)
    facts[old_count:-1, KEY] = part.facts[fresh, KEY]
    facts[old_count:, PLACE] = (offsets + used) << PLACE_SHIFT
    facts[old_count:-1, PLACE] |= key_bits
    state.widened("ranks", old_count + fresh.size)[old_count:] = part.ranks[fresh]
    size = grown(state.size, old_count + fresh.size)
    if size > state.size:
        longer = np.zeros(size + SPILL, np.uint64)
        longer[: state.slots.size] = state.slots
        kernel_table.rehash(longer, state.size, size)
        state.slots, state.size = longer, size
    flags = np.zeros(part.nodes, np.uint8)
    flags[fresh] = 1
    kernel_table.insert(part.slots, part.size, flags, home, state.slots, state.size)
