"""The queue of what people should look at, and what becomes of it once they have."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from heap_assets.identity import (
    Decision,
    DecisionError,
    IdentifierRule,
    IdentityTables,
    Rules,
    append_decision,
    explain,
    moved_often,
    read_decisions,
    resolve,
    review,
    what_if,
)
from heap_assets.identity.decision_links import decision_links
from heap_assets.identity.engine.reference import Row
from heap_assets.pipelines.reviewing import decide
from heap_assets.pipelines.suites import identity_checks
from heap_assets.project import Project, open_project
from heap_assets_tests.identity.builders import START, links_frame

RULES = Rules(
    (
        IdentifierRule("crm_id", max_per_profile=1),
        IdentifierRule("email", max_per_profile=2),
        IdentifierRule("device_id", shared_above=1),
    )
)
DESK, KIOSK = ("email", "desk@x.io"), ("device_id", "kiosk")
MADE = [
    *(Row(("crm_id", f"C{n}"), ("email", f"p{n}@x.io"), "crm", START, START) for n in range(6)),
    *(Row(("crm_id", f"C{n}"), DESK, "crm", START, START) for n in (0, 1, 2)),  # an inbox of three
    Row(("crm_id", "C4"), ("email", "p3@x.io"), "billing", START, START, 5),  # one person, imported twice
    Row(("email", "p5@x.io"), KIOSK, "visits", START, START),
    Row(("email", "p4@x.io"), KIOSK, "visits", START, START),
]


def tables_of(*settled: Decision) -> tuple[IdentityTables, Rules]:
    rules = replace(RULES, decisions=settled)
    excluded = rules.excluded
    made = [row for row in MADE if row.a not in excluded and row.b not in excluded]
    links = pl.concat([links_frame(made).collect(), decision_links(rules)]).lazy()
    result = resolve(links, rules)
    return IdentityTables(links, result.graph, result.conflicts, result.shared), rules


def queue(*settled: Decision) -> dict[str, list[str]]:
    entries = review(*tables_of(*settled), ["crm_id"])
    assert entries["rank"].to_list() == list(range(1, entries.height + 1))
    return {kind: entries.filter(kind=kind)["identifiers"].to_list() for kind in entries["kind"].unique()}


def test_each_entry_names_what_a_decision_would_name() -> None:
    entries = queue()
    assert entries["claimed"] == [["email:desk@x.io"]]
    assert entries["refused"] == [["crm_id:C3", "crm_id:C4"]]
    assert entries["shared"] == [["device_id:kiosk"]]
    assert ["email:desk@x.io", "email:p0@x.io"] in entries["at_limit"]


@pytest.mark.parametrize("kind", ["claimed", "refused", "shared"])
def test_what_is_decided_leaves_the_queue(kind: str) -> None:
    """By the decision that the entry proposes, and by one that confirms it as it is."""
    entry = review(*tables_of(), ["crm_id"]).filter(kind=kind).row(0, named=True)
    names = tuple(tuple(name.split(":", 1)) for name in entry["identifiers"])
    for decision in (entry["decision"], "confirmed"):
        assert kind not in queue(Decision(decision, names))


def test_money_and_syncs_move_an_entry_up() -> None:
    tables, rules = tables_of()
    without = review(tables, rules, ["crm_id"])
    assert without.row(-1, named=True)["kind"] == "shared"
    [twins] = without.filter(kind="refused")["profiles"].to_list()
    worth = pl.LazyFrame({"profile_id": twins, "money": [900.0] * len(twins), "syncs": [3] * len(twins)})
    first = review(tables, rules, ["crm_id"], worth).row(0, named=True)
    assert (first["kind"], first["money"], first["syncs"]) == ("refused", 1800.0, 6)


TWINS = Decision("same", (("crm_id", "C3"), ("crm_id", "C4")), "a.b", None, "imported twice", id="17")
APART = Decision("apart", (("crm_id", "C0"), DESK), "a.b", None, "inbox of the front desk", id="18")


class TestMoving:
    """Identifiers that come into another profile again and again."""

    DAYS = tuple(date(2026, 1, day) for day in range(1, 7))

    def graphs(self, owners: list[str]) -> dict[date, pl.LazyFrame]:
        rows = [[("email", "ann@x.io", owner), ("email", "bob@x.io", "B"), ("crm_id", "C1", "A")] for owner in owners]
        columns = ["identifier_type", "identifier", "profile_id"]
        return {
            day: pl.LazyFrame(made, schema=columns, orient="row") for day, made in zip(self.DAYS, rows, strict=False)
        }

    def changes(self, owners: list[str]) -> dict[date, pl.LazyFrame]:
        made = {}
        for day, before, after in zip(self.DAYS[1:], owners, owners[1:], strict=False):
            rows = [(before, after, "moved")] if before != after else []
            made[day] = pl.LazyFrame(
                rows, schema=dict.fromkeys(["old_profile_id", "new_profile_id", "kind"], pl.String), orient="row"
            )
        return made

    @pytest.mark.parametrize(("owners", "moves"), [("ABABAB", 5), ("ABBBAB", 3), ("ABAAAA", None), ("AAAAAA", None)])
    def test_three_times_are_often(self, owners: str, moves: int | None) -> None:
        rows = moved_often(self.graphs(list(owners)), self.changes(list(owners))).collect().rows()
        assert rows == ([] if moves is None else [("email", "ann@x.io", moves)])

    def test_it_is_in_the_queue(self) -> None:
        moves = pl.LazyFrame({"identifier_type": ["email"], "identifier": ["p0@x.io"], "moves": [4]})
        entry = review(*tables_of(), ["crm_id"], moves=moves).filter(kind="moving").row(0, named=True)
        assert (entry["identifiers"], entry["decision"]) == (["email:p0@x.io"], "nobody")
        assert len(entry["profiles"]) == 1
        assert "4 times" in entry["evidence"]


class TestExplained:
    """Decisions in explanations and simulations."""

    def test_same(self) -> None:
        answer = explain("crm_id:C3", "crm_id:C4", *tables_of(TWINS)).text()
        assert "same by decision 17 (a.b: imported twice)" in answer
        assert "decided by Heap" not in answer

    def test_apart(self) -> None:
        answer = explain("crm_id:C0", "email:desk@x.io", *tables_of(APART)).text()
        assert "two people: apart by decision 18 (a.b: inbox of the front desk)" in answer

    def test_what_if(self) -> None:
        tables, rules = tables_of(TWINS)
        frame = what_if(
            tables.links, rules, ["without=17", "apart=crm_id:C0,email:desk@x.io", "same=crm_id:C0,crm_id:C1"]
        ).frame
        today, without, apart, same = frame["profiles"].to_list()
        assert (today, without) == (5, 6)
        assert without == resolve(tables_of()[0].links, RULES).profiles
        joined = Decision("same", (("crm_id", "C0"), ("crm_id", "C1")))
        for profiles, decision in ((apart, APART), (same, joined)):
            assert profiles == resolve(tables.links, replace(rules, decisions=(TWINS, decision))).profiles


class TestWriting:
    """Decisions that a command writes are those that a file holds."""

    @pytest.mark.parametrize("name", ["decisions.csv", "decisions.yaml"])
    def test_a_row_is_added(self, tmp_path: Path, name: str) -> None:
        file, about = tmp_path / name, {"author": "a.b", "reason": "one, twice", "until": ""}
        append_decision(file, RULES, "same", ["crm_id:C3", "crm_id:C4"], about)
        append_decision(file, RULES, "apart", ["crm_id:C0", "crm_id:C1", "crm_id:C2"], about)
        decisions = read_decisions(file, RULES)
        assert decisions[0].reason == "one, twice"
        assert len(decisions) == (4 if name.endswith("csv") else 2)
        before = file.read_bytes()
        with pytest.raises(DecisionError, match="the same by"):
            append_decision(file, RULES, "apart", ["crm_id:C4", "crm_id:C3"], {})
        assert file.read_bytes() == before


class TestSettings:
    """From the settings to the rules of every day, and back into the file."""

    @pytest.fixture
    def project(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
        monkeypatch.setenv("HEAP_ASSETS_DEMO", str(tmp_path / "demo"))
        root = Path(__file__).parents[2]
        (tmp_path / "heap_catalogue.yaml").write_bytes((root / "heap_catalogue.yaml").read_bytes())
        text = (root / "heap_assets.yaml").read_text()
        assert text.count("\nidentity:\n") == 1
        settings = tmp_path / "heap_assets.yaml"
        settings.write_text(text.replace("\nidentity:\n", "\nidentity:\n  decisions: decisions.csv\n"))
        (tmp_path / "decisions.csv").write_text(
            "decision,identifier_a,identifier_b,until\n"
            "same,email:Ann@acme.io,email:ann.b@acme.io,\napart,email:ann@acme.io,email:bob@acme.io,2020-01-01\n"
        )
        return open_project(file=settings)

    def test_decisions_are_read_beside_the_settings(self, project: Project) -> None:
        assert [one.kind for one in project.rules.decisions] == ["same"]
        assert project.rules.decisions[0].identifiers == (("email", "ann.b@acme.io"), ("email", "ann@acme.io"))
        assert [one.kind for one in project.rules_of_days.on(date(2020, 1, 1)).decisions] == ["same", "apart"]
        assert "decisions_hold" in {check.name for check in identity_checks(project)}

    def test_a_decision_is_written_beside_the_settings(self, project: Project) -> None:
        decide(project, "nobody", ["email:desk@acme.io"], {})
        assert ("email", "desk@acme.io") in open_project(file=project.file).rules.excluded
        with pytest.raises(DecisionError, match="nobody's by decision"):
            decide(project, "nobody", ["email:ann@acme.io"], {})
