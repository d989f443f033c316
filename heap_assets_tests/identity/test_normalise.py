"""Spellings of one identifier are one value; what is no identifier is refused and counted."""

from __future__ import annotations

import unicodedata
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_assets.identity import (
    ColumnMapping,
    DayInput,
    IdentifierRule,
    Rules,
    SourceTable,
    Timeline,
    extract,
    resolve,
    suppressed_values,
    why_not,
)
from heap_assets.identity.normalise import IN_WORDS, REASONS, normalised
from heap_assets.identity.rules import NORMALISERS
from heap_assets.storage import Store

ADDRESS = "josé@acme.io"
RULES = Rules((IdentifierRule("heap_identity"), IdentifierRule("crm_id"), IdentifierRule("email")))
INVISIBLE = [
    "\u200b",
    "\u200c",
    "\u200d",
    "\ufeff",
    "\u2060",
    "\u00ad",
    "\u200e",
    "\u202e",
    "\u061c",
    "\u180e",
    "\u034f",
    "\ufe0f",
]
AROUND = [" ", "\t", "\u00a0", "\u3000", '"', "'", "“", "”", "<", ">", "«", "»", "`", "mailto:", "MAILTO:"]
AFTER = [".", ",", ";", ":", *AROUND[:13]]
Table = pl.LazyFrame


def spelt(values: list[str | None], normaliser: str) -> list[str | None]:
    return (
        pl.DataFrame({"v": pl.Series(values, dtype=pl.String)})
        .select(normalised(pl.col("v"), normaliser))["v"]
        .to_list()
    )


@st.composite
def spellings(draw: st.DrawFn) -> str:
    """The address as forms, lists and editors make of it."""
    text = unicodedata.normalize(draw(st.sampled_from(["NFC", "NFD"])), ADDRESS)
    text = "".join(letter.upper() if draw(st.booleans()) else letter for letter in text)
    for mark in draw(st.lists(st.sampled_from(INVISIBLE), max_size=3)):
        # not between a letter and its accent, where it would keep them apart for good
        place = draw(
            st.sampled_from([i for i in range(len(text) + 1) if i == len(text) or not unicodedata.combining(text[i])])
        )
        text = text[:place] + mark + text[place:]
    query = "?subject=Hello" if draw(st.booleans()) else ""
    before = "".join(draw(st.lists(st.sampled_from(AROUND), max_size=4)))
    after = "".join(draw(st.lists(st.sampled_from(AFTER), max_size=4)))
    return (
        f"mailto:{text}{query}{after}" if query else before + text + after.replace("mailto:", "").replace("MAILTO:", "")
    )


@settings(deadline=None)
@given(st.lists(spellings(), min_size=1, max_size=20))
def test_spellings_of_one_address_are_one_value(values: list[str]) -> None:
    assert set(spelt(values, "email")) == {ADDRESS}


@settings(deadline=None, max_examples=300)
@given(st.lists(st.one_of(st.none(), st.text(max_size=20), spellings()), max_size=20), st.sampled_from(NORMALISERS))
def test_normalising_twice_is_normalising_once(values: list[str | None], normaliser: str) -> None:
    once = spelt(values, normaliser)
    assert spelt(once, normaliser) == once


@settings(deadline=None, max_examples=200)
@given(st.lists(st.text(max_size=12), min_size=1, max_size=20), st.sampled_from(NORMALISERS))
def test_a_value_is_the_same_alone_and_among_others(values: list[str], normaliser: str) -> None:
    """Plain values take a shorter way than others; both ways agree."""
    assert spelt(values, normaliser) == [spelt([value, "É"], normaliser)[0] for value in values]


@pytest.mark.parametrize("mark", INVISIBLE, ids=lambda mark: f"U+{ord(mark):04X}")
def test_invisible_characters_are_left_out_of_all_text_identifiers(mark: str) -> None:
    assert spelt([f"{mark}A{mark}-1 {mark}"], "strip") == ["A-1"]
    assert spelt([f"{mark}A{mark}-1 {mark}"], "lower") == ["a-1"]
    assert spelt([f"A{mark}-1"], "none") == [f"A{mark}-1"], "a key that Heap has is not touched"


@pytest.mark.parametrize(
    "value",
    [
        "José <josé@acme.io>",
        'jo"sé@acme.io',
        "a@b@c.io",
        "josé@acme",
        "josé acme.io",
        "a@b.c, d@e.f",
        "jos\u0000é@acme.io",
    ],
)
def test_what_is_no_single_address_is_refused_and_counted(value: str) -> None:
    table = SourceTable("crm", "snapshot", (ColumnMapping("email", ("mail",)),))
    found = extract(pl.LazyFrame({"mail": [value]}), table, RULES)
    assert found.links.collect().is_empty()
    (refused,) = found.refused.collect().to_dicts()
    assert (refused["column"], refused["rows"]) == ("mail", 1)
    assert refused["reason"] in ("pattern", "control_character")


def test_control_characters_are_no_part_of_an_identifier() -> None:
    table = SourceTable("crm", "snapshot", (ColumnMapping("crm_id", ("id",)),))
    found = extract(pl.LazyFrame({"id": ["a\u0000b", "c\td", "ok\n"]}), table, RULES)
    assert found.links.collect()["value_a"].to_list() == ["ok"]
    assert found.refused.collect().select("reason", "rows").rows() == [("control_character", 2)]


def test_contacts_of_all_spellings_are_one_profile() -> None:
    values = [
        f"{ADDRESS}\u200b",
        f"\ufeff{ADDRESS}",
        ADDRESS.replace("@", "\u2060@"),
        ADDRESS.replace("acme", "ac\u00adme"),
        f"{ADDRESS}\u200e",
        unicodedata.normalize("NFD", ADDRESS),
        f"mailto:{ADDRESS}",
        f'"{ADDRESS}"',
        f"{ADDRESS}.",
    ]
    table = SourceTable("crm", "snapshot", (ColumnMapping("email", ("mail",)), ColumnMapping("crm_id", ("id",))))
    rows = pl.LazyFrame({"mail": values, "id": [f"c{n}" for n in range(len(values))]})
    graph = resolve(extract(rows, table, RULES).links, RULES).graph.collect()
    assert graph["profile_id"].n_unique() == 1
    assert graph.filter(identifier_type="email")["identifier"].to_list() == [ADDRESS]


def test_arrays_and_composites_are_spelled_like_single_values() -> None:
    table = SourceTable("t", "snapshot", (ColumnMapping("email", ("mails[]",)), ColumnMapping("crm_id", ("a", "b"))))
    rows = pl.LazyFrame({"mails": [[f'"{ADDRESS}"', "x@y.z\u200b", None]], "a": ["\u200bA "], "b": ["B\u00ad"]})
    graph = resolve(extract(rows, table, RULES).links, RULES).graph.collect()
    assert sorted(graph["identifier"]) == ["A|B", ADDRESS, "x@y.z"]


def test_suppressed_and_blocked_values_are_spelled_like_the_data() -> None:
    rules = Rules(
        (IdentifierRule("email", blocked=('"Info@Acme.io"',)),),
        suppressed=frozenset({("email", "mailto:Gone@Acme.io"), ("email", "GONE@acme.io")}),
    )
    assert suppressed_values(rules, "email") == {"gone@acme.io"}
    table = SourceTable("crm", "snapshot", (ColumnMapping("email", ("mail",)),))
    found = extract(pl.LazyFrame({"mail": ["gone@acme.io", "info@acme.io.", "ok@acme.io"]}), table, rules)
    assert found.links.collect()["value_a"].to_list() == ["ok@acme.io"]
    assert dict(found.refused.collect().select("reason", "rows").iter_rows()) == {"blocked": 1, "suppressed": 1}


def test_every_reason_is_said_in_words() -> None:
    assert set(IN_WORDS) == {None, *REASONS}
    frame = pl.DataFrame({"v": ["ann@acme.io", "test@acme.io", None]}).select(v=why_not(pl.col("v"), "email", RULES))
    assert frame["v"].to_list() == [None, "it is on the list of values that mean nobody", "it is null"]


def test_links_of_another_normalisation_are_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = SourceTable("crm", "snapshot", (ColumnMapping("email", ("mail",)),))
    given = DayInput(table, date(2026, 11, 1), "1", lambda: pl.LazyFrame({"mail": [f'"{ADDRESS}"']}))

    def modes() -> tuple[object, object]:
        done = Timeline(Store(str(tmp_path)), Rules(RULES.identifiers)).advance(given.day, [given])
        return done.notes["mode"], done.notes["why"]

    assert modes() == ("full", "no state of this version")
    assert modes()[0] == "unchanged"
    monkeypatch.setattr("heap_assets.identity.rules._NORMALISATION", 99)
    assert modes() == ("full", "the rules changed")
