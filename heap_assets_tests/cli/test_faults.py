"""Every rule has a fault that it is there for, and a row in the table of who was told how soon."""

from pathlib import Path

from heap_assets.demo.plants import NOT_PLANTED, plants
from heap_assets.orchestration.definitions import build_definitions
from heap_assets.project.project import open_project

DOCUMENT = Path(__file__).parents[2] / "docs" / "faults.md"


def test_every_check_of_the_definitions_has_a_fault_of_its_own() -> None:
    graph = build_definitions(open_project()).get_repository_def().asset_graph
    planted = {plant.found_by for plant in plants()} | set(NOT_PLANTED)
    checks = {_rule(key.name) for key in graph.asset_check_keys}
    assert checks <= {_rule(name) for name in planted}, checks - {_rule(name) for name in planted}


def test_every_fault_is_a_sentence_and_has_a_row_in_the_documentation() -> None:
    rows = DOCUMENT.read_text()
    names = [plant.name for plant in plants()]
    assert len(set(names)) == len(names)
    for plant in plants():
        assert plant.done.endswith("."), plant.name
        assert f"| {plant.name.replace('_', ' ')} | {plant.done} |" in rows, f"{plant.name}: make the table again"
    assert "nobody was told" not in rows


def _rule(check: str) -> str:
    return "one_profile_per_key" if check.startswith("one_profile_per_") and check.endswith("_key") else check
