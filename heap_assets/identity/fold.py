"""Fold changed links into a state: only components that hold one are resolved again (rule 8).

A component here is one of all links, before any is left out. Every rule decides within it, so resolving the touched
ones alone, by the same code that resolves everything, gives what resolving everything gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl

from heap_assets.identity import kernel, kernel_table
from heap_assets.identity.encode import SPILL, Encoded, encode, grown
from heap_assets.identity.kernel import KEY, LAST, NO_TYPE, NONE, PLACE, PLACE_SHIFT, U8, U16, U32
from heap_assets.identity.rules import Rules
from heap_assets.identity.shapes import ENDS, LINKS, TIME, aggregated
from heap_assets.identity.shared import raw_components
from heap_assets.identity.state import State
from heap_assets.identity.tables import Resolved, resolved
from heap_assets.identity.texts import PADDING
from heap_assets.identity.threads import at_once, in_ranges

SEPARATOR: Final = "\x1f"
"""Rows of a state have `table 0x1F source` as their source: two tables may both give links of source own_identify."""


@dataclass(frozen=True)
class Folded:
    """How much was done."""

    changed_links: int
    touched_identifiers: int
    touched_links: int


def fold(state: State, gone: pl.DataFrame, came: pl.DataFrame, rules: Rules) -> Folded:
    """Take links out of a state, then put links in; a link that is there already is widened.

    Parameters
    ----------
    gone
        Ends and source of links.
    came
        Shape of links.
    """
    changed = pl.concat([gone.select(*ENDS, "source"), came.select(*ENDS, "source")])
    if changed.is_empty():
        return Folded(0, 0, 0)
    named = encode(changed.lazy(), rules)
    known = _known(state, named)
    reached = np.zeros(state.components, np.uint8)
    reached[state.component[known[known != NONE]]] = 1
    nodes = np.flatnonzero((reached[state.component] == 1) & (state.ranks != NO_TYPE)).astype(np.uint32)
    rows = _touched(state, reached)
    old = _as_text(state, rows, rules)
    if gone.height:
        old = old.join(gone, on=[*ENDS, "source"], how="anti", nulls_equal=True)
    # few of the links are named again, and only those must be brought together
    named_again = old.with_row_index("row").join(came, on=[*ENDS, "source"], how="semi", nulls_equal=True)["row"]
    alone = np.ones(old.height, np.bool_)
    alone[named_again.to_numpy()] = False
    again, others = old[named_again], old.filter(pl.Series(alone))
    together = aggregated(pl.concat([again, came.select(list(LINKS))]).lazy()).select(list(LINKS))
    links = pl.concat([others.lazy(), together])
    part = resolved(links, rules, keep_rows=True)
    _replace(state, part, nodes, rows)
    return Folded(changed.height, nodes.size, rows.size)


def carry(state: State, origin: str, last: int) -> None:
    """Let all rows of a table without record times be last seen at `last`, the day of the snapshot that stands now."""
    codes = [code for code, name in enumerate(state.sources) if name.partition(SEPARATOR)[0] == origin]
    rows = np.flatnonzero(np.isin(state.row_tag >> 1, codes) & (state.row_a != NONE))
    state.row_last[rows] = last
    for ends in (state.row_a[rows], state.row_b[rows]):
        nodes = ends[ends != NONE]
        state.facts[nodes, LAST] = np.maximum(state.facts[nodes, LAST], last)


def _known(state: State, named: Encoded) -> U32:
    """Find the nodes of the state that are the same identifiers; NONE for those it never had."""
    found = np.full(named.nodes, NONE, np.uint32)
    in_ranges(
        named.size,
        lambda begin, end: kernel_table.look_up(
            named.slots, named.size, named.facts, state.slots, state.size, state.facts, found, begin, end
        ),
    )
    return found


def _touched(state: State, reached: U8) -> U32:
    def work(begin: int, end: int) -> U32:
        rows = np.empty(end - begin, np.uint32)
        return rows[: kernel.touched(state.row_a, state.component, reached, rows, begin, end)]

    return np.concatenate(in_ranges(state.row_a.size, work))


def _as_text(state: State, rows: Any, rules: Rules) -> pl.DataFrame:
    types = pl.Series(rules.types, dtype=pl.String)
    a, b = state.row_a[rows], state.row_b[rows]
    alone = b == NONE
    other = np.where(alone, a, b).astype(np.uint32)
    tag = state.row_tag[rows]
    texts = at_once(lambda: state.texts.take(a), lambda: state.texts.take(other))
    frame = pl.DataFrame(
        {
            "type_a": types.gather(state.ranks[a]),
            "value_a": texts[0],
            "type_b": types.gather(state.ranks[other]),
            "value_b": texts[1],
            "source": pl.Series(state.sources, dtype=pl.String).gather(tag >> 1),
            "first_seen": pl.Series(state.row_first[rows]),
            "last_seen": pl.Series(state.row_last[rows]),
            "count": pl.Series(np.ones(rows.size, np.int64)),
            "authoritative": pl.Series((tag & 1) == 1),
            "alone": pl.Series(alone),
        }
    )
    return frame.with_columns(
        pl.when(~pl.col("alone")).then(pl.col("type_b", "value_b")),
        pl.when(pl.col("first_seen") != kernel.NEVER).then("first_seen").cast(TIME),
        pl.when(pl.col("last_seen") != kernel.BEFORE).then("last_seen").cast(TIME),
    ).select(list(LINKS))


def _replace(state: State, part: Resolved, nodes: U32, rows: U32) -> None:
    """Put a part, resolved anew, in the place of the nodes and rows that it was made of."""
    encoded = part.encoded
    home = _known(state, encoded)
    fresh, known = np.flatnonzero(home == NONE), state.ranks.size
    home[fresh] = np.arange(known, known + fresh.size, dtype=np.uint32)
    kept = np.zeros(known + fresh.size, np.bool_)
    kept[home] = True
    left = nodes[~kept[nodes]]
    _enter(state, encoded, home, fresh)
    codes = _source_codes(state, encoded.sources)
    _replace_nodes(state, part, home, left)
    _replace_rows(state, encoded, home, codes, rows)
    refused, report = _forget(state.refused, "a", nodes), _forget(state.report, "node", nodes)
    moved = part.clusters.refused.with_columns(
        pl.Series("a", home[part.clusters.refused["a"].to_numpy()], pl.UInt32),
        pl.Series("b", home[part.clusters.refused["b"].to_numpy()], pl.UInt32),
        pl.col("sources").list.eval(
            pl.element().replace_strict(dict(enumerate(codes.tolist())), return_dtype=pl.UInt16)
        ),
    )
    state.refused = pl.concat([refused, moved])
    found = part.components.report
    state.report = pl.concat([report, found.with_columns(pl.Series("node", home[found["node"].to_numpy()], pl.UInt32))])


def _replace_nodes(state: State, part: Resolved, home: U32, left: U32) -> None:
    encoded = part.encoded
    _place(state, "ranks", home, encoded.ranks)
    state.ranks[left] = NO_TYPE
    kernel_table.widen(home, encoded.facts, state.facts)
    _place(state, "shared", home, part.components.shared)
    component, count = raw_components(encoded)
    _place(state, "component", home, component + np.uint32(state.components))
    state.components += count
    labels = part.clusters.labels.copy()
    labels[labels != NONE] += np.uint32(state.high.size)
    _place(state, "labels", home, labels)
    state.labels[left] = NONE
    clusters = state.high.size
    state.widened("high", clusters + part.high.size)[clusters:] = part.high
    state.widened("low", clusters + part.low.size)[clusters:] = part.low


def _replace_rows(state: State, encoded: Encoded, home: U32, codes: U16, rows: U32) -> None:
    state.row_a[rows] = NONE
    a, b, first, last, tag = (
        np.concatenate([getattr(batch, name) for batch in encoded.rows]) if encoded.rows else np.empty(0, np.uint32)
        for name in ("a", "b", "first", "last", "tag")
    )
    here = home[a] if a.size else a
    there = np.where(b == NONE, NONE, home[np.where(b == NONE, 0, b)]).astype(np.uint32) if b.size else b
    tags = (codes[tag >> 1] * 2 + (tag & 1)).astype(np.uint16) if a.size else tag.astype(np.uint16)
    reuse = min(rows.size, here.size)
    for name, values in (("a", here), ("b", there), ("first", first), ("last", last), ("tag", tags)):
        array = state.array(f"row_{name}")
        array[rows[:reuse]] = values[:reuse]
        size = array.shape[0]
        state.widened(f"row_{name}", size + values.size - reuse)[size:] = values[reuse:]


def _forget(frame: pl.DataFrame, column: str, nodes: U32) -> pl.DataFrame:
    return frame.filter(~pl.col(column).is_in(pl.Series(nodes).implode()))


def _place(state: State, name: str, home: U32, values: Any) -> None:
    size = int(home.max()) + 1 if home.size else 0
    state.widened(name, size)[home] = values


def _enter(state: State, part: Encoded, home: U32, fresh: Any) -> None:
    """Add new identifiers: their text, their keys and their places in the table."""
    known, used = state.ranks.size, state.texts.size
    nodes = fresh.astype(np.uint32)
    offsets, data = part.texts.gathered(nodes)
    text = state.widened("data", used + data.size + PADDING)
    text[used : used + data.size] = data
    facts = state.widened("facts", known + fresh.size + 1)
    rest = part.facts[nodes, PLACE] & ((1 << PLACE_SHIFT) - 1)
    facts[known:-1, KEY] = part.facts[nodes, KEY]
    facts[known:, PLACE] = (offsets + used) << PLACE_SHIFT
    facts[known:-1, PLACE] |= rest
    size = grown(state.size, known + fresh.size)
    if size > state.size:
        longer = np.zeros(size + SPILL, np.uint64)
        longer[: state.slots.size] = state.slots
        kernel_table.spread(longer, state.size, size)
        state.slots, state.size = longer, size
    flags = np.zeros(part.nodes, np.uint8)
    flags[fresh] = 1
    kernel_table.put(part.slots, part.size, flags, home, state.slots, state.size)


def _source_codes(state: State, names: list[str]) -> U16:
    for name in names:
        if name not in state.sources:
            state.sources.append(name)
    return np.array([state.sources.index(name) for name in names], np.uint16)
