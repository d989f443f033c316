"""The rules of `privacy.rules` for the tables of a deployment: applied where rows enter the lake, or only counted."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from heap_assets.config import MaskingRule
from heap_assets.errors import SettingsError, SourceError
from heap_assets.identity import Rules, normalised, why_not
from heap_assets.privacy import (
    Masker,
    MaskHits,
    MaskRule,
    Pair,
    SelectorError,
    parsed_selector,
    privacy_key,
    pseudonyms_of,
    spelled,
)
from heap_assets.project.ownership import mapping_of
from heap_assets.sources.heap_connect import keys_of
from heap_assets.sources.inbox import REFUSED
from heap_assets.tables import (
    INBOX_COLUMNS,
    INBOX_MESSAGES,
    SNAPSHOT_TABLES,
    heap_asset,
    inbox_asset,
    is_heap_table,
    is_inbox_table,
    warehouse_table,
)
from heap_assets.versions import version_of

if TYPE_CHECKING:
    from heap_assets.project.project import Project

_LANDED_KEYS = ("event_id", "user_id", "session_id", "time", "joindate", "last_modified", "from_user_id", "to_user_id")
"""Columns that say which a row is, and when it happened; `identity` may be hashed, and nothing else."""
_IDS = ("user_id", "anonymous_id", "previous_id", "group_id")
"""Columns of messages that say whose they are, beside what their bodies hold."""
_ROWS_AT_ONCE = 500_000


def masking_rules(rules: list[MaskingRule]) -> list[MaskRule]:
    """Return the rules of the settings; SettingsError, naming the key, for a selector that cannot be matched."""
    parsed = []
    for number, rule in enumerate(rules):
        try:
            selector = None if rule.selector is None else parsed_selector(rule.selector)
        except SelectorError as error:
            raise SettingsError(f"privacy.rules[{number}].selector: {error}") from error
        parsed.append(MaskRule(rule.action, tuple(rule.tables), tuple(rule.columns), tuple(rule.kinds), selector))
    return parsed


def masker_of(project: Project, asset: str, *, keep: bool = True, of_messages: bool = False) -> Masker:
    """Return what applies the rules to a table; `keep`: store the key of pseudonyms if there is none yet.

    `of_messages`: to values of messages as they came, rather than to the columns of their table.
    Columns that a table of a source, or messages, identify people by are touched only by rules that spell them out.
    """
    settings = project.settings.privacy
    keys: set[str | None] = set()
    by_name: set[str] = set()
    names = {asset}
    if is_heap_table(asset):
        table = project.heap_tables.get(asset) or asset.rpartition("/")[2]
        names.add(table)
        keys |= {*_LANDED_KEYS, *(keys_of(table) if table in SNAPSHOT_TABLES else ())} - {"identity"}
    elif is_inbox_table(asset):
        keys |= set(() if of_messages else INBOX_COLUMNS) - {*_IDS}
        by_name |= {*_IDS}
    else:
        names.add(warehouse_table(asset))
        described = project.settings.source_tables.get(warehouse_table(asset))
        keys |= {described.key, described.created_at, described.updated_at} if described else set()
    identifying = _identifying(project, asset)
    by_name |= set() if is_heap_table(asset) else set(identifying)
    rules = project.rules_of_settings
    spelled = {column: partial(_spelled, rules=rules, types=types) for column, types in identifying.items()}
    key = privacy_key(project.lake.store, settings.key_bytes, keep=keep) if settings.rules else b""
    return Masker(masking_rules(settings.rules), key, names, {one for one in keys if one}, by_name, spelled)


def with_pseudonyms(project: Project, pairs: Iterable[Pair]) -> tuple[Pair, ...]:
    """Return identifiers as the rules spell them, and what stands in their place where a rule of masking hashes them.

    A person is asked for by what they are called; the lake may know them by a pseudonym alone.

    Raises SettingsError as :func:`spelled` does.
    """
    plain, settings = spelled(pairs, project.rules_of_settings), project.settings.privacy
    if not plain or not any(rule.action == "hash" for rule in settings.rules):
        return plain
    key = privacy_key(project.lake.store, settings.key_bytes)
    hashed = pseudonyms_of(pl.Series([value for _, value in plain], dtype=pl.String), key)
    return tuple(sorted({*plain, *((kind, one) for (kind, _), one in zip(plain, hashed, strict=True))}))


def _identifying(project: Project, asset: str) -> dict[str, list[str]]:
    """Return the columns that a table names people by, each with the identifier types of its values."""
    table = mapping_of(project, asset)
    columns: dict[str, list[str]] = {}
    for mapping in table.mappings if table else ():
        for column in mapping.columns:
            columns.setdefault(column, []).append(mapping.type)
    return columns


def _spelled(texts: pl.Series, rules: Rules, types: Sequence[str]) -> pl.Series:
    """Return identifiers in the one spelling of their type; null for what identifies nobody, such as `n/a`.

    With a pseudonym, everybody who has none would be the same person.
    """
    rows = texts.to_frame("text")
    spelled = pl.Series(texts.name, [None] * len(texts), pl.String)
    for kind in sorted(types, key=lambda kind: rules[kind].normaliser in ("none", "strip")):
        text = pl.col("text")
        usable = pl.when(why_not(text, kind, rules).is_null()).then(normalised(text, rules[kind].normaliser))
        of_kind = rows.select(usable.alias(texts.name)).to_series()
        spelled = spelled.zip_with(spelled.is_not_null(), of_kind)
    return spelled


def masked_landed(project: Project, table: str, rows: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Return rows of a table, as Heap calls it, as they may land, and the number of cells that rules have changed."""
    return masked(project, heap_asset(table), rows, table)


def masked(project: Project, asset: str, rows: pl.DataFrame, name: str | None = None) -> tuple[pl.DataFrame, int]:
    """Return rows of a table as they may be kept, and the number of cells that rules have changed.

    Raises SourceError if a rule refuses the table: it names the column and the number of values, and no value.
    """
    masker = masker_of(project, asset) if project.settings.privacy.rules else None
    if not masker:
        return rows, 0
    hits = _accepted(project, masker.applied(rows), name or asset)
    return hits.rows, sum(hits.cells.values())


def masked_scan(project: Project, asset: str, rows: pl.LazyFrame, scratch: Path) -> tuple[pl.LazyFrame, int]:
    """Return as :func:`masked` does, of rows that need not fit into memory; the same frame if no cell is changed.

    Files that the result scans lie in the folder `scratch`.
    """
    masker = masker_of(project, asset) if project.settings.privacy.rules else None
    if not masker:
        return rows, 0
    unmasked = scratch / "unmasked.parquet"
    rows.sink_parquet(unmasked, engine="streaming")  # its slices have the same rows each time they are read
    stored = pl.scan_parquet(unmasked)
    parts: list[pl.LazyFrame] = []
    count = 0
    for at in range(0, max(stored.select(pl.len()).collect().item(), 1), _ROWS_AT_ONCE):
        batch = stored.slice(at, _ROWS_AT_ONCE)
        hits = _accepted(project, masker.applied(batch.collect(engine="streaming")), asset)
        if hits.cells:
            path = scratch / f"masked-{len(parts)}.parquet"
            hits.rows.write_parquet(path)
            batch = pl.scan_parquet(path)
        parts.append(batch)
        count += sum(hits.cells.values())
    return (_together(parts), count) if count else (rows, 0)


def _together(parts: list[pl.LazyFrame]) -> pl.LazyFrame:
    """Put parts together; a column that became text in one of them is text in all."""
    schemas = [part.collect_schema() for part in parts]
    texts = [name for name in schemas[0] if len({str(schema[name]) for schema in schemas}) > 1]
    return pl.concat([part.with_columns(pl.col(name).cast(pl.String) for name in texts) for part in parts])


def _accepted(project: Project, hits: MaskHits, table: str) -> MaskHits:
    settings = project.settings.privacy
    for (number, column), count in hits.cells.items():
        if settings.rules[number].action == "fail":
            raise SourceError(f"privacy.rules[{number}] refuses {table}: {count} values of its column {column}")
    if settings.pseudonyms and hits.pseudonyms:
        _store_pseudonyms(Path(settings.pseudonyms), hits.pseudonyms)
    return hits


def _store_pseudonyms(folder: Path, pseudonyms: Mapping[str, str]) -> None:
    """Add values and their pseudonyms to the folder of the map, a file of its own for what is new."""
    frame = pl.DataFrame(list(pseudonyms.items()), schema={"value": pl.String, "pseudonym": pl.String}, orient="row")
    frame = frame.sort("value")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    name = hashlib.sha256(frame["pseudonym"].str.join("").item().encode()).hexdigest()[:32]
    new = folder / f".{name}.new"
    frame.write_parquet(new)
    new.replace(folder / f"{name}.parquet")


def rules_version(project: Project) -> str:
    """Return a version of the rules; empty without any. Rows that were read under another one are masked again."""
    rules = project.settings.privacy.rules
    return version_of([rule.model_dump(mode="json") for rule in rules]) if rules else ""


def would_mask(project: Project, asset: str, rows: pl.DataFrame) -> Iterator[tuple[int, str, str, int]]:
    """Yield number of the rule, action, column and number of cells that the rules are about; nothing is changed."""
    hits = masker_of(project, asset, keep=False).applied(rows)
    for (number, column), count in hits.cells.items():
        yield number, project.settings.privacy.rules[number].action, column, count


def message_masker(project: Project) -> Callable[[dict[str, Any]], dict[str, Any]] | None:
    """Return what applies the rules to a message of the inbox before it is kept; None without rules.

    Values of the body are known by the key that they stand under, in snake case too (`userId` is `user_id`). What says
    which message it is and when it came is never touched. A message that a rule refuses is left with the reason as its
    `fault`, and without a body.
    """
    if not project.settings.privacy.rules:
        return None
    maskers: dict[str, Masker] = {}

    def masked_message(message: dict[str, Any]) -> dict[str, Any]:
        table = str(message.get("table") or REFUSED)
        if table not in maskers:
            maskers[table] = masker_of(project, inbox_asset(table), of_messages=True)
        if not maskers[table]:
            return message
        values = _Values(maskers[table])
        ids = {name: values.leaf(name, message[name]) for name in _IDS if message.get(name) is not None}
        body = values.tree("", message["body"], is_call=table in INBOX_MESSAGES)
        if values.refused is not None:
            return {
                "message_id": message["message_id"], "fault": f"privacy.rules[{values.refused}] refuses it", "body": {},
            }  # fmt: skip
        pseudonyms = maskers[table].taken_pseudonyms()
        if project.settings.privacy.pseudonyms and pseudonyms:
            _store_pseudonyms(Path(project.settings.privacy.pseudonyms), pseudonyms)
        return {**message, **ids, "body": body}

    return masked_message


@dataclass
class _Values:
    """Walks over the values of a message; `refused`: number of the first rule that refuses one."""

    masker: Masker
    refused: int | None = None

    def tree(self, name: str, value: Any, *, is_call: bool = False) -> Any:
        """Return a value of JSON after the rules; `is_call`: of the fields of a call itself, ids alone may change."""
        if isinstance(value, dict):
            return {
                key: inner
                if is_call and not isinstance(inner, dict | list) and _snake(key) not in _IDS
                else self.tree(key, inner)
                for key, inner in value.items()
            }
        if isinstance(value, list):
            return [self.tree(name, inner) for inner in value]
        return self.leaf(name, value)

    def leaf(self, name: str, value: Any) -> Any:
        snake = _snake(name)
        for spelling in (snake,) if self.masker.identifies(snake) else dict.fromkeys((name, snake)):
            if value is None:
                break
            value, refused = self.masker.value(spelling, value)
            self.refused = refused if self.refused is None else self.refused
        return value


def _snake(name: str) -> str:
    return "".join(f"_{sign.lower()}" if sign.isupper() else sign for sign in name).lstrip("_")
