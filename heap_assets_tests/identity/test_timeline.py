"""A day computed from what was known is, row by row, the day computed from everything at once."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from heap_assets.identity import (
    Advanced,
    ColumnMapping,
    DayInput,
    IdentifierRule,
    LinksError,
    Rules,
    SourceTable,
    Timeline,
    changes,
    resolve,
    user_migrations_table,
)
from heap_assets.identity.engine import EngineName
from heap_assets.identity.engine.native import engine
from heap_assets.storage import Store
from heap_assets_tests.examples import examples

START = date(2026, 1, 1)
RULES = Rules(
    (
        IdentifierRule("heap_identity", max_per_profile=1),
        IdentifierRule("email", max_per_profile=2),
        IdentifierRule("device_id", max_per_profile=3),
        IdentifierRule("heap_user_id"),
    )
)
EVENTS = SourceTable(
    "heap/events/visit",
    "event",
    (
        ColumnMapping("heap_user_id", ("user_id",)),
        ColumnMapping("device_id", ("device",)),
        ColumnMapping("email", ("email",)),
    ),
    "time",
)
CRM = SourceTable("crm", "snapshot", (ColumnMapping("heap_identity", ("login",)), ColumnMapping("email", ("email",))))
BILLING = SourceTable(
    "billing",
    "snapshot",
    (ColumnMapping("heap_identity", ("login",)), ColumnMapping("email", ("email",))),
    "created_at",
)
MIGRATIONS = user_migrations_table()

Rows = tuple[tuple[object, ...], ...]
History = dict[tuple[str, int], Rows]

_SCHEMAS: Mapping[str, tuple[SourceTable, dict[str, pl.DataType | type[pl.DataType]]]] = {
    "events": (EVENTS, {"user_id": pl.Int64, "device": pl.String, "email": pl.String, "time": pl.Int64}),
    "crm": (CRM, {"login": pl.String, "email": pl.String}),
    "billing": (BILLING, {"login": pl.String, "email": pl.String, "created_at": pl.Int64}),
    "migrations": (MIGRATIONS, {"from_user_id": pl.Int64, "to_user_id": pl.Int64, "time": pl.Int64}),
}


def day(number: int) -> date:
    return START + timedelta(days=number)


def partition(table: str, number: int, rows: Rows) -> DayInput:
    source, schema = _SCHEMAS[table]

    def frame() -> pl.LazyFrame:
        opened = pl.LazyFrame(rows, schema=schema, orient="row")
        timed = [name for name in ("time", "created_at") if name in schema]
        return opened.with_columns((pl.col(timed) * 3_600_000_000).cast(pl.Datetime("us", "UTC"))) if timed else opened

    return DayInput(source, day(number), repr(rows), frame)


def known_on(history: History, number: int) -> list[DayInput]:
    return [partition(table, at, rows) for (table, at), rows in history.items() if at <= number]


def tables(advanced: Advanced) -> Iterator[tuple[str, pl.DataFrame]]:
    yield "links", advanced.links.collect()
    yield "all_links", advanced.all_links.sort(pl.all()).collect()
    yield "refused", advanced.refused.sort(pl.all()).collect()
    for name in ("graph", "conflicts", "shared"):
        yield name, getattr(advanced.resolution, name).collect()


def assert_same(one: Advanced, other: Advanced) -> None:
    for (name, left), (_, right) in zip(tables(one), tables(other), strict=True):
        try:
            assert_frame_equal(left, right)
        except AssertionError as error:
            raise AssertionError(f"{name} differs:\n{error}\n{left}\n{right}") from error


def at_once(history: History, number: int, engine: EngineName = "native") -> Advanced:
    advanced = Timeline(Store(tempfile.mkdtemp()), RULES, engine).advance(day(number), known_on(history, number))
    assert advanced.notes["mode"] == "full"
    return advanced


few = st.integers(1, 4)
emails = st.sampled_from([None, "a@x.io", "b@x.io", "c@x.io", "d@x.io"])
hours = st.one_of(st.none(), st.integers(0, 60))
_ROWS = {
    "events": st.tuples(few, st.sampled_from([None, "d1", "d2", "d3"]), emails, hours),
    "crm": st.tuples(st.sampled_from([None, "A", "B", "C"]), emails),
    "billing": st.tuples(st.sampled_from([None, "A", "B", "C"]), emails, hours),
    "migrations": st.tuples(few, few, hours),
}


@dataclass(frozen=True)
class Step:
    """Partitions that are new, corrected or (None) deleted, and the day that is then computed."""

    edits: dict[tuple[str, int], Rows | None]
    number: int


@st.composite
def steps(draw: st.DrawFn) -> Step:
    edits: dict[tuple[str, int], Rows | None] = {}
    for table in draw(st.lists(st.sampled_from(sorted(_ROWS)), min_size=1, max_size=3)):
        rows = st.lists(_ROWS[table], max_size=4).map(tuple)
        edits[table, draw(st.integers(0, 3))] = draw(st.one_of(rows, rows, rows, st.none()))
    return Step(edits, draw(st.integers(0, 3)))


@settings(max_examples=examples(40), deadline=None)
@given(st.lists(steps(), min_size=2, max_size=5))
def test_incremental_equals_full_through_any_history(history_steps: list[Step]) -> None:
    history: History = {}
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "_TOO_MUCH", 1e9)
        timeline = Timeline(Store(folder), RULES)
        for step in history_steps:
            for key, rows in step.edits.items():
                if rows is None:
                    history.pop(key, None)
                else:
                    history[key] = rows
            known = known_on(history, step.number)
            before = stored(folder)
            only_looked_at = timeline.links(day(step.number), known).sort(pl.all()).collect()
            assert stored(folder) == before, "who only looks writes nothing"
            assert_same(timeline.advance(day(step.number), known), at_once(history, step.number))
            assert_same(timeline.advance(day(step.number), known), at_once(history, step.number, "reference"))
            every = timeline.advance(day(step.number), known).all_links.sort(pl.all()).collect()
            for looked_at in (only_looked_at, timeline.links(day(step.number), known).sort(pl.all()).collect()):
                assert_frame_equal(looked_at, every)


def stored(folder: str) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in Path(folder).rglob("*")}


def company(people: int, days: int) -> History:
    history: History = {}
    for number in range(days):
        history["events", number] = tuple(
            (p, f"d{p}", f"p{p}@x.io" if p % 3 else None, number * 24 + p % 24) for p in range(number, people, days)
        )
        history["crm", number] = tuple((f"L{p}", f"p{p}@x.io") for p in range(people * (number + 1) // days))
    return history


class TestDays:
    """The cases the design names, one by one."""

    @pytest.fixture
    def timeline(self, tmp_path: Path) -> Timeline:
        return Timeline(Store(str(tmp_path)), RULES)

    def advanced(self, timeline: Timeline, history: History, number: int) -> Advanced:
        result = timeline.advance(day(number), known_on(history, number))
        assert_same(result, at_once(history, number))
        return result

    def test_the_next_day_touches_what_changed_and_no_more(self, timeline: Timeline) -> None:
        history = company(600, 3)
        self.advanced(timeline, history, 1)
        history["events", 2] = ((5, "d5", None, 50), (7, "d8", None, 51))
        history["crm", 2] = (*history["crm", 1], ("new", "new@x.io"))
        notes = self.advanced(timeline, history, 2).notes
        assert notes["mode"] == "incremental"
        assert notes["touched_identifiers"] < 20

    def test_a_late_day_is_folded_in(self, timeline: Timeline) -> None:
        history = company(300, 4)
        late = history.pop(("events", 1))
        self.advanced(timeline, history, 3)
        history["events", 1] = late[:20]
        assert self.advanced(timeline, history, 3).notes["mode"] == "incremental"

    def test_a_corrected_crm_row_undoes_the_merge_it_caused(self, timeline: Timeline) -> None:
        history = company(300, 2)
        right = history["crm", 1]
        history["crm", 1] = (*right, (None, "p1@x.io"), ("L9000", "p2@x.io"))
        wrong = self.advanced(timeline, history, 1).resolution.graph.collect()
        history["crm", 1] = right
        corrected = self.advanced(timeline, history, 1)
        assert corrected.notes["mode"] == "incremental"
        assert corrected.resolution.graph.collect().height == wrong.height - 1

    def test_a_deleted_partition_takes_its_people_along(self, timeline: Timeline) -> None:
        history = company(300, 8)
        self.advanced(timeline, history, 7)
        del history["events", 3]
        assert self.advanced(timeline, history, 7).notes["mode"] == "incremental"

    def test_a_missing_snapshot_is_carried_forward(self, timeline: Timeline) -> None:
        history = company(300, 3)
        del history["crm", 2]
        carried = self.advanced(timeline, history, 2)
        assert carried.links.filter(pl.col("source") == "crm").collect()["last_seen"].unique().to_list() == [
            datetime.combine(day(1), datetime.min.time(), UTC)
        ]

    def test_going_back_a_day_and_forth_again(self, timeline: Timeline) -> None:
        history = company(200, 4)
        for number in (3, 2, 3, 0, 3):
            self.advanced(timeline, history, number)

    def test_nothing_new_is_no_work(self, timeline: Timeline) -> None:
        history = company(50, 2)
        self.advanced(timeline, history, 1)
        assert self.advanced(timeline, history, 1).notes["mode"] == "unchanged"

    def test_changed_rules_are_a_full_run(self, tmp_path: Path) -> None:
        history = company(50, 2)
        self.advanced(Timeline(Store(str(tmp_path)), RULES), history, 1)
        other = Rules((*RULES.identifiers[:1], IdentifierRule("email", max_per_profile=1), *RULES.identifiers[2:]))
        notes = Timeline(Store(str(tmp_path)), other).advance(day(1), known_on(history, 1)).notes
        assert (notes["mode"], notes["why"]) == ("full", "the rules changed")

    @pytest.mark.parametrize("damage", ["state.json", "state", "extracted", "everything", "garbage"])
    def test_losing_state_costs_time_and_nothing_else(self, timeline: Timeline, tmp_path: Path, damage: str) -> None:
        history = company(100, 3)
        self.advanced(timeline, history, 1)
        for stored in timeline.store.list("_identity"):
            if damage == "garbage" and stored.key.endswith((".npy", ".json")):
                timeline.store.write(stored.key, b"\0" * 40)
            elif damage == "everything" or stored.key.startswith(f"_identity/{damage}"):
                timeline.store.delete(stored.key)
        self.advanced(timeline, history, 2)

    def test_a_state_in_which_a_bit_has_flipped_is_made_anew(self, timeline: Timeline) -> None:
        history, chance, store = company(100, 3), Random(15), timeline.store
        self.advanced(timeline, history, 1)
        state = {info.key: store.read(info.key) for info in store.list("_identity/state")}
        state["_identity/state.json"] = store.read("_identity/state.json")
        modes = set()
        for key in [key for key in sorted(state) for _ in range(examples(3))]:
            for stored in store.list("_identity/state"):
                store.delete(stored.key)
            for other, content in state.items():
                store.write(other, content)
            damaged = bytearray(state[key])
            # the last twentieth of an array is room for more
            damaged[chance.randrange(len(damaged) * 9 // 10)] ^= 1 << chance.randrange(8)
            store.write(key, bytes(damaged))
            modes.add(self.advanced(timeline, history, 2).notes["mode"])
        assert modes == {"full"}

    def test_an_input_of_a_later_day_is_an_error(self, timeline: Timeline) -> None:
        with pytest.raises(LinksError, match="later days"):
            timeline.advance(day(0), [partition("crm", 1, ())])

    def test_first_seen_without_record_times_is_the_first_partition(self, timeline: Timeline) -> None:
        history: History = {("crm", n): (("A", "a@x.io"),) for n in (0, 2)} | {("crm", 1): ()}
        links = self.advanced(timeline, history, 2).links.collect()
        assert links["first_seen"][0].date() == day(0)

    def test_no_inputs_is_an_empty_graph(self, timeline: Timeline) -> None:
        assert self.advanced(timeline, {}, 0).resolution.graph.collect().is_empty()


@settings(max_examples=examples(40), deadline=None)
@given(st.lists(steps(), min_size=2, max_size=2))
def test_changes_turn_yesterdays_mapping_into_todays(two: list[Step]) -> None:
    history: History = {}
    graphs = []
    for step in two:
        history.update({key: rows or () for key, rows in step.edits.items()})
        graphs.append(resolve(at_once(history, 3).all_links, RULES).graph.collect())
    before, after = ({tuple(row[:2]): row[2] for row in graph.rows() if row[2]} for graph in graphs)
    table = changes(graphs[0].lazy(), graphs[1].lazy()).collect()
    rows = table.rows(named=True)
    assert {*before.values()} - {r["old_profile_id"] for r in rows} | {r["new_profile_id"] for r in rows} - {None} == {
        *after.values()
    }
    moves: dict[str, dict[str, int]] = {}
    for row in rows:
        if row["old_profile_id"] and row["new_profile_id"]:
            moves.setdefault(row["old_profile_id"], {})[row["new_profile_id"]] = row["identifiers"]
    counted: dict[str, dict[str, int]] = {}
    for identifier, old in before.items():
        new = after.get(identifier)
        if new is None:
            continue
        if old not in moves:
            assert new == old
        else:
            counted.setdefault(old, {}).setdefault(new, 0)
            counted[old][new] += 1
    assert counted == moves


_ADVANCE = """
import sys
from heap_assets.identity import Timeline
from heap_assets.storage import Store
from heap_assets_tests.identity.test_timeline import RULES, company, day, known_on
history = company(3000, 3)
timeline = Timeline(Store(sys.argv[1]), RULES)
print("ready", flush=True)
while True:
    for number in (1, 2):
        timeline.advance(day(number), known_on(history, number))
"""


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.2, 0.7, 1.5])
def test_killed_at_any_moment_the_next_run_is_right(tmp_path: Path, seconds: float) -> None:
    command = [sys.executable, "-c", _ADVANCE, str(tmp_path)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"ready\n"
        time.sleep(seconds)
        run.kill()
    history = company(3000, 3)
    advanced = Timeline(Store(str(tmp_path)), RULES).advance(day(2), known_on(history, 2))
    assert_same(advanced, at_once(history, 2))
