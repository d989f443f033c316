"""Decisions from a file, of hashes and from a table: graph, profiles, checks and what destinations hold follow them."""

from __future__ import annotations

from datetime import date

import polars as pl
import pytest
from click.testing import CliRunner

from heap_assets.cli.review import review
from heap_assets.demo.server_process import ServerProcess
from heap_assets.errors import SettingsError
from heap_assets.pipelines import delivery
from heap_assets.pipelines.people import identity_of_day
from heap_assets.pipelines.reviewing import decide, doubtful_decisions
from heap_assets.storage import state_keys
from heap_assets_tests.pipelines.delivery_fixtures import Worlds
from heap_assets_tests.pipelines.delivery_world import BEFORE, DAY, World, contacts, moves, properties

USERS = "heap_user_properties: {properties: {Plan: plan}}"
APART = ["crm_id:c-ann", "heap_identity:bob@x.example"]
BOB = "bob@x.example"


def world_of_a_wrong_address(worlds: Worlds, heap: ServerProcess) -> World:
    """Return a world where Ann's contact has Bob's address, so that Bob was sent her plan."""
    world = worlds(USERS)
    wrong = contacts().filter(pl.col("contact_id") != "c-bob")
    wrong = wrong.with_columns(email=pl.col("email").replace({"ann@x.example": BOB}))
    world.write("warehouse/contacts", DAY, wrong)
    world.choose(USERS).resolve(DAY)
    assert delivery.send(world.project, "heap_user_properties", DAY, "r1").report.sent == 2
    assert properties(heap)[BOB] == {"Plan": "pro"}
    return world


@pytest.mark.parametrize("name", ["decisions.csv", "decisions.yaml"])
@pytest.mark.parametrize("hashed", [False, True], ids=["values", "hashes"])
def test_what_a_wrong_merge_had_sent_is_withdrawn_and_comes_back_when_undone(
    worlds: Worlds, heap: ServerProcess, name: str, *, hashed: bool
) -> None:
    world = world_of_a_wrong_address(worlds, heap)
    before = world.lake.scan("identity/graph", str(DAY)).collect()
    file = world.folder / name
    file.write_text("decision,identifier_a,identifier_b,author,reason\n" if name.endswith("csv") else "")
    world.identity = f"  decisions: {name}\n  decisions_hashed: {str(hashed).lower()}\n"
    world.choose(USERS)
    decide(world.project, "apart", APART, {"author": "a.b", "reason": "a wrong address"})
    assert (BOB in file.read_text()) is not hashed
    world.choose(USERS).resolve(DAY)
    assert not doubtful_decisions(world.project)
    [decision] = world.project.rules.decisions
    assert world.lake.scan("identity/conflicts", str(DAY)).collect()["decision"].to_list() == [decision.id]
    sent = delivery.send(world.project, "heap_user_properties", DAY, "r2").report
    assert (sent.sent, sent.withdrawn) == (1, 1)
    assert properties(heap)[BOB] == {"Plan": "(none)"}

    file.write_text(file.read_text().splitlines()[0] + "\n" if name.endswith("csv") else "")
    world.choose(USERS).resolve(DAY)
    assert world.lake.scan("identity/graph", str(DAY)).collect().equals(before)
    assert delivery.send(world.project, "heap_user_properties", DAY, "r3").report.sent == 1
    assert properties(heap)[BOB] == {"Plan": "pro"}


@pytest.mark.parametrize("end", ["removed", "ended"])
@pytest.mark.parametrize(
    ("kind", "identifiers", "change"),
    [
        ("same", ["crm_id:c-ann", "crm_id:c-bob"], "split"),
        ("apart", ["crm_id:c-ann", "heap_identity:ann@x.example"], "merged"),
        ("nobody", ["email:ann@x.example"], "merged"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_changes_name_a_decision_that_is_gone(
    worlds: Worlds, kind: str, identifiers: list[str], change: str, end: str
) -> None:
    world = worlds(USERS)
    file = world.folder / "decisions.csv"
    world.identity = "  decisions: decisions.csv\n"
    header = "decision,identifier_a,identifier_b,author,until,id\n"
    file.write_text(header)

    def changes_of(day: date) -> pl.DataFrame:
        tables = identity_of_day(world.choose(USERS).project, day)
        graph = tables["identity/graph"]
        world.lake.write("identity/graph", str(day), graph.writer or graph.frame, graph.inputs, notes=graph.notes)
        return tables["identity/changes"].frame.collect()

    decide(world.choose(USERS).project, kind, identifiers, {"id": "17", "until": str(BEFORE) if end == "ended" else ""})
    changes_of(BEFORE)
    if end == "removed":
        file.write_text(header)
    after = changes_of(DAY).filter(pl.col("decision") == "17")
    assert {*after["kind"]} == {change}
    hidden = [value for name in identifiers for value in [name.partition(":")[2].encode()]]
    kept = [world.lake.store.read(info.key) for info in world.lake.store.list(state_keys.DECISIONS)]
    assert kept
    assert not any(value in data for value in hidden for data in kept), "keyed hashes, never values"


def test_hashes_of_another_lake_stand_for_nobody(worlds: Worlds) -> None:
    world = worlds(USERS)
    (world.folder / "decisions.csv").write_text("decision,identifier_a,identifier_b,author\n")
    world.identity = "  decisions: decisions.csv\n  decisions_hashed: true\n"
    world.choose(USERS)
    decide(world.project, "apart", APART, {})
    decide(world.project, "same", ["email:ann@x.example", "email:cat@x.example"], {})
    with pytest.raises(SettingsError, match="the same by"):
        decide(world.project, "apart", ["email:ann@x.example", "email:cat@x.example"], {})
    world.lake.store.delete(f"{state_keys.DECISIONS}/values.json")
    world.choose(USERS).resolve(DAY)
    assert world.project.rules.decisions == ()
    lines = doubtful_decisions(world.project)
    assert len(lines) == 2
    assert all("knows no value" in line for line in lines)


def decided(*rows: tuple[str, str, str, str]) -> pl.DataFrame:
    """Return the table `moves` with decisions in it: kind, two identifiers, id."""
    columns = ["decision", "identifier_a", "identifier_b", "id"]
    frame = pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row")
    return frame.with_columns(move_id=pl.col("id"), email=pl.lit(None, pl.String), city=pl.lit("Oslo"))


def test_a_table_of_decisions(worlds: Worlds, heap: ServerProcess) -> None:
    """Rows that are no decisions, or contradict others, stop nothing and are named."""
    world = world_of_a_wrong_address(worlds, heap)
    world.identity = "  decisions_table: moves\n"
    rows = [
        ("apart", *APART, "7"),
        ("divorced", *APART, "8"),
        ("same", "email:cat@x.example", "email:", "9"),
        ("same", APART[0], APART[1], "10"),
        ("same", "email:lee@x.example", "email:kim@x.example", "11"),
        ("confirmed", "email:cat@x.example", "", "12"),
        ("confirmed", "email:ann@x.example", "", "12"),
    ]
    world.write("warehouse/moves", DAY, decided(*rows))
    world.choose(USERS).resolve(DAY)
    assert {one.id for one in world.project.rules.decisions} == {"7", "11"}
    problems = {one.id: one.problem for one in world.project.unusable_decisions}
    assert set(problems) == {"8", "9", "10", "12"}
    assert "contradicts 7" in problems["10"]
    assert not any("@" in text for text in problems.values()), "ids and reasons, never values"
    assert {line.split()[1].rstrip(":") for line in doubtful_decisions(world.project)} == {"8", "9", "10", "11", "12"}
    sent = delivery.send(world.project, "heap_user_properties", DAY, "r2").report
    assert (sent.sent, sent.withdrawn) == (1, 1)


def test_a_table_without_the_columns_of_decisions_is_refused(worlds: Worlds) -> None:
    world = worlds(USERS)
    world.identity = "  decisions_table: moves\n"
    world.write("warehouse/moves", DAY, moves("ann"))
    with pytest.raises(SettingsError, match=r"identity.decisions_table is 'moves', which has no column decision"):
        _ = world.choose(USERS).project.rules
    world.identity = "  decisions_table: moved\n"
    with pytest.raises(SettingsError, match=r"identity.decisions_table is 'moved', which is no table of a source"):
        world.choose(USERS)


class TestCommands:
    """`heap-assets review` in a terminal and as a page, on a world of one refused link."""

    @pytest.fixture
    def world(self, worlds: Worlds, monkeypatch: pytest.MonkeyPatch) -> World:
        made = worlds(USERS)
        twice = contacts().with_columns(email=pl.col("email").replace({"cat@x.example": "ann@x.example"}))
        made.write("warehouse/contacts", DAY, twice)  # Cat's contact has Ann's address, and a profile has one crm_id
        made.identity = "  decisions: decisions.csv\n"
        (made.folder / "decisions.csv").write_text("decision,identifier_a,identifier_b,author,decided,reason\n")
        made.choose(USERS).resolve(DAY)
        monkeypatch.chdir(made.folder)
        return made

    def test_a_walk_shows_what_each_decision_would_change_and_writes_the_row(self, world: World) -> None:
        result = CliRunner().invoke(review, ["--walk"], input="a\nshe is not Ann\nq\n")
        assert result.exit_code == 0, result.output
        assert "refused: crm_id:c-ann, crm_id:c-cat" in result.output
        assert "same: -1 profiles and -1 conflicts" in result.output
        [decision] = world.choose(USERS).project.rules.decisions
        assert (decision.kind, decision.reason) == ("apart", "she is not Ann")
        assert decision.identifiers == (("crm_id", "c-ann"), ("crm_id", "c-cat"))
        assert "refused" not in CliRunner().invoke(review, ["--json"]).output

    def test_one_that_contradicts_is_told_and_the_walk_goes_on(self, world: World) -> None:
        decide(world.project, "same", ["crm_id:c-ann", "email:dan@x.example"], {})
        decide(world.project, "same", ["crm_id:c-cat", "email:dan@x.example"], {})
        # the graph does not follow yet, so the entry is still there
        result = CliRunner().invoke(review, ["--walk"], input="a\nno\nq\n")
        assert result.exit_code == 0, result.output
        assert "the same by" in result.output
        assert len(world.choose(USERS).project.rules.decisions) == 2

    def test_a_page(self, world: World) -> None:
        page = world.folder / "review.html"
        result = CliRunner().invoke(review, ["--html", str(page)])
        assert result.exit_code == 0, result.output
        text = page.read_text()
        assert "<td>crm_id:c-ann, crm_id:c-cat</td>" in text
        assert text.count("<tr>") == 1 + text.count("<td>refused</td>") + text.count("<td>at_limit</td>")
