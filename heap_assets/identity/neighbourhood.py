"""Which identifiers must be resolved again when links come in, and the links that this takes.

Resolution is independent for each plain component of the links that rule 4 leaves (reference: the proof of increments
in docs/identity.md). So the components of what was touched are resolved alone. What rule 4 leaves may change with them:
a shared value at their edge stays shared if the groups that it would join outside are more than `shared_above` already;
then one link to each of so many, its witnesses, stands for all of them. If they are not, its neighbours are resolved
again, too. Rules that count groups of named types have no witnesses: all neighbours are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from sys import intern
from typing import Any, Final

import numpy as np
import polars as pl

from heap_assets.identity.extract import MappedColumn
from heap_assets.identity.rules import Rules, SourceTable
from heap_assets.identity.schemas import LINKS, aggregated

_SEPARATOR: Final = "\x1f"
_ROW: Final = "row"
_WIDEST_WITNESS: Final = 10_000
"""Identifiers of a component that are looked at before it counts as one with every other component so large."""

_ENDS_WIDTH: Final = list(LINKS).index("first_seen")
_LinkKey = tuple[Any, ...]
"""The ends of a link and its source: what of LINKS tells it from others."""
_Evidence = tuple[Any, ...]
"""Of a link: first_seen, last_seen, count, authoritative."""
Hashes = np.ndarray[Any, np.dtype[np.uint64]]
Ids = np.ndarray[Any, np.dtype[np.int64]]


def identifier_hashes(types: pl.Series, values: pl.Series) -> Hashes:
    """Return a 64-bit hash of each identifier, of this process only: equal ones of two only widen what is resolved."""
    text = pl.select(pl.concat_str(types.cast(pl.String), values, separator=_SEPARATOR)).to_series()
    return text.hash(seed=7).to_numpy()


@dataclass(frozen=True)
class Neighbourhood:
    """What is to be resolved again.

    Attributes
    ----------
    links
        Schema of links; those of witnesses among them.
    inside
        Hashes of the identifiers whose rows of the resolution hold; of all others they do not.
    """

    links: pl.DataFrame
    inside: frozenset[int]


class LinkIndex:
    """Links by their identifiers, with those that come in kept beside them.

    Parameters
    ----------
    links
        Schema of links; all as of a day.
    shared
        identifier_type, identifier of the values that are shared (`identity/graph`).
    """

    def __init__(self, links: pl.DataFrame, shared: pl.DataFrame, rules: Rules) -> None:
        self._rules = rules
        self._rank = {name: rank for rank, name in enumerate(rules.types)}
        self._shared = set(identifier_hashes(shared["identifier_type"], shared["identifier"]).tolist())
        self._build(links)

    def _build(self, links: pl.DataFrame) -> None:
        self._links = links
        a = identifier_hashes(links["type_a"], links["value_a"])
        alone = links["value_b"].is_null()
        b = identifier_hashes(links["type_b"].fill_null(""), links["value_b"].fill_null(""))
        b = np.where(alone.to_numpy(), a, b)
        ends = np.concatenate([a, b[~alone.to_numpy()]])
        rows = np.concatenate([np.arange(len(a)), np.flatnonzero(~alone.to_numpy())])
        neighbours = np.concatenate([b, a[~alone.to_numpy()]])
        rank_a, rank_b = (self._ranks(links[f"type_{end}"]) for end in ("a", "b"))
        ranks = np.concatenate([rank_a, rank_b[~alone.to_numpy()]])
        order = np.argsort(ends, kind="stable")
        self._ends, self._rows, self._neighbours = ends[order], rows[order], neighbours[order]
        self._ranks_of_ends = ranks[order]
        self._decided = links["authoritative"].fill_null(value=False).to_numpy()
        self._new_ranks: dict[int, int] = {}
        self._new_ends: list[_LinkKey] = []
        self._new: list[_Evidence] = []
        self._new_at: dict[_LinkKey, int] = {}
        self._new_of: dict[int, list[tuple[int, int]]] = {}

    def _ranks(self, types: pl.Series) -> Ids:
        return types.replace_strict(self._rank, default=-1, return_dtype=pl.Int64).fill_null(-1).to_numpy()

    @property
    def added(self) -> int:
        """Links that came in and are kept beside the others."""
        return len(self._new)

    @property
    def links(self) -> pl.DataFrame:
        """All links; those that came in once more beside what they repeat."""
        return pl.concat([self._links, self._frame(range(len(self._new)))])

    def add(self, links: pl.DataFrame) -> set[int]:
        """Add links; returns the hashes of the identifiers at their ends."""
        touched: set[int] = set()
        a = identifier_hashes(links["type_a"], links["value_a"]).tolist()
        b = identifier_hashes(links["type_b"].fill_null(""), links["value_b"].fill_null("")).tolist()
        for position, link in enumerate(links.select(*LINKS).iter_rows()):
            type_a, value_a, type_b, value_b, source = link[:_ENDS_WIDTH]
            alone = value_b is None
            one, other = a[position], a[position] if alone else b[position]
            touched |= {one, other}
            self._new_ranks[one] = self._rank[type_a]
            if not alone:
                self._new_ranks[other] = self._rank[type_b]
            # there are few types and sources, and links by the hundred thousand that name them
            ends = (intern(type_a), value_a, type_b if type_b is None else intern(type_b), value_b, intern(source))
            at = self._new_at.setdefault(ends, len(self._new))
            if at < len(self._new):
                self._new[at] = _together(self._new[at], link[_ENDS_WIDTH:])
                continue
            self._new_ends.append(ends)
            self._new.append(link[_ENDS_WIDTH:])
            self._new_of.setdefault(one, []).append((at, other))
            if not alone:
                self._new_of.setdefault(other, []).append((at, one))
        return touched

    def compact(self) -> None:
        """Put the links that came in among the others."""
        self._build(aggregated(self.links.lazy()).select(list(LINKS)).collect())

    def mark_shared(self, inside: Iterable[int], shared: Iterable[int]) -> None:
        """Remember which identifiers of what was resolved are shared now."""
        self._shared -= set(inside)
        self._shared |= set(shared)

    def is_shared(self, identifier: int) -> bool:
        """Return whether an identifier is shared."""
        return identifier in self._shared

    def neighbourhood(self, touched: Iterable[int]) -> Neighbourhood:
        """Return what must be resolved again for some identifiers that were touched."""
        inside: set[int] = set()
        edge: set[int] = set()
        self._reach(touched, inside, edge)
        while True:
            witnesses: list[int] = []
            widened = False
            for value in sorted(edge | {one for one in inside if one in self._shared}):
                rows_outside = self._witnesses(value, inside)
                if rows_outside is None:
                    other_ends = {other for _, other, _ in self._incident(value)} - inside
                    if other_ends or value not in inside:
                        self._reach({value, *other_ends}, inside, edge)
                        widened = True
                else:
                    witnesses += rows_outside
            edge -= inside
            if not widened:
                break
        rows = {r for one in inside for r, other, _ in self._incident(one) if self._belongs(one, other, inside)}
        return Neighbourhood(self._gather(sorted({*rows, *witnesses})), frozenset(inside))

    def _belongs(self, one: int, other: int, inside: set[int]) -> bool:
        """Return whether a link of an identifier inside is resolved: of a shared value, only those to the inside."""
        return other in inside or one not in self._shared

    def _reach(self, start: Iterable[int], inside: set[int], edge: set[int]) -> None:
        """Add the components of `start` to `inside`, and the shared values beside them to `edge`."""
        stack = [one for one in start if one not in inside]
        while stack:
            one = stack.pop()
            if one in inside:
                continue
            inside.add(one)
            is_shared = one in self._shared
            for _, other, decided in self._incident(one):
                if other in inside:
                    continue
                if decided or not (is_shared or other in self._shared):
                    stack.append(other)
                elif not is_shared:
                    edge.add(other)

    def _witnesses(self, value: int, inside: set[int]) -> list[int] | None:
        """Return links to as many groups outside as keep a value shared, None if there are not so many."""
        rank = self._rank_of(value)
        sharing = self._rules.sharing[rank] if rank >= 0 else {}
        if set(sharing) != {None}:
            return None
        components: list[set[int]] = []
        rows: list[int] = []
        for row, other, decided in self._incident(value):
            if decided or other in inside or other in self._shared or self._rank_of(other) >= rank:
                continue
            if any(other in component for component in components):
                continue
            component = self._component(other, inside)
            if component is None:
                continue
            components.append(component)
            rows.append(row)
            if len(rows) > sharing[None]:
                return rows
        return None

    def _component(self, start: int, inside: set[int]) -> set[int] | None:
        """Return the component of an identifier outside; None if it is too large, or meets the inside."""
        component: set[int] = set()
        stack = [start]
        while stack:
            one = stack.pop()
            if one in component:
                continue
            if one in inside or len(component) > _WIDEST_WITNESS:
                return None
            component.add(one)
            is_shared = one in self._shared
            stack += [o for _, o, decided in self._incident(one) if decided or not (is_shared or o in self._shared)]
        return component

    def _incident(self, one: int) -> list[tuple[int, int, bool]]:
        """Return row, other end, and whether it is authoritative, of each link of an identifier."""
        low = int(np.searchsorted(self._ends, np.uint64(one), "left"))
        high = int(np.searchsorted(self._ends, np.uint64(one), "right"))
        rows, other_ends = self._rows[low:high].tolist(), self._neighbours[low:high].tolist()
        stored = [(row, other, bool(self._decided[row])) for row, other in zip(rows, other_ends, strict=True)]
        at = len(self._decided)
        return stored + [(at + n, o, bool(self._new[n][-1])) for n, o in self._new_of.get(one, ())]

    def _rank_of(self, one: int) -> int:
        """Return how strong the type of an identifier is, 0 the strongest; -1 of one without links."""
        at = int(np.searchsorted(self._ends, np.uint64(one), "left"))
        if at < len(self._ends) and int(self._ends[at]) == one:
            return int(self._ranks_of_ends[at])
        return self._new_ranks.get(one, -1)

    def _gather(self, rows: Sequence[int]) -> pl.DataFrame:
        stored = len(self._decided)
        old = self._links[[row for row in rows if row < stored]]
        return pl.concat([old, self._frame(row - stored for row in rows if row >= stored)])

    def _frame(self, positions: Iterable[int]) -> pl.DataFrame:
        return pl.DataFrame([self._new_ends[at] + self._new[at] for at in positions], schema=LINKS, orient="row")


def row_identifiers(rows: pl.LazyFrame, table: SourceTable, rules: Rules) -> pl.DataFrame:
    """Return the identifiers that each row of a table names, as `extract` reads them.

    Returns row (UInt32, from 0), identifier_type, identifier: String.
    """
    schema = rows.collect_schema()
    columns = [MappedColumn.of(mapping, number, table, rules, schema) for number, mapping in enumerate(table.mappings)]
    parts = [pl.LazyFrame(schema={_ROW: pl.UInt32, "identifier_type": pl.String, "identifier": pl.String})]
    checked = (
        rows.with_columns(column.raw for column in columns)
        .with_columns(part for column in columns for part in column.checked(rules))
        .with_row_index(_ROW)
    )
    for column in columns:
        named = checked.select(_ROW, identifier_type=pl.lit(column.type), identifier=pl.col(column.name))
        parts.append((named.explode("identifier") if column.many else named).filter(pl.col("identifier").is_not_null()))
    return pl.concat(parts).collect()


def _together(one: _Evidence, other: _Evidence) -> _Evidence:
    """Return what a link is that came twice."""
    return (_least(one[0], other[0]), _most(one[1], other[1]), one[2] + other[2], one[3] or other[3])


def _least(one: Any, other: Any) -> Any:
    return other if one is None else one if other is None else min(one, other)


def _most(one: Any, other: Any) -> Any:
    return other if one is None else one if other is None else max(one, other)
