"""The file of decisions: a CSV or YAML file beside the settings, reviewed like code; and tables with the same columns.

CSV: columns `decision` (the kind), `identifier_a`, `identifier_b`, `author`, `decided`, `reason`, `until`, `id`.
YAML: a list of mappings with the kind as key, one or more `type:value` under it, and the other columns. Of `nobody`,
`*:value` is the value of every type. Days are ISO 8601. A value may be a hash, see `decision_values`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import combinations
from pathlib import Path
from typing import Any, Final, cast

import polars as pl

from heap_assets.identity.decision_values import stands_for_another
from heap_assets.identity.decisions import (
    DECISION_KINDS,
    Decision,
    DecisionError,
    DecisionKind,
    Pair,
    Unusable,
    check_decisions,
)
from heap_assets.identity.normalise import IN_WORDS, normalised, reason
from heap_assets.identity.rules import Rules
from heap_assets.storage import update_file
from heap_assets.yaml_core import read_large_yaml, write_yaml

COLUMNS: Final = ("decision", "identifier_a", "identifier_b", "author", "decided", "reason", "until", "id")
_ABOUT: Final = ("author", "decided", "reason", "until", "id")
_WHERE: Final = "identity.decisions"
_EVERY_TYPE: Final = "*"
_ENDS: Final = ("identifier_a", "identifier_b")


@dataclass(frozen=True)
class _Entry:
    """One decision as it is written, and where."""

    where: str
    kind: str
    identifiers: tuple[str, ...]
    about: Mapping[str, str]

    @property
    def pairs(self) -> list[Pair]:
        """Type and raw value; DecisionError if one has no type."""
        pairs = []
        for text in self.identifiers:
            kind, colon, value = text.partition(":")
            if not colon or not kind.strip():
                raise DecisionError(f"{self.where}: an identifier has no type; expected type:value, such as email:…")
            pairs.append((kind.strip(), value))
        return pairs


def read_decisions(path: Path, rules: Rules) -> tuple[Decision, ...]:
    """Read a file of decisions; values are normalised like the data, by `rules`.

    Raises
    ------
    DecisionError
        The file is missing, or a row cannot be read: kind, type, number of identifiers, value or day. The message names
        the row and what was expected, never a value.
    """
    if not path.is_file():
        raise DecisionError(f"{_WHERE} is {str(path)!r}, which does not exist")
    return _decisions_of(path.read_text(encoding="utf-8-sig"), path, rules)


def decisions_of_table(rows: pl.DataFrame, table: str, rules: Rules) -> tuple[list[Decision], list[Unusable]]:
    """Return the decisions of a table, whose columns are those of the CSV file, and the rows that are none.

    Other columns are ignored; so are rows without a kind. Raises DecisionError if a column is missing.
    """
    if missing := [name for name in ("decision", "identifier_a") if name not in rows.columns]:
        raise DecisionError(
            f"identity.decisions_table is {table!r}, which has no column {', '.join(missing)}; expected the columns "
            f"{', '.join(COLUMNS)} (the first two at least)"
        )
    texts = rows.select(pl.col(name).cast(pl.String).str.strip_chars() for name in COLUMNS if name in rows.columns)
    entries = []
    for number, row in enumerate(texts.fill_null("").iter_rows(named=True), 1):
        if row["decision"]:
            name = f"decision {row['id']}" if row.get("id") else f"row {number}"
            where = f"identity.decisions_table, {table} {name}"
            entries.append(_entry_of_row(where, row))
    try:
        return list(_parsed(entries, rules)), []
    except DecisionError:
        decisions: list[Decision] = []
        unusable = []
        for entry in entries:
            try:
                decisions += _parsed([entry], rules)
            except DecisionError as error:
                unusable.append(Unusable(entry.about["id"], entry.kind, str(error)))
        return decisions, unusable


def parsed_identifiers(texts: Sequence[str], kind: str, rules: Rules) -> list[Pair]:
    """Return type and normalised value of `type:value` texts of a decision; DecisionError if one is no identifier."""
    [decision] = _parsed([_Entry(_WHERE, kind, tuple(texts), {})], rules)
    return list(decision.identifiers)


def append_decision(path: Path, rules: Rules, kind: str, identifiers: Sequence[str], about: Mapping[str, str]) -> int:
    """Add a decision to a file, which is made if it is missing; returns how many rows it took.

    A row of CSV has two identifiers at most: more of them take several rows.

    Parameters
    ----------
    rules
        Those that values are spelled by, without decisions.
    identifiers
        `type:value`.
    about
        `author`, `decided`, `reason`, `until`, `id`; what is empty is left out.

    Raises
    ------
    DecisionError
        The file would not be one that can be read, or its decisions would contradict each other: it stays as it is.
    """
    is_csv = path.suffix.lower() == ".csv"
    rows = _rows_of(kind, identifiers) if is_csv else [tuple(identifiers)]
    if about.get("id") and len(rows) > 1:
        raise DecisionError("one id cannot name several rows: leave the id out, or use a YAML file")

    def appended(before: bytes | None) -> bytes:
        text = (before or b"").decode("utf-8-sig")
        text += "" if not text or text.endswith("\n") else "\n"
        if is_csv:
            names = next(csv.reader(io.StringIO(text)), None) or list(COLUMNS)
            file = io.StringIO()
            writer = csv.DictWriter(file, names, lineterminator="\n")
            if not text:
                writer.writeheader()
            for row in rows:
                ends = dict(zip(("identifier_a", "identifier_b"), row, strict=False))
                content = {"decision": kind, **ends, **{name: value for name, value in about.items() if value}}
                if lacking := [name for name in content if name not in names]:
                    raise DecisionError(f"{_WHERE}: {path.name} has no column {', '.join(lacking)}")
                writer.writerow(content)
            text += file.getvalue()
        else:
            entry = {kind: list(rows[0]), **{name: value for name, value in about.items() if value}}
            text += write_yaml([entry])
        check_decisions(_decisions_of(text, path, rules))
        return text.encode()

    update_file(path, appended)
    return len(rows)


def blanked_decisions(data: bytes, path: Path, rules: Rules, stones: Mapping[Pair, str]) -> bytes:
    """Return a file of decisions with `type:tombstone` in place of values; equal bytes if it has none of them.

    `stones`: type and value, spelled by `rules`, to what stands in its place. Comments of YAML are lost where one is.
    """
    text = data.decode("utf-8-sig")
    entries = list(_of_csv(text, path) if path.suffix.lower() == ".csv" else _of_yaml(text, path))
    spelt = _spelt({pair for entry in entries for pair in _checked_pairs(entry, rules)}, rules)
    stone_of = {
        f"{kind}:{raw}": f"{kind}:{stone}"
        for (kind, raw), (value, _) in spelt.items()
        if (stone := stones.get((kind, value or raw))) is not None
    }
    if not any(one in stone_of for entry in entries for one in entry.identifiers):
        return data
    if path.suffix.lower() != ".csv":
        content = read_large_yaml(text, str(path)) or []
        for entry in content:
            for key in [key for key in entry if key not in _ABOUT]:
                entry[key] = [stone_of.get(one, one) for one in _texts(entry[key])]
        return write_yaml(content).encode()
    lines = csv.DictReader(io.StringIO(text))
    file = io.StringIO()
    writer = csv.DictWriter(file, lines.fieldnames or (), lineterminator="\n")
    writer.writeheader()
    for row in lines:
        ends = {name: stone_of.get((row.get(name) or "").strip(), row.get(name)) for name in _ENDS if name in row}
        writer.writerow({**row, **ends})
    return file.getvalue().encode()


def _rows_of(kind: str, identifiers: Sequence[str]) -> list[tuple[str, ...]]:
    if len(identifiers) <= 2 and kind != "nobody":
        return [tuple(identifiers)]
    if kind == "nobody":
        return [(one,) for one in identifiers]
    if kind == "same":
        return [(identifiers[0], one) for one in identifiers[1:]]
    return list(combinations(identifiers, 2))


def _decisions_of(text: str, path: Path, rules: Rules) -> tuple[Decision, ...]:
    entries = list(_of_csv(text, path) if path.suffix.lower() == ".csv" else _of_yaml(text, path))
    return _parsed(entries, rules)


def _parsed(entries: Sequence[_Entry], rules: Rules) -> tuple[Decision, ...]:
    """Validate entries and normalise their values, those of one type at once."""
    pairs = [_checked_pairs(entry, rules) for entry in entries]
    spelt = _spelt({pair for of_entry in pairs for pair in of_entry}, rules)
    decisions = []
    for entry, raw in zip(entries, pairs, strict=True):
        own = []
        for pair in raw:
            value, why = spelt[pair]
            if why in ("null", "empty") or (why is not None and entry.kind != "nobody"):
                raise DecisionError(
                    f"{entry.where}: a value of type {pair[0]} is no identifier: {IN_WORDS.get(why, why)}; "
                    "expected one that identifies somebody"
                )
            own.append((pair[0], value))
        identifiers = tuple(sorted({*own}))
        if entry.kind in ("same", "apart") and len(identifiers) < 2:
            raise DecisionError(
                f"{entry.where}: {entry.kind} is about {len(identifiers)} identifier, expected two or more"
            )
        decisions.append(
            Decision(
                cast("DecisionKind", entry.kind),
                identifiers,
                entry.about.get("author", ""),
                _day(entry, "decided"),
                " ".join(entry.about.get("reason", "").split()),
                _day(entry, "until"),
                entry.about.get("id", ""),
            )
        )
    return tuple(decisions)


def _checked_pairs(entry: _Entry, rules: Rules) -> list[Pair]:
    if entry.kind not in DECISION_KINDS:
        raise DecisionError(f"{entry.where}: decision is {entry.kind!r}, expected one of {', '.join(DECISION_KINDS)}")
    if not entry.identifiers:
        raise DecisionError(f"{entry.where}: {entry.kind} names no identifier; expected type:value")
    pairs: list[Pair] = []
    for kind, value in entry.pairs:
        if kind == _EVERY_TYPE and entry.kind == "nobody":
            pairs += [(name, value) for name in rules.types]
        elif kind not in rules.types:
            raise DecisionError(
                f"{entry.where}: unknown identifier type {kind!r}; the rules know {', '.join(rules.types)}"
            )
        else:
            pairs.append((kind, value))
    return pairs


def _spelt(pairs: set[Pair], rules: Rules) -> dict[Pair, tuple[str, str | None]]:
    """Return each value as the rules spell it, and why it is no identifier."""
    spelt: dict[Pair, Any] = {pair: (pair[1], None) for pair in pairs if stands_for_another(pair[1])}
    for rule in rules.identifiers:
        raw = sorted(value for kind, value in pairs if kind == rule.type and not stands_for_another(value))
        if not raw:
            continue
        frame = pl.Series("v", raw, pl.String).to_frame().select(value=normalised(pl.col("v"), rule.normaliser))
        judged = frame.with_columns(why=reason(pl.col("value"), rule, rules))
        spelt.update({(rule.type, one): row for one, row in zip(raw, judged.iter_rows(), strict=True)})
    return cast("dict[Pair, tuple[str, str | None]]", spelt)


def _day(entry: _Entry, name: str) -> date | None:
    text = entry.about.get(name, "")
    try:
        return date.fromisoformat(text[:10]) if text else None
    except ValueError:
        raise DecisionError(f"{entry.where}: {name} is {text!r}, expected a day such as 2026-11-02") from None


def _of_csv(text: str, path: Path) -> Iterator[_Entry]:
    lines = csv.DictReader(io.StringIO(text))
    names = {*(lines.fieldnames or ())}
    if not {"decision", "identifier_a"} <= names or not names <= {*COLUMNS}:
        raise DecisionError(
            f"{_WHERE} is {str(path)!r}; its first line must name the columns {', '.join(COLUMNS)} "
            "(the first two at least, and no others)"
        )
    for row in lines:
        where = f"{_WHERE}, {path.name} line {lines.line_num}"
        if None in row:
            raise DecisionError(f"{where}: more fields than columns; put text with a comma into double quotes")
        texts = {name: (value or "").strip() for name, value in row.items() if name in COLUMNS}
        yield _entry_of_row(where, texts)


def _entry_of_row(where: str, row: Mapping[str, str]) -> _Entry:
    ends = tuple(end for name in _ENDS if (end := row.get(name, "")))
    return _Entry(where, row["decision"], ends, {name: row.get(name, "") for name in _ABOUT})


def _of_yaml(text: str, path: Path) -> Iterator[_Entry]:
    content = read_large_yaml(text, str(path)) or []
    if not isinstance(content, list):
        raise DecisionError(f"{_WHERE} is {str(path)!r}, expected a list of decisions")
    for number, entry in enumerate(content, 1):
        where = f"{_WHERE}, {path.name} entry {number}"
        if not isinstance(entry, dict):
            raise DecisionError(f"{where}: expected a mapping such as {{same: [email:…, crm_id:…], author: …}}")
        kinds = [name for name in entry if name not in _ABOUT]
        if len(kinds) != 1:
            raise DecisionError(
                f"{where}: its keys are {', '.join(map(str, entry))}; expected one of {', '.join(DECISION_KINDS)}, "
                f"and {', '.join(_ABOUT)}"
            )
        yield _Entry(
            where, str(kinds[0]), _texts(entry[kinds[0]]), {n: str(entry[n] or "") for n in _ABOUT if n in entry}
        )


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(str(one) for one in (value if isinstance(value, list) else [value]) if one is not None)
