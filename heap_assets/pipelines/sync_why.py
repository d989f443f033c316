"""Why a value did or did not arrive: all that is known of one key of a sync, in one place, with values hashed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import polars as pl

from heap_assets.activation import (
    Addressed,
    Connector,
    Log,
    changelog,
    connector_of,
    fold,
    hashed_key,
    hashed_keys,
    planned_for,
    salt,
)
from heap_assets.errors import DeliveryError
from heap_assets.pipelines.sync_gate import sync_gate
from heap_assets.project import Project

_HELD_BY = {0: "empty", 1: "unknown: sent, and not answered"}


@dataclass(frozen=True)
class Fact:
    """One thing that is known: what it is about, and what is the case."""

    subject: str
    statement: str


def why(project: Project, name: str, key: str, day: date) -> Iterator[Fact]:
    """Yield what is known of a key of a sync: gate, row, mapping, ledger, plan, last request and answer.

    Values and keys are shown as keyed hashes, by which equal ones are recognised.
    """
    connector = connector_of(project, name)
    secret = salt(project.lake.store, keep=False)
    yield Fact("key", f"{hashed_key(key, secret)} is the hash by which reports show it")
    shut = sync_gate(project, name, day)
    yield Fact("gate", f"shut for {day}: {'; '.join(shut)}" if shut else f"open for {day}")
    for table in connector.ledger_tables:
        where = f"{table}: " if table else ""
        for fact in _of_ledger(project, connector, table, key, day, secret):
            yield Fact(where + fact.subject, fact.statement)


def key_of(project: Project, name: str, key_hash: str, day: date) -> str:
    """Return the key of a sync that reports show by a hash.

    Raises
    ------
    DeliveryError
        If neither the rows of the day nor the ledger has such a key.
    """
    connector, store = connector_of(project, name), project.lake.store
    secret = salt(store, keep=False)
    for table in connector.ledger_tables:
        log = Log(store, connector.ledger_folder(table))
        rows = connector.rows(day, table)
        frames = [rows.rows, rows.held, rows.invalid] if isinstance(rows, Addressed) else [rows]
        keys = [pl.LazyFrame({"key": fold(log, log.ledger()).frame["key"]})]
        keys += [
            frame.select(key=pl.col(column).cast(pl.String))
            for frame in frames
            for column in ("key", "event_key")
            if column in frame.collect_schema()
        ]
        distinct = pl.concat(keys).drop_nulls().unique().collect()["key"]
        matching = distinct.filter(hashed_keys(distinct, secret) == key_hash.strip().lower())
        if len(matching):
            return str(matching[0])
    raise DeliveryError(
        f"sync {name}: no row of {day} and no entry of the ledger has a key with the hash {key_hash!r}; "
        f"`heap-assets sync why {name} KEY` prints the hash of a key"
    )


def _of_ledger(
    project: Project, connector: Connector[Any], table: str, key: str, day: date, secret: bytes
) -> Iterator[Fact]:
    store, folder = project.lake.store, connector.ledger_folder(table)
    rows = connector.rows_to_send(day, table)
    yield from _row(connector, rows, key)
    log = Log(store, folder)
    entry = fold(log, log.ledger()).frame.filter(pl.col("key") == key)
    yield from _ledger(entry)
    selected = _only(rows, key)
    read_back = rows.read_back if isinstance(rows, Addressed) else None
    plan = planned_for(connector.spec(table, day), connector.destination(table), selected, store, day, key, read_back)
    yield from (Fact(subject, statement) for subject, statement in plan.items())
    sent = changelog(store, folder).filter(pl.col("key_hash") == hashed_key(key, secret)).sort("intended_at")
    yield Fact("last request", _request(sent.row(-1, named=True)) if len(sent) else "none: nothing of it was ever sent")
    if len(sent):
        yield Fact("last answer", _answer(sent.row(-1, named=True)))


def _row(connector: Connector[Any], rows: pl.LazyFrame | Addressed, key: str) -> Iterator[Fact]:
    frame = rows.rows if isinstance(rows, Addressed) else rows
    count = frame.filter(_has_key(frame, key)).select(pl.len()).collect().item()
    yield Fact("row", f"{count} in {connector.source_asset}" if count else f"none in {connector.source_asset}")
    aside = [("held", rows.held), ("invalid", rows.invalid)] if isinstance(rows, Addressed) else []
    for kind, frame in aside:
        for reason in frame.filter(pl.col("key") == key).select("reason").collect()["reason"]:
            yield Fact(kind, reason)


def _ledger(entry: pl.DataFrame) -> Iterator[Fact]:
    if not len(entry):
        yield Fact("ledger", "nothing of it was acknowledged, refused or left unanswered")
        return
    facts = entry.row(0, named=True)
    shown = ("status", "day", "acknowledged_at", "failures", "reason", "until")
    yield Fact("ledger", _in_words({name: facts.get(name) for name in shown}))
    if facts.get("remote_id"):
        yield Fact("record there", "its id is known")
    held = {name[2:]: value for name, value in facts.items() if name.startswith("p:") and value is not None}
    for name, value in held.items():
        yield Fact(f"acknowledged {name}", _HELD_BY.get(value) or f"{value:016x}")


def _only(rows: pl.LazyFrame | Addressed, key: str) -> pl.LazyFrame:
    frame = rows.rows if isinstance(rows, Addressed) else rows
    return frame.filter(_has_key(frame, key))


def _has_key(rows: pl.LazyFrame, key: str) -> pl.Expr:
    columns = [column for column in ("key", "event_key") if column in rows.collect_schema()]
    return pl.any_horizontal(pl.col(column).cast(pl.String) == key for column in columns)


def _request(entry: Mapping[str, Any]) -> str:
    names, hashes = entry["fields"] or [], entry["hashes"] or []
    values = [f" {_HELD_BY.get(value) or f'{value:016x}'}" for value in hashes] or [""] * len(names)
    fields = ", ".join(f"{name}{value}" for name, value in zip(names, values, strict=True)) or "no property"
    return f"{entry['op']} of {fields} at {entry['intended_at']:%Y-%m-%d %H:%M:%S} UTC (rows of {entry['day']})"


def _answer(entry: Mapping[str, Any]) -> str:
    status = f"HTTP {entry['http_status']}" if entry["http_status"] else "no status"
    return ", ".join(filter(None, [entry["status"], status, entry["reason"]]))


def _in_words(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_plain(value)}" for name, value in facts.items() if value not in (None, "", 0))


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str).strip('"')
