"""A run of many rows is divided into parts on disk: it sends, records and asks what one that holds all rows does."""

from __future__ import annotations

import gc
import json
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import delivery_kit as kit
import httpx
import polars as pl
import pytest

from heap_assets.activation import (
    Addressed,
    BaseDestination,
    Guard,
    Limits,
    Recipe,
    Request,
    Response,
    Row,
    SyncReport,
    SyncSpec,
    changelog,
    deliver,
    dry_run,
    set_aside,
)
from heap_assets.activation.engine import deliver as running
from heap_assets.activation.engine import log, parts, planning, rounds, spill
from heap_assets.activation.engine.addressing import no_addresses
from heap_assets.activation.engine.http_client import Transport
from heap_assets.activation.engine.rate_limit import RealClock
from heap_assets.activation.engine.spec import Mode
from heap_assets.activation.engine.spill import PlannedRows
from heap_assets.storage import Store

PART = 6
SEEDS = 20 if "HEAP_ASSETS_LONG" in os.environ else 1
TIMED = {"seconds", "run_id", "sync"}
NEVER = Guard(removed=1, changed=1, takeover=1)


class There(BaseDestination):
    """Takes all rows but those of key `bad`, and tells apart no upper case."""

    limits = Limits(batch_rows=4)

    def __init__(self, mode: Mode, recipe: Recipe | None = None) -> None:
        self.mode = mode
        self.key_recipe = recipe
        self.required = ("event_key", "time") if mode is Mode.INSERT else ()

    def invalid_rows(self, rows: pl.LazyFrame) -> Mapping[str, pl.Expr]:
        del rows
        same = pl.col("key").str.to_lowercase().is_duplicated() & ~pl.col("key").is_duplicated()
        return {} if self.mode is Mode.INSERT else {"the same but for upper case": same}

    def element(self, row: Row) -> Any:
        return [row.key, row.person, row.identifier, row.removed, row.values]

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        return Request("https://there.example/", b"[" + b",".join(elements) + b"]")

    def rejections(self, response: Response, rows: Sequence[Row]) -> Mapping[int, str]:
        return {index: "it is bad" for index, row in enumerate(rows) if row.key.startswith("bad")}


class Wire(httpx.BaseTransport):
    """Keeps what it is sent; stops answering after `most` calls."""

    def __init__(self, most: int) -> None:
        self.calls: list[Any] = []
        self.most = most

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if len(self.calls) >= self.most:
            return httpx.Response(403)
        self.calls.append(json.loads(request.read()))
        return httpx.Response(200, json={})


def run(lake: Store, destination: There, rows: pl.DataFrame, day: int, calls: int, **choices: Any) -> dict[str, Any]:
    """Deliver a day; returns all that can be seen of it."""
    wire = Wire(calls)
    frame = rows.lazy()
    held = pl.LazyFrame(
        {"profile_id": ["p"], "key": ["K1"], "reason": ["waits"]}, schema=no_addresses().collect_schema()
    )
    addressed = Addressed(frame, held, no_addresses(), frame.select("key").unique() if day % 2 else None)
    force = choices.pop("force", False)
    choices = {"properties": {"Plan": "plan", "Seats": "seats"}, "concurrency": 1, "guard": NEVER} | choices
    sync, source = SyncSpec("it", **choices), frame if destination.mode is Mode.INSERT else addressed
    expected = _expected(*dry_run(sync, destination, source, lake, kit.later(day), force=force))
    report = deliver(
        sync,
        destination,
        source,
        lake,
        kit.later(day),
        f"run-{day}",
        force=force,
        transport=Transport(RealClock(), wire),
    )
    kit.assert_ledger_is_the_log(lake, "it")
    times = [column for column in kit.ledger(lake, "it").columns if column.endswith("_at")]
    entries = changelog(lake, "it").drop("key_hash", "intended_at", "answered_at", "hashes")
    return {
        "calls": wire.calls,
        "dry run": expected,
        "report": {name: value for name, value in asdict(report).items() if name not in {*TIMED, "forced", "sample"}},
        "forced": len(report.forced),
        "ledger": kit.ledger(lake, "it").drop(times).drop(pl.selectors.starts_with("p:")).drop("failed_hash").rows(),
        "changelog": entries.rows(),
        "aside": sorted(set_aside(lake, "it").select("kind", "profile_id", "reason").rows(), key=str),
    }


def _expected(report: SyncReport, rows: pl.DataFrame) -> tuple[dict[str, Any], list[Any]]:
    """Return what a dry run says, without a frame that would be held while the run goes on."""
    return {name: value for name, value in asdict(report).items() if name != "forced"}, rows.rows()


def history(chance: random.Random, *, events: bool) -> list[tuple[pl.DataFrame, int]]:
    """Return rows and calls of some days: keys come, go, clash, and are spelled as other numbers; runs are stopped."""
    pool = [*(f"{letter}{n}" for n in range(9) for letter in "kK"), *(f"{n}" for n in range(6))]
    pool += [*(f"{n}.0" for n in range(6)), "bad1", "bad2", *(f"a{n}@x.example" for n in range(4)), " "]
    days = []
    for _ in range(3):
        keys = [key for key in pool if chance.random() < 0.6] + (["k1"] if chance.random() < 0.3 else [])
        chance.shuffle(keys)
        plans = [chance.choice(["a", "b", None]) for _ in keys]
        rows = {"key": keys, "plan": plans, "seats": [chance.choice([None, 1, 2]) for _ in keys]}
        if events:
            rows = {**rows, "event_key": keys, "key": [chance.choice("xyz") for _ in keys]}
            rows["time"] = [f"2026-11-{chance.choice([19, 20, 25])}T10:00:00Z" for _ in keys]
        schema = {name: pl.Int64 if name == "seats" else pl.String for name in rows}
        days.append((pl.DataFrame(rows, schema=schema), chance.choice([2, 99, 99]) if days else 99))
    return days


def divide(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(parts, "PART_ROWS", PART)
    patch.setattr(spill, "_WRITTEN_BYTES", 200)
    patch.setattr(log, "_READ_BYTES", 0)


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("kind", ["upsert", "guarded", "set", "insert"])
def test_in_parts_everything_is_as_at_once(
    kind: str, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mode, chance = Mode("upsert" if kind == "guarded" else kind), random.Random(f"{kind}{seed}")
    days = history(chance, events=mode is Mode.INSERT)
    choices: dict[str, Any] = {} if mode is Mode.SET else {"changed_fields_only": chance.random() < 0.5}
    recipe = Recipe("lower", hashed=False) if mode is Mode.SET and chance.random() < 0.5 else None
    if kind == "guarded":
        choices["guard"] = chance.choice([Guard(at_least=2), Guard(at_least=2, takeover=0.1, removed=1)])
    seen: dict[str, list[Any]] = {"at once": [], "in parts": []}
    divided: list[int] = []
    for name, results in seen.items():
        lake = kit.store(tmp_path / name)
        lake.create("_sync/salt", bytes(range(16)))
        with monkeypatch.context() as patch:
            if name == "in parts":
                divide(patch)
                of = running.division_of
                patch.setattr(running, "division_of", lambda *a, of=of: divided.append(of(*a).parts) or of(*a))
            for number, (rows, calls) in enumerate(days):
                results.append(run(lake, There(mode, recipe), rows, number, calls, **choices))
    assert max(divided) > 3
    for at_once, in_parts in zip(seen["at once"], seen["in parts"], strict=True):
        for what, value in at_once.items():
            assert in_parts[what] == value, what
    assert seen["in parts"][0]["calls"]


def test_numbers_that_are_spelled_otherwise_are_one_key_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    divide(monkeypatch)
    lake, there = kit.store(tmp_path), There(Mode.INSERT)
    numbers = [str(n) for n in range(20)]

    def events(keys: list[str]) -> pl.DataFrame:
        count = len(keys)
        rows = {
            "event_key": keys,
            "key": ["x"] * count,
            "time": [None] * count,
            "plan": ["a"] * count,
            "seats": [1] * count,
        }
        return pl.DataFrame(rows, schema_overrides={"time": pl.String})

    assert run(lake, there, events([f"{n}.0" for n in numbers]), 0, 99)["report"]["sent"] == 20
    assert run(lake, there, events(numbers), 1, 99)["calls"] == [], "all are numbers: the same events"
    # one that is none, in one part only: then no key is compared as a number, in no part
    assert run(lake, there, events([*numbers, "x-1"]), 2, 99)["report"]["sent"] == 21


def test_no_step_holds_more_rows_than_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 2000
    monkeypatch.setattr(parts, "PART_ROWS", 250)
    monkeypatch.setattr(spill, "_WRITTEN_BYTES", 1000)
    monkeypatch.setattr(log, "_READ_BYTES", 0)
    monkeypatch.setattr(log, "_PART_ROWS", 250)
    most: dict[str, int] = {}

    def watched(module: Any, name: str, *places: int) -> None:
        own = getattr(module, name)

        def call(*args: Any, **named: Any) -> Any:
            sizes = [len(args[place]) if isinstance(args[place], pl.DataFrame) else 0 for place in places]
            result = own(*args, **named)
            sizes += [len(result)] if isinstance(result, pl.DataFrame) else []
            most[name] = max([most.get(name, 0), *sizes])
            return result

        monkeypatch.setattr(module, name, call)

    watched(planning, "prepared", 2)
    watched(planning, "plan_upsert", 1)
    watched(parts, "fold_onto", 0, 1)
    watched(parts, "changes_of", 0)
    watched(parts.Spill, "read")
    before = _rows_alive() + count  # the test itself holds the rows that it sends
    alive: list[int] = []
    answer = Wire.handle_request

    def counting(wire: Wire, request: httpx.Request) -> httpx.Response:
        if len(wire.calls) % 8 == 0:
            alive.append(_rows_alive() - before)
        return answer(wire, request)

    monkeypatch.setattr(Wire, "handle_request", counting)
    for day in range(2):
        rows = kit.people(count, plan=f"plan-{day}").with_columns(seats=pl.col("seats") + day)
        there = replace_limits(There(Mode.UPSERT), 50)
        report = run(kit.store(tmp_path), there, rows, day, 999)["report"]
        assert report["sent"] == count
    assert set(most) == {"prepared", "plan_upsert", "fold_onto", "changes_of", "read"}
    assert max(most.values()) <= 750, most
    assert max(alive) < count / 2, alive


def _rows_alive() -> int:
    return sum(len(kept) for kept in gc.get_objects() if isinstance(kept, pl.DataFrame))


def replace_limits(there: There, batch_rows: int) -> There:
    there.limits = replace(there.limits, batch_rows=batch_rows)
    return there


@pytest.mark.parametrize("frames", [1, 7])
def test_rounds_have_no_more_rows_of_a_person_than_a_window(frames: int) -> None:
    chance = random.Random(frames)
    people = [*(["busy"] * 23), *(["other"] * 7), *([None] * 9), *(f"p{n}" for n in range(40))]
    chance.shuffle(people)
    rows = pl.DataFrame({"key": people, "at": range(len(people))}, schema_overrides={"key": pl.String})
    cut = PlannedRows(len(rows), lambda: rows.iter_slices(-(-len(rows) // frames)))
    expected = rows.with_columns(_round=pl.int_range(pl.len()).over("key") // 5).partition_by(
        "_round", maintain_order=True, include_key=False
    )
    divided, busy = rounds.in_rounds(cut, 5)
    assert [pl.concat(part.frames()).rows() for part in divided] == [part.rows() for part in expected]
    assert [len(part) for part in divided] == [len(part) for part in expected]
    assert sorted(busy) == ["busy", "other"]
