"""The six steps by which a sync is accepted: test user, trigger, wait, verify, logs, mapping; each with its result."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import polars as pl

from heap_assets.activation import Addressed, Connector, Status, connector_of, values_of
from heap_assets.errors import HeapAssetsError
from heap_assets.pipelines import delivery
from heap_assets.pipelines.sync_preflight import preflight
from heap_assets.pipelines.sync_why import why
from heap_assets.project import Project

_STEPS = ("test user", "trigger", "wait", "verify", "logs", "mapping")


@dataclass(frozen=True)
class Step:
    """One step. `passed`: None if there is nothing to judge, as in a dry run."""

    number: int
    passed: bool | None
    detail: str

    @property
    def title(self) -> str:
        """What is done in it."""
        return _STEPS[self.number - 1]


def qa(project: Project, name: str, key: str, day: date, *, send: bool) -> Iterator[Step]:
    """Yield the six steps of a sync for one key of its rows: one that has been made for the test.

    `send`: run the sync, with everything else that it has to send; without, it is planned, and what the destination has
    is compared as it is. Nothing is shown of values but whether they are the same.
    """
    connector = connector_of(project, name)
    table = connector.first_table
    facts = _facts(project, name, table, key, day)
    rows = connector.rows(day, table)
    frame = _only(rows.rows if isinstance(rows, Addressed) else rows, key)
    aside = facts.get("held") or facts.get("invalid") or facts.get("not sent")
    is_one = frame.select(pl.len()).collect().item() == 1
    yield Step(1, is_one and aside is None, aside or facts["row"])
    yield from _sent(project, name, day) if send else _planned(facts)
    values = values_of(connector.spec(table, day), connector.destination(table), frame)
    yield _verified(connector, key, {name: v for name, v in values.items() if v is not None}, send=send)
    facts = _facts(project, name, table, key, day)
    answer = facts.get("last answer")
    arrived = answer.startswith(("acknowledged", "sent")) if answer else None
    yield Step(5, bool(arrived) if send else arrived, facts["last request"] + (f": {answer}" if answer else ""))
    yield _mapped(connector)


def _facts(project: Project, name: str, table: str, key: str, day: date) -> dict[str, str]:
    return {fact.subject.removeprefix(f"{table}: "): fact.statement for fact in why(project, name, key, day)}


def _planned(facts: Mapping[str, str]) -> Iterator[Step]:
    is_open = facts["gate"].startswith("open")
    next_run = facts.get("next run", "nothing")
    yield Step(2, is_open, f"dry run: {next_run}" if is_open else f"the gate is {facts['gate']}")
    yield Step(3, None, "nothing was sent")


def _sent(project: Project, name: str, day: date) -> Iterator[Step]:
    run_id, options = f"qa-{uuid.uuid4().hex[:12]}", delivery.RunOptions(confirmed=True)
    report = delivery.send(project, name, day, run_id, options).report
    counts = f"{report.status}: {report.sent} sent, {report.rejected} rejected, {report.invalid} invalid"
    ended = report.status in (Status.SUCCEEDED, Status.PARTIAL)
    yield Step(2, ended, f"{counts}; {report.reason}" if report.reason else counts)
    figures = f"{report.seconds:.1f} s, {report.requests} requests, {report.unknown} unanswered"
    yield Step(3, not report.unknown, figures)


def _verified(connector: Connector[Any], key: str, sent: Mapping[str, Any], *, send: bool) -> Step:
    try:
        held = connector.read_back(key)
    except HeapAssetsError as error:
        return Step(4, False, str(error))
    if held is None:
        return Step(4, None, "this kind cannot be read back: look there")
    if not held:
        return Step(4, False if send else None, "it has no record there")
    other = [name for name, value in sent.items() if not is_same(value, held.get(name))]
    if other:
        return Step(4, False if send else None, f"other values there: {', '.join(other)}")
    return Step(4, True, f"the same values there: {', '.join(sent)}")


def _mapped(connector: Connector[Any]) -> Step:
    results = list(preflight(connector))
    failed = [f"{result.name} {result.detail}" for result in results if not result.passed]
    if not results:
        return Step(6, None, "this kind tries nothing before it sends")
    return Step(6, not failed, "; ".join(failed) or f"{len(results)} things are as needed")


def is_same(sent: Any, held: Any) -> bool:
    """Whether a value that was sent is the one that is read: of times the instant counts, of numbers the amount."""
    if isinstance(sent, bool) or isinstance(held, bool):
        return str(sent).lower() == str(held).lower()
    for read in (_number, _instant):
        one, other = read(sent), read(held)
        if one is not None and other is not None:
            return bool(one == other)
    return str(sent).strip() == str(held).strip()


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _instant(value: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(str(value))
    except ValueError:
        return None


def _only(rows: pl.LazyFrame, key: str) -> pl.LazyFrame:
    column = "event_key" if "event_key" in rows.collect_schema() else "key"
    return rows.filter(pl.col(column).cast(pl.String) == key)
