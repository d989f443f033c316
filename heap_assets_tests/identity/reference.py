"""The rules of identity resolution once more: slow, obvious, plain dictionaries and sets. It judges the engine.

Written from the text of the rules alone, without looking at how the engine does it: no union-find, no two paths, no
arrays; groups are found by walking, again from the start whenever they are needed.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime

Identifier = tuple[str, str]

LATEST = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Row:
    """One row of links; `b` is None for a sighting."""

    a: Identifier
    b: Identifier | None
    source: str = "t"
    first: datetime | None = None
    last: datetime | None = None
    count: int = 1
    authoritative: bool = False


@dataclass(frozen=True)
class Book:
    """The rules: types strongest first, limits, and what each type counts to call a value shared."""

    types: list[str]
    limits: dict[str, int] = field(default_factory=dict)
    sharing: dict[str, dict[str | None, int]] = field(default_factory=dict)
    order: str = "priority"

    def rank(self, identifier: Identifier) -> int:
        return self.types.index(identifier[0])

    def strength(self, identifier: Identifier) -> tuple[int, bytes]:
        return self.rank(identifier), identifier[1].encode()


@dataclass
class Link:
    a: Identifier
    b: Identifier
    first: datetime | None
    authoritative: bool
    sources: set[str]


@dataclass
class Answer:
    graph: dict[Identifier, tuple[str | None, datetime | None, datetime | None, bool]]
    conflicts: set[tuple[object, ...]]
    shared: set[tuple[str, str, str, int]]
    groups: list[set[Identifier]]


def answer(rows: list[Row], book: Book) -> Answer:
    links = links_of(rows, book)
    identifiers = {end for row in rows for end in (row.a, row.b) if end is not None}
    shared, reported = shared_values(links, identifiers, book)
    kept = [k for k in links if k.authoritative or not (k.a in shared or k.b in shared)]
    group_of, refused = merged(kept, identifiers, book)
    groups = list({id(group): group for group in group_of.values()}.values())
    ids: dict[Identifier, str | None] = {}
    for group in groups:
        lonely = len(group) == 1 and next(iter(group)) in shared
        name = None if lonely else profile_id(group, rows, book)
        ids.update(dict.fromkeys(group, name))
    graph = {i: (ids[i], *seen(i, rows), i in shared) for i in identifiers}
    conflicts = {
        (*k.a, *k.b, tuple(sorted(k.sources)), k.first, kind, book.limits[kind], count_a, count_b, ids[k.a], ids[k.b])
        for k, kind, count_a, count_b in refused
        if group_of[k.a] is not group_of[k.b]
    }
    return Answer(graph, conflicts, reported, groups)


def links_of(rows: list[Row], book: Book) -> list[Link]:
    links: dict[tuple[Identifier, Identifier], Link] = {}
    for row in rows:
        if row.b is None or row.a == row.b:
            continue
        a, b = sorted((row.a, row.b), key=book.strength)
        link = links.setdefault((a, b), Link(a, b, None, False, set()))
        link.first = min((t for t in (link.first, row.first) if t is not None), default=None)
        link.authoritative |= row.authoritative
        link.sources.add(row.source)
    return list(links.values())


def seen(identifier: Identifier, rows: list[Row]) -> tuple[datetime | None, datetime | None]:
    naming = [row for row in rows if identifier in (row.a, row.b)]
    first = min((row.first for row in naming if row.first is not None), default=None)
    last = max((row.last for row in naming if row.last is not None), default=None)
    return first, last


def walk(start: Identifier, neighbours: dict[Identifier, set[Identifier]]) -> frozenset[Identifier]:
    reached, todo = {start}, [start]
    while todo:
        for other in neighbours.get(todo.pop(), ()):
            if other not in reached:
                reached.add(other)
                todo.append(other)
    return frozenset(reached)


def neighbourhood(links: list[Link]) -> dict[Identifier, set[Identifier]]:
    neighbours: dict[Identifier, set[Identifier]] = defaultdict(set)
    for link in links:
        neighbours[link.a].add(link.b)
        neighbours[link.b].add(link.a)
    return neighbours


def shared_values(
    links: list[Link], identifiers: set[Identifier], book: Book
) -> tuple[set[Identifier], set[tuple[str, str, str, int]]]:
    shared: set[Identifier] = set()
    reported: set[tuple[str, str, str, int]] = set()
    everyone = neighbourhood(links)
    for rank, kind in enumerate(book.types):
        among_stronger = neighbourhood(
            [k for k in links if max(book.rank(k.a), book.rank(k.b)) < rank and not {k.a, k.b} & shared]
        )
        found = set()
        for value in (i for i in identifiers if i[0] == kind):
            for named, above in book.sharing.get(kind, {}).items():
                counted = [
                    other
                    for other in everyone[value]
                    if other not in shared and (book.rank(other) < rank if named is None else other[0] == named)
                ]
                groups = {walk(other, among_stronger) for other in counted}
                if len(groups) > above:
                    found.add(value)
                    strongest = min(counted, key=book.rank)[0]
                    reported.add((*value, strongest, len(groups)))
        shared |= found
    return shared, reported


def merged(
    links: list[Link], identifiers: set[Identifier], book: Book
) -> tuple[dict[Identifier, set[Identifier]], list[tuple[Link, str, int, int]]]:
    def turn(link: Link) -> tuple[object, ...]:
        time = link.first or LATEST
        usual = (
            not link.authoritative,
            book.rank(link.b),
            book.rank(link.a),
            time,
            link.a[1].encode(),
            link.b[1].encode(),
        )
        return (time, *usual) if book.order == "first_seen" else usual

    group_of = {i: {i} for i in identifiers}
    refused = []
    for link in sorted(links, key=turn):
        x, y = group_of[link.a], group_of[link.b]
        if x is y:
            continue
        broken = None if link.authoritative else broken_limit(x, y, book)
        if broken is not None:
            refused.append((link, *broken))
            continue
        x |= y
        for i in y:
            group_of[i] = x
    return group_of, refused


def broken_limit(x: set[Identifier], y: set[Identifier], book: Book) -> tuple[str, int, int] | None:
    for kind in book.types:
        in_x, in_y = (sum(1 for i in group if i[0] == kind) for group in (x, y))
        if kind in book.limits and in_x and in_y and in_x + in_y > book.limits[kind]:
            return kind, in_x, in_y
    return None


def profile_id(group: set[Identifier], rows: list[Row], book: Book) -> str:
    def turn(identifier: Identifier) -> tuple[object, ...]:
        return book.rank(identifier), seen(identifier, rows)[0] or LATEST, identifier[1].encode()

    kind, value = min(group, key=turn)
    return hashlib.sha256(kind.encode() + b"\x1f" + value.encode()).hexdigest()[:32]
