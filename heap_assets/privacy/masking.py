"""Rules that keep personal data out of the lake: by the name of a property, by the form of a value, by the element.

Applied to rows while they land. `drop`: the value becomes null. `mask`: what it is stands in its place. `hash`: a keyed
pseudonym does, the same for equal values in all tables and runs. `fail`: the table is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final, Literal

import polars as pl

from heap_assets.errors import SettingsError
from heap_assets.privacy.kinds import KINDS, Kind
from heap_assets.privacy.tombstones import keyed_hashes
from heap_assets.values import PRIVATE

Action = Literal["drop", "mask", "hash", "fail"]
_WITH_SIGNS: Final = ("email", "phone")
MASKED: Final = "[masked]"
_PURPOSE: Final = "pseudonym"
PREFIX: Final = "user_"
"""Begins pseudonyms, which are 32 hex digits after it."""
_TARGETS: Final = {"tag": "target_tag", "id": "target_id", "class": "target_class"}
ELEMENT_COLUMNS: Final = ("target_text", "href", "title")
"""What an element of a page shows: masked where a selector matches, unless the rule names other columns."""
_ROWS_HAVE: Final = "rows have tag, id and classes of the element itself only"
_HIT: Final = f"{PRIVATE}hit"
_SELECTOR: Final = re.compile(r"(?P<tag>[A-Za-z][\w-]*)?(?P<more>(?:[#.][A-Za-z_][\w-]*)*)")


class SelectorError(SettingsError):
    """A selector that rows cannot be matched with; the message says which part, and why."""


@dataclass(frozen=True)
class Selector:
    """What an element must be: its tag, id and classes, as far as they are given."""

    tag: str | None = None
    id: str | None = None
    classes: tuple[str, ...] = ()

    def matches(self, columns: Sequence[str]) -> pl.Expr:
        """Return whether rows are of such an element; never true of a table that lacks a column it needs."""
        tests = []
        if self.tag is not None:
            tests.append(("tag", pl.col(_TARGETS["tag"]).cast(pl.String).str.to_lowercase() == self.tag.lower()))
        if self.id is not None:
            tests.append(("id", pl.col(_TARGETS["id"]).cast(pl.String).str.strip_prefix("#") == self.id))
        names = pl.col(_TARGETS["class"]).cast(pl.String).str.replace_all(r"[.;,]", " ").str.split(" ")
        tests += [("class", names.list.contains(name)) for name in self.classes]
        if any(_TARGETS[kind] not in columns for kind, _ in tests):
            return pl.lit(value=False)
        return pl.all_horizontal(*(test for _, test in tests)).fill_null(value=False)


def parsed_selector(text: str) -> Selector:
    """Return a CSS selector of one element: `tag`, `#id`, `.class`, and these joined.

    Raises SelectorError for one that needs more than the element itself, which is all that a row has.

    >>> parsed_selector("input.card#pan")
    Selector(tag='input', id='pan', classes=('card',))
    """
    stripped = text.strip()
    for sign, needs in (
        (">", "an ancestor"), ("+", "a sibling"), ("~", "a sibling"), (",", "two rules"), ("[", "attributes"),
        (":", "the state of the page"), ("*", "every element"),
    ):  # fmt: skip
        if sign in stripped:
            raise SelectorError(
                f"the selector {text!r} needs {needs}; rows have tag, id and classes of the element only"
            )
    if " " in stripped:
        raise SelectorError(
            f"the selector {text!r} needs an ancestor; rows have tag, id and classes of the element only"
        )
    match = _SELECTOR.fullmatch(stripped)
    if not stripped or match is None:
        raise SelectorError(f"{text!r} is no selector; expected tag, #id, .class or these joined, such as input.card")
    parts = re.findall(r"([#.])([\w-]+)", match["more"])
    ids = [name for sign, name in parts if sign == "#"]
    return Selector(match["tag"], ids[0] if ids else None, tuple(name for sign, name in parts if sign == "."))


@dataclass(frozen=True)
class MaskRule:
    """One rule.

    Attributes
    ----------
    columns
        Patterns of columns: every value of them, or where `selector` matches, or where `kinds` stand in them.
    kinds
        Kinds of values (:data:`KINDS`); in all text columns, if no columns are named.
    """

    action: Action
    tables: tuple[str, ...] = ("*",)
    columns: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    selector: Selector | None = None

    def of_table(self, table: str) -> bool:
        """Return whether the rule is for a table, as Heap calls it."""
        return any(fnmatchcase(table, pattern) for pattern in self.tables)


@dataclass(frozen=True)
class MaskHits:
    """Rows after the rules, and the number of cells that each rule is about, by rule and column."""

    rows: pl.DataFrame
    cells: Mapping[tuple[int, str], int] = field(default_factory=dict)
    pseudonyms: Mapping[str, str] = field(default_factory=dict)
    """Value to pseudonym; kept where the settings say, and nowhere else."""


class Masker:
    """Applies rules to rows of tables.

    `keys`: columns that no rule may touch, because they say whose and which a row is.
    """

    def __init__(self, rules: Sequence[MaskRule], key: bytes, keys: Sequence[str]) -> None:
        self._rules = list(enumerate(rules))
        self._key = key
        self._keys = set(keys)
        self._pseudonyms: dict[str, str] = {}

    def applied(self, table: str, rows: pl.DataFrame) -> MaskHits:
        """Return the rows of a table after all rules, in their order."""
        cells: dict[tuple[int, str], int] = {}
        self._pseudonyms = {}
        for number, rule in self._rules:
            if not rule.of_table(table):
                continue
            where = rule.selector.matches(rows.columns) if rule.selector else pl.lit(value=True)
            chosen = rows.with_columns(where.alias(_HIT))[_HIT]
            for name in self._columns(rule, rows):
                changed = self._changed(rule, rows[name], chosen)
                if changed is not None:
                    values, count = changed
                    cells[number, name] = count
                    rows = rows if rule.action == "fail" else rows.with_columns(values.alias(name))
        return MaskHits(rows, cells, self._pseudonyms)

    def _columns(self, rule: MaskRule, rows: pl.DataFrame) -> list[str]:
        patterns = rule.columns or (ELEMENT_COLUMNS if rule.selector else ("*",))
        return [
            name
            for name in rows.columns
            if name not in self._keys
            and any(fnmatchcase(name, pattern) for pattern in patterns)
            and (not rule.kinds or rows.schema[name] == pl.String)
            and not rows.schema[name].is_nested()
        ]

    def _changed(self, rule: MaskRule, values: pl.Series, chosen: pl.Series) -> tuple[pl.Series, int] | None:
        """Return the values with those that the rule is about replaced, and their number; None if there are none."""
        of_rule = chosen & values.is_not_null()
        kinds = [kind for kind in KINDS if kind.name in rule.kinds]
        if rule.kinds:
            may_be = pl.any_horizontal(*(pl.col(values.name).str.contains(kind.pattern) for kind in kinds))
            of_rule &= values.to_frame().select(may_be).to_series().fill_null(value=False)
        places = of_rule.arg_true()
        if not len(places):
            return None
        texts = values.gather(places).cast(pl.String)
        if not rule.kinds:
            replaced = self._replaced(rule.action, texts)
        else:
            parts = [self._without_kinds(rule.action, str(text), kinds) for text in texts.to_list()]
            hit = [position for position, part in enumerate(parts) if part != texts[position]]
            places, replaced = places.gather(hit), pl.Series([parts[position] for position in hit], dtype=pl.String)
            if not hit:
                return None
        if values.dtype != pl.String:
            if rule.action == "drop":
                return values.scatter(places, None), len(places)
            values = values.cast(pl.String)
        return values.scatter(places, replaced), len(places)

    def _replaced(self, action: Action, texts: pl.Series) -> pl.Series:
        if action == "hash":
            return self._hashed(texts)
        return pl.Series([MASKED if action == "mask" else None] * len(texts), dtype=pl.String)

    def _hashed(self, texts: pl.Series) -> pl.Series:
        hashed = PREFIX + keyed_hashes(texts, self._key, _PURPOSE)
        self._pseudonyms |= dict(zip(texts.to_list(), hashed.to_list(), strict=True))
        return hashed

    def _without_kinds(self, action: Action, text: str, kinds: Sequence[Kind]) -> str | None:
        for kind in kinds:
            for match in reversed(list(re.finditer(kind.pattern, text))):
                if kind.confirm is not None and not kind.confirm(match.group()):
                    continue
                if action == "drop":
                    return None
                digits = re.search(r"\d.*\d", match.group()) if kind.name not in _WITH_SIGNS else None
                inner = digits.group() if digits else match.group().strip()
                begin = text.index(inner, match.start())
                stand_in = str(self._hashed(pl.Series([inner]))[0]) if action == "hash" else f"[{kind.name}]"
                text = text[:begin] + stand_in + text[begin + len(inner) :]
        return text
