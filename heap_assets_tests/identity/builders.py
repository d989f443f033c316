"""Small worlds for the tests of the engines, and the way from rows to frames and back."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import polars as pl
from hypothesis import strategies as st

from heap_assets.identity import LINKS, IdentifierRule, Resolution, Rules
from heap_assets.identity.engine.reference import Identifier, People, Row, people_of

START = datetime(2026, 1, 1, tzinfo=UTC)
TYPES = ["account", "email", "device", "cookie"]


@dataclass(frozen=True)
class Book:
    """The rules: types strongest first, limits, and what each type counts to call a value shared."""

    types: list[str]
    limits: dict[str, int] = field(default_factory=dict)
    sharing: dict[str, dict[str | None, int]] = field(default_factory=dict)
    order: str = "priority"


def answer(rows: list[Row], book: Book) -> People:
    return people_of(rows, rules_of(book))


def links_frame(rows: Iterable[Row]) -> pl.LazyFrame:
    content = [
        (*row.a, *(row.b or (None, None)), row.source, row.first, row.last, row.count, row.authoritative)
        for row in rows
    ]
    return pl.LazyFrame(content, schema=LINKS, orient="row")


def rules_of(book: Book) -> Rules:
    def above(kind: str) -> object:
        sharing = book.sharing.get(kind)
        if not sharing:
            return "never"
        return sharing.get(None, sharing)

    return Rules(
        tuple(IdentifierRule(kind, book.limits.get(kind), above(kind)) for kind in book.types),  # type: ignore[arg-type]
        order=book.order,  # type: ignore[arg-type]
    )


def rows_by_identifier(
    resolution: Resolution,
) -> tuple[dict[Identifier, tuple[object, ...]], set[tuple[object, ...]], set[object]]:
    graph = {(row[0], row[1]): tuple(row[2:]) for row in resolution.graph.collect().rows()}
    conflicts = {(*row[:4], tuple(row[4]), *row[5:]) for row in resolution.conflicts.collect().rows()}
    return graph, conflicts, set(resolution.shared.collect().rows())


def assert_agrees(resolution: Resolution, expected: People) -> None:
    graph, conflicts, shared = rows_by_identifier(resolution)
    assert shared == expected.shared
    assert graph == expected.graph
    assert conflicts == expected.conflicts


times = st.one_of(st.none(), st.integers(0, 5).map(lambda day: START + timedelta(days=day)))


@st.composite
def identifiers(draw: st.DrawFn) -> Identifier:
    return draw(st.sampled_from(TYPES)), draw(st.sampled_from(["a", "b", "c", "d", "é", "Z", "aa"]))


@st.composite
def rows(draw: st.DrawFn) -> Row:
    first, last = draw(times), draw(times)
    return Row(
        draw(identifiers()),
        draw(st.one_of(identifiers(), identifiers(), identifiers(), st.none())),
        draw(st.sampled_from(["crm", "events", "users"])),
        first,
        max((t for t in (first, last) if t is not None), default=None),
        draw(st.integers(1, 3)),
        draw(st.sampled_from([False, False, False, True])),
    )


@st.composite
def books(draw: st.DrawFn) -> Book:
    limit = st.one_of(st.none(), st.integers(1, 3))
    sharing = st.one_of(
        st.just({}),
        st.integers(1, 2).map(lambda n: {None: n}),
        st.dictionaries(st.sampled_from(TYPES), st.integers(1, 2), min_size=1, max_size=2),
    )
    limits = {kind: drawn for kind in TYPES if (drawn := draw(limit)) is not None}
    return Book(
        TYPES, limits, {kind: draw(sharing) for kind in TYPES}, draw(st.sampled_from(["priority", "first_seen"]))
    )


def world(seed: int, people: int) -> list[Row]:
    """Links of people with several devices and emails, a kiosk and shared laptops among them."""
    dice = random.Random(seed)
    made: list[Row] = []

    def link(a: Identifier, b: Identifier) -> None:
        day = START + timedelta(hours=dice.randrange(2000))
        made.append(Row(a, b, dice.choice(["crm", "events"]), day, day + timedelta(days=1), dice.randint(1, 5)))

    for person in range(people):
        emails = [f"p{person}.{n}@x.io" for n in range(dice.choice([1, 1, 2, 4]))]
        devices = [f"d{person}.{n}" for n in range(dice.choice([1, 2, 3]))]
        if person % 10 == 0:
            devices.append(f"kiosk{person % 30}")
        if person % 7 == 0:
            emails.append(f"p{max(person - 1, 0)}.0@x.io")
        for email in emails:
            link(("account", f"a{person}"), ("email", email))
            link(("email", email), ("device", dice.choice(devices)))
        for device in devices:
            link(("device", device), ("cookie", f"c{device}"))
            made.append(Row(("device", device), None, "events", START, START))
    return made


def flipped(row: Row) -> Row:
    return row if row.b is None else replace(row, a=row.b, b=row.a)
