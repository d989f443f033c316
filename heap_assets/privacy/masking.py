"""Rules that keep personal data out of the lake: by the name of a property, by the form of a value, by the element.

Applied to rows where they enter the lake, and safe to apply again. `drop`: the value becomes null. `mask`: what it is
stands in its place. `hash`: a keyed pseudonym does, the same for equal values in all tables and runs. `fail`: the table
is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
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
STAND_IN: Final = rf"^(?:\[(?:masked|{'|'.join(sorted({kind.name for kind in KINDS}))})\]|{PREFIX}[0-9a-f]{{32}})$"
"""What stands in place of whole values: no rule is about it, so that rows that are merged with masked ones stay."""
_TARGETS: Final = {"tag": "target_tag", "id": "target_id", "class": "target_class"}
ELEMENT_COLUMNS: Final = ("target_text", "href", "title")
"""What an element of a page shows: masked where a selector matches, unless the rule names other columns."""
_ROWS_HAVE: Final = "rows have tag, id and classes of the element itself only"
_REMEMBERED: Final = 10_000
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

    def of_table(self, names: Collection[str]) -> bool:
        """Return whether the rule is for a table, by any of its names."""
        return any(fnmatchcase(name, pattern) for pattern in self.tables for name in names)

    def of_column(self, name: str, patterns: Sequence[str], by_name: Collection[str]) -> bool:
        """Return whether the rule is for a column; one of `by_name` only if the rule spells its name out."""
        return name in self.columns if name in by_name else any(fnmatchcase(name, pattern) for pattern in patterns)


@dataclass(frozen=True)
class MaskHits:
    """Rows after the rules, and the number of cells that each rule is about, by rule and column."""

    rows: pl.DataFrame
    cells: Mapping[tuple[int, str], int] = field(default_factory=dict)
    pseudonyms: Mapping[str, str] = field(default_factory=dict)
    """Value to pseudonym; kept where the settings say, and nowhere else."""


def _as_it_is(texts: pl.Series) -> pl.Series:
    return texts


def pseudonyms_of(texts: pl.Series, key: bytes) -> pl.Series:
    """Return the pseudonyms of texts: keyed hashes, the same wherever a text stands."""
    return PREFIX + keyed_hashes(texts, key, _PURPOSE)


class Masker:
    """Applies rules to the rows of a table.

    Parameters
    ----------
    names
        What the table is called: by Heap, as an asset of the lake.
    keys
        Columns that no rule may touch, because they say which a row is, and when it happened.
    by_name
        Columns that identify people: a rule must spell them out, a pattern or a kind of values is not enough.
    spelled
        Column to what makes one spelling of values before they are hashed, so that the pseudonym of a person is the
        same wherever they are named.
    """

    def __init__(
        self,
        rules: Sequence[MaskRule],
        key: bytes,
        names: Collection[str],
        keys: Collection[str] = (),
        by_name: Collection[str] = (),
        spelled: Mapping[str, Callable[[pl.Series], pl.Series]] | None = None,
    ) -> None:
        self._rules = [(number, rule) for number, rule in enumerate(rules) if rule.of_table(names)]
        self._key = key
        self._keys = set(keys)
        self._by_name = set(by_name) - self._keys
        self._spelled = spelled or {}
        self._pseudonyms: dict[str, str] = {}
        self._kinds = {number: [kind for kind in KINDS if kind.name in rule.kinds] for number, rule in self._rules}
        self._hashes: dict[tuple[str, str], str | None] = {}
        self._about: dict[tuple[int, str], bool] = {}

    def __bool__(self) -> bool:
        """Whether any rule is for the table."""
        return bool(self._rules)

    def applied(self, rows: pl.DataFrame) -> MaskHits:
        """Return the rows after all rules, in their order."""
        cells: dict[tuple[int, str], int] = {}
        self._pseudonyms = {}
        for number, rule in self._rules:
            where = rule.selector.matches(rows.columns) if rule.selector else pl.lit(value=True)
            chosen = rows.with_columns(where.alias(_HIT))[_HIT]
            for name in self._columns(rule, rows):
                changed = self._changed(number, rule, rows[name], chosen)
                if changed is not None:
                    values, count = changed
                    cells[number, name] = count
                    rows = rows if rule.action == "fail" else rows.with_columns(values.alias(name))
        return MaskHits(rows, cells, self.taken_pseudonyms())

    def _columns(self, rule: MaskRule, rows: pl.DataFrame) -> list[str]:
        patterns = rule.columns or (ELEMENT_COLUMNS if rule.selector else ("*",))
        return [
            name
            for name in rows.columns
            if name not in self._keys
            and rule.of_column(name, patterns, self._by_name)
            and (not rule.kinds or rows.schema[name] == pl.String)
            and not rows.schema[name].is_nested()
        ]

    def _changed(
        self, number: int, rule: MaskRule, values: pl.Series, chosen: pl.Series
    ) -> tuple[pl.Series, int] | None:
        """Return the values with those that the rule is about replaced, and their number; None if there are none."""
        of_rule = chosen & values.is_not_null()
        if values.dtype == pl.String:
            of_rule &= ~values.str.contains(STAND_IN).fill_null(value=False)
        kinds = self._kinds[number]
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
            return self._hashed(self._spelled.get(texts.name, _as_it_is)(texts))
        return pl.Series([MASKED if action == "mask" else None] * len(texts), dtype=pl.String)

    def _hashed(self, texts: pl.Series) -> pl.Series:
        filled = texts.drop_nulls()
        hashed = pseudonyms_of(filled, self._key)
        self._pseudonyms |= dict(zip(filled.to_list(), hashed.to_list(), strict=True))
        if len(filled) == len(texts):
            return hashed
        return texts.scatter(texts.is_not_null().arg_true(), hashed)

    def value(self, name: str, value: str | float | bool) -> tuple[str | float | bool | None, int | None]:
        """Return one value after all rules, None if it is dropped; and the number of a rule that refuses it.

        As :meth:`applied` does with a table of one cell, but for rules of elements, which messages have none of.
        """
        changed: str | float | bool | None = value
        for number, rule in self._rules:
            if changed is None or (isinstance(changed, str) and re.search(STAND_IN, changed)):
                break
            if rule.selector is not None or not self._is_about(number, rule, name):
                continue
            if rule.kinds:
                if not isinstance(changed, str):
                    continue
                masked = self._without_kinds(rule.action, changed, self._kinds[number])
                if masked == changed:
                    continue
            else:
                text = str(changed).lower() if isinstance(changed, bool) else str(changed)
                masked = self._replaced_text(rule.action, name, text)
            if rule.action == "fail":
                return value, number
            changed = masked
        return changed, None

    def identifies(self, name: str) -> bool:
        """Return whether a column identifies people, so that only rules that spell it out are about it."""
        return name in self._by_name

    def _replaced_text(self, action: Action, name: str, text: str) -> str | None:
        """Return what :meth:`_replaced` does; people come again and again, and hashing one text costs a millisecond."""
        if action != "hash":
            return MASKED if action == "mask" else None
        if (name, text) not in self._hashes:
            if len(self._hashes) >= _REMEMBERED:
                self._hashes.clear()
            self._hashes[name, text] = self._replaced(action, pl.Series(name, [text]))[0]
        return self._hashes[name, text]

    def taken_pseudonyms(self) -> dict[str, str]:
        """Return value to pseudonym of all values since the last call."""
        taken, self._pseudonyms = self._pseudonyms, {}
        return taken

    def _is_about(self, number: int, rule: MaskRule, name: str) -> bool:
        """Return whether a rule is for a column; names of messages' fields come again and again."""
        if (number, name) not in self._about:
            if len(self._about) >= _REMEMBERED:
                self._about.clear()
            about = name not in self._keys and rule.of_column(name, rule.columns or ("*",), self._by_name)
            self._about[number, name] = about
        return self._about[number, name]

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
