"""Decisions of people stand above all rules in every engine, and survive whatever comes in."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from heap_assets.identity import (
    Advanced,
    Decision,
    DecisionError,
    Rules,
    Timeline,
    changes,
    read_decisions,
    resolve,
    with_values,
)
from heap_assets.identity.decisions import Pair, check_decisions
from heap_assets.identity.engine import ENGINES, EngineName
from heap_assets.identity.engine.native import engine as native
from heap_assets.identity.engine.native.engine import as_resolution
from heap_assets.identity.engine.native.tables import resolved
from heap_assets.identity.engine.reference import Row
from heap_assets.quality.decisions import decisions_hold
from heap_assets.storage import Store
from heap_assets_tests.examples import examples
from heap_assets_tests.identity.builders import TYPES, Book, books, identifiers, links_frame, rows, rules_of
from heap_assets_tests.identity.test_timeline import RULES, Step, company, day, known_on, steps, tables

every_engine = pytest.mark.parametrize("engine", ENGINES)
TABLES = ("graph", "conflicts", "shared")


@st.composite
def decisions(draw: st.DrawFn, of: st.SearchStrategy[Pair], most: int = 4) -> tuple[Decision, ...]:
    """Decisions that do not contradict each other."""
    made: list[Decision] = []
    kinds = st.sampled_from(["same", "apart", "apart"])
    for kind in draw(st.lists(kinds, max_size=most)):
        pairs = draw(st.lists(of, min_size=2, max_size=3, unique=True))
        try:
            check_decisions([*made, decision := Decision(kind, tuple(sorted(pairs)))])
        except DecisionError:
            continue
        made.append(decision)
    return tuple(made)


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(rows(), max_size=25), books(), decisions(identifiers()))
def test_engines_agree_on_decisions(made: list[Row], book: Book, settled: tuple[Decision, ...]) -> None:
    rules, links = replace(rules_of(book), decisions=settled), links_frame(made)
    one, other = (resolve(links, rules, engine) for engine in ENGINES)
    assert (one.profiles, one.identifiers) == (other.profiles, other.identifiers)
    for table in TABLES:
        assert_frame_equal(getattr(one, table).collect(), getattr(other, table).collect())
    graph = one.graph.collect()
    profile = {row[:2]: row[2] for row in graph.select("identifier_type", "identifier", "profile_id").rows()}
    for decision in settled:
        held = [profile[pair] for pair in decision.identifiers if profile.get(pair)]
        if decision.kind == "apart":
            assert len({*held}) == len(held), "apart holds whatever the links say"


@settings(max_examples=examples(20), deadline=None)
@given(st.lists(rows(), max_size=40), books(), decisions(identifiers()))
def test_link_by_link_or_not_is_the_same(made: list[Row], book: Book, settled: tuple[Decision, ...]) -> None:
    apart = tuple(decision for decision in settled if decision.kind == "apart")
    links, rules = links_frame(made), replace(rules_of(book), decisions=apart)
    two, one = resolve(links, rules), as_resolution(resolved(links, rules, everywhere=True))
    for table in TABLES:
        assert_frame_equal(getattr(one, table).collect(), getattr(two, table).collect())


_OF_DAYS = st.one_of(
    st.tuples(st.just("email"), st.sampled_from(["a@x.io", "b@x.io", "c@x.io", "d@x.io"])),
    st.tuples(st.just("heap_identity"), st.sampled_from(["A", "B", "C"])),
    st.tuples(st.just("device_id"), st.sampled_from(["d1", "d2", "d3"])),
    st.tuples(st.just("heap_user_id"), st.sampled_from(["1", "2", "3", "4"])),
)
_NOBODY = st.lists(_OF_DAYS, max_size=1).map(lambda pairs: tuple(Decision("nobody", (pair,)) for pair in pairs))


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(steps(), decisions(_OF_DAYS), _NOBODY), min_size=2, max_size=4))
def test_a_fold_over_days_with_changing_decisions_equals_computing_at_once(
    history_steps: list[tuple[Step, tuple[Decision, ...], tuple[Decision, ...]]],
) -> None:
    history: dict[tuple[str, int], tuple[tuple[object, ...], ...]] = {}
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "_TOO_MUCH", 1e9)
        for step, settled, excluded in history_steps:
            history.update({key: rows or () for key, rows in step.edits.items()})
            rules = replace(RULES, decisions=settled + excluded)
            known = known_on(history, step.number)
            folded = Timeline(Store(folder), rules).advance(day(step.number), known)
            for engine in ENGINES:
                with tempfile.TemporaryDirectory() as empty:
                    at_once = Timeline(Store(empty), rules, engine).advance(day(step.number), known)
                    same_tables(folded, at_once)
            looked_at = Timeline(Store(folder), rules).links(day(step.number), known).sort(pl.all()).collect()
            assert_frame_equal(looked_at, folded.all_links.sort(pl.all()).collect())


def same_tables(one: Advanced, other: Advanced) -> None:
    for (_, left), (_, right) in zip(tables(one), tables(other), strict=True):
        assert_frame_equal(left, right)


class TestIncrements:
    """A changed decision touches its components only, and undoing it restores the graph."""

    def advanced(self, folder: Path, *settled: Decision) -> Advanced:
        rules = replace(RULES, decisions=settled)
        return Timeline(Store(str(folder)), rules).advance(day(1), known_on(company(300, 2), 1))

    @pytest.mark.parametrize("kind", ["same", "apart"])
    def test_a_decision_and_its_undoing(self, tmp_path: Path, kind: str) -> None:
        other = ("heap_identity", "L2") if kind == "same" else ("email", "p1@x.io")
        decision = Decision(kind, (("heap_identity", "L1"), other))  # type: ignore[arg-type]
        before = self.advanced(tmp_path).resolution.graph.collect()
        decided = self.advanced(tmp_path, decision)
        graph = decided.resolution.graph.collect()
        assert decided.notes["mode"] == "incremental"
        assert decided.notes["touched_identifiers"] < 20
        difference = before["profile_id"].n_unique() - graph["profile_id"].n_unique()
        assert difference == (1 if kind == "same" else -1)
        refused = decided.resolution.conflicts.collect()["decision"].to_list()
        assert refused == ([] if kind == "same" else [decision.id])
        assert self.advanced(tmp_path, decision).notes["mode"] == "unchanged"
        undone = self.advanced(tmp_path)
        assert undone.notes["mode"] == "incremental"
        assert_frame_equal(undone.resolution.graph.collect(), before)

    def test_a_decision_that_has_ended_holds_for_the_days_before(self, tmp_path: Path) -> None:
        decision = Decision("apart", (("email", "p1@x.io"), ("heap_identity", "L1")), until=day(1))
        rules, history = replace(RULES, decisions=(decision,)), company(30, 3)
        timeline = Timeline(Store(str(tmp_path)), rules)
        on_time, later = (timeline.advance(day(n), known_on(history, n)).resolution for n in (1, 2))
        assert on_time.conflicts.collect().height == 1
        assert later.conflicts.collect().is_empty()


@every_engine
class TestAbove:
    """What a decision stands above."""

    BOOK = Book(TYPES, {"account": 1})
    A, B, MAIL = ("account", "a"), ("account", "b"), ("email", "m")

    def resolved(self, engine: EngineName, *settled: Decision, authoritative: bool = False) -> pl.DataFrame:
        made = [Row(end, self.MAIL, authoritative=authoritative) for end in (self.A, self.B)]
        rules = replace(rules_of(self.BOOK), decisions=settled)
        resolution = resolve(links_frame(made), rules, engine)
        self.conflicts = resolution.conflicts.collect()
        return resolution.graph.collect()

    def test_same_is_above_limits(self, engine: EngineName) -> None:
        assert self.resolved(engine)["profile_id"].n_unique() == 2
        assert self.resolved(engine, Decision("same", (self.A, self.B)))["profile_id"].n_unique() == 1

    def test_apart_is_above_authoritative_links(self, engine: EngineName) -> None:
        assert self.resolved(engine, authoritative=True)["profile_id"].n_unique() == 1
        decision = Decision("apart", (self.A, self.B), id="17")
        assert self.resolved(engine, decision, authoritative=True)["profile_id"].n_unique() == 2
        refusal = self.conflicts.row(0, named=True)
        assert (refusal["decision"], refusal["limited_type"], refusal["limit"]) == ("17", None, None)

    def test_of_several_decisions_the_smallest_id_is_named(self, engine: EngineName) -> None:
        settled = [Decision("apart", (self.A, self.B), id="b"), Decision("apart", (self.B, self.A, self.MAIL), id="a")]
        self.resolved(engine, *settled, authoritative=True)
        assert {*self.conflicts["decision"]} == {"a"}


class TestFile:
    """What a file of decisions holds, and what is wrong with one."""

    CSV = (
        "decision,identifier_a,identifier_b,author,decided,reason,until,id\n"
        'apart,email:ANN@x.io,heap_identity:L1,a.b,2026-11-02,"shared inbox, of the front desk",,17\n'
        "nobody,*:desk@x.io,,a.b,2026-11-02,,2026-12-31,\n"
    )
    YAML = "- same: [email:ann@x.io, heap_identity:L1, device_id:7]\n  author: a.b\n  decided: 2026-11-02\n"

    def read(self, folder: Path, text: str, name: str = "decisions.csv") -> tuple[Decision, ...]:
        (folder / name).write_text(text)
        return read_decisions(folder / name, RULES)

    def test_csv(self, tmp_path: Path) -> None:
        apart, nobody_s = self.read(tmp_path, self.CSV)
        assert apart.identifiers == (("email", "ann@x.io"), ("heap_identity", "L1"))
        assert apart.label == "apart by decision 17 (a.b, 2026-11-02: shared inbox, of the front desk)"
        assert {kind for kind, _ in nobody_s.identifiers} == {*RULES.types}
        assert nobody_s.holds_on(date(2026, 12, 31))
        assert not nobody_s.holds_on(date(2027, 1, 1))

    def test_yaml(self, tmp_path: Path) -> None:
        (same,) = self.read(tmp_path, self.YAML, "decisions.yaml")
        assert same.identifiers == (("device_id", "7"), ("email", "ann@x.io"), ("heap_identity", "L1"))
        assert (same.kind, same.author, same.decided) == ("same", "a.b", date(2026, 11, 2))

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ("sane,email:secret@x.io,email:b@x.io", "line 2: decision is 'sane', expected one of same"),
            ("same,emial:secret@x.io,email:b@x.io", "unknown identifier type 'emial'"),
            ("same,secret@x.io,email:b@x.io", "has no type"),
            ("same,email:secret,email:b@x.io", "does not match the pattern"),
            ("same,email:secret@x.io,email: SECRET@x.io", "is about 1 identifier"),
            ("same,,", "names no identifier"),
            ("same,email:secret@x.io,email:b@x.io,a.b,soon", "decided is 'soon', expected a day"),
        ],
    )
    def test_a_mistake_is_named_without_the_value(self, tmp_path: Path, row: str, message: str) -> None:
        with pytest.raises(DecisionError) as error:
            self.read(tmp_path, f"{self.CSV.splitlines()[0]}\n{row}\n")
        assert message in str(error.value)
        assert "secret" not in str(error.value).lower()


class TestContradictions:
    """Named by their ids, never by a value."""

    ANN, BOB, CAT = (("email", f"{name}@x.io") for name in ("ann", "bob", "cat"))

    def message(self, *settled: Decision) -> str:
        with pytest.raises(DecisionError) as error:
            check_decisions(settled)
        assert "x.io" not in str(error.value)
        return str(error.value)

    def test_same_and_apart_through_a_chain(self) -> None:
        chain = Decision("same", (self.ANN, self.BOB), id="1"), Decision("same", (self.BOB, self.CAT), id="2")
        assert "decision 3 keeps two identifiers apart that are the same by 1, 2" in self.message(
            *chain, Decision("apart", (self.ANN, self.CAT), id="3")
        )

    def test_same_about_a_value_of_nobody(self) -> None:
        assert "nobody's by decision 2" in self.message(
            Decision("same", (self.ANN, self.BOB), id="1"), Decision("nobody", (self.BOB,), id="2")
        )

    def test_two_of_one_id(self) -> None:
        self.message(Decision("same", (self.ANN, self.BOB)), Decision("same", (self.BOB, self.ANN)))


def test_the_version_of_the_rules_knows_decisions() -> None:
    joined = replace(RULES, decisions=(Decision("same", (("email", "a@x.io"), ("email", "b@x.io"))),))
    looked_at = replace(RULES, decisions=(Decision("confirmed", (("email", "a@x.io"),)),))
    assert RULES.digest == looked_at.digest != joined.digest
    assert RULES.rules_digest == joined.rules_digest
    assert RULES.on(date(2026, 1, 1) + timedelta(days=1)) is RULES
    assert isinstance(RULES, Rules)


class TestWhatFollows:
    """Changes name the decision behind them, and a check names what is broken or idle."""

    def graph(self, tmp_path: Path, *settled: Decision, number: int = 1) -> pl.LazyFrame:
        rules = replace(RULES, decisions=settled)
        history = company(30, 2)
        return Timeline(Store(str(tmp_path)), rules).advance(day(number), known_on(history, number)).resolution.graph

    SAME = Decision("same", (("heap_identity", "L1"), ("heap_identity", "L2")), id="1")
    APART = Decision("apart", (("heap_identity", "L1"), ("email", "p1@x.io")), id="2")
    EXCLUDED = Decision("nobody", (("email", "p4@x.io"),), id="3")

    @pytest.mark.parametrize("decision", [SAME, APART, EXCLUDED], ids=lambda one: one.kind)
    def test_changes(self, tmp_path: Path, decision: Decision) -> None:
        before, after = self.graph(tmp_path).collect().lazy(), self.graph(tmp_path, decision).collect().lazy()
        table = changes(before, after, [decision]).collect()
        expected = {"same": {"merged"}, "apart": {"split"}, "nobody": {"split"}}[decision.kind]
        assert {*table.filter(pl.col("decision") == decision.id)["kind"]} == expected
        assert changes(before, after).collect()["decision"].null_count() == table.height
        assert changes(after, after, [decision]).collect().is_empty()
        ended = changes(after, before, (), [decision]).filter(pl.col("decision") == decision.id).collect()
        assert {*ended["kind"]} == {"same": {"split"}, "apart": {"merged"}, "nobody": {"merged"}}[decision.kind]

    def test_the_check(self, tmp_path: Path) -> None:
        idle = Decision("same", (("email", "left@x.io"), ("email", "long@x.io")), id="4")
        ended = replace(idle, id="5", until=day(0))
        settled = [self.SAME, self.APART, idle, ended, self.EXCLUDED]
        graph = self.graph(tmp_path, *settled)
        result = decisions_hold(graph, settled, day(1))
        assert result.offenders is not None
        assert result.offenders.rows() == [("4", "same", "touches nothing")]
        assert result.numbers == {"decisions": 4, "broken": 0, "touch_nothing": 1, "unusable": 0}
        broken = decisions_hold(self.graph(tmp_path), [self.SAME, self.APART], day(1))
        assert broken.numbers["broken"] == 2

    def test_a_nobody_that_no_table_has_is_idle(self, tmp_path: Path) -> None:
        idle = Decision("nobody", (("email", "left@x.io"),), id="6")
        rules = replace(RULES, decisions=(self.EXCLUDED, idle))
        history = company(30, 2)
        for number in (1, 2):  # whatever day has the value
            assert Timeline(Store(str(tmp_path)), rules).advance(day(number), known_on(history, number)).idle == ("6",)
        result = decisions_hold(
            self.graph(tmp_path), [self.EXCLUDED, idle], day(1), idle=["6", "of a row removed since"]
        )
        assert result.offenders is not None
        assert result.offenders.rows() == [("6", "nobody", "touches nothing")]


def test_a_tombstone_stands_for_nobody(tmp_path: Path) -> None:
    store, stone = Store(str(tmp_path)), ("email", "tombstone:0123456789abcdef")
    ann, bob = ("email", "ann@x.io"), ("email", "bob@x.io")
    of_two, of_three = Decision("same", (ann, stone), id="1"), Decision("same", (ann, bob, stone), id="2")
    held, lacking = with_values(store, [of_two, of_three, Decision("nobody", (stone,), id="3")])
    assert [(one.id, one.identifiers) for one in held] == [("2", (ann, bob))]
    assert [(one.id, one.problem) for one in lacking] == [(name, "its people were erased") for name in ("1", "3")]
