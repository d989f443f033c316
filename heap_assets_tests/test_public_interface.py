"""What `heap_assets` exports: few names, each with an example that runs on a small lake, and a notebook that does."""

from __future__ import annotations

import ast
import doctest
import importlib
import io
import json
from pathlib import Path

import pytest

import heap_assets
from heap_assets import clock
from heap_assets.api import Project
from heap_assets.project import open_project
from heap_assets_tests.pipelines.delivery_world import BEFORE, DAY, NOW, World, contacts

PACKAGE = Path(heap_assets.__file__).parent
NOTEBOOK = PACKAGE.parent / "docs" / "notebooks" / "first_look.ipynb"
SYNCS = "plans_to_heap: {kind: heap_user_properties, mode: upsert, properties: {Plan: plan}}"
AUDIENCE = "profiles:\n  audiences:\n    pro_plan: {user_properties: {plan: {eq: pro}}}\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of four people and two days, resolved, with the settings that describe it."""
    made = tmp_path_factory.mktemp("deployment")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(clock.VARIABLE, NOW)
        world = World(made, SYNCS)
        settings = made / "heap_assets.yaml"
        settings.write_text(settings.read_text().replace("profiles:\n", AUDIENCE))
        world.project = open_project(file=settings)
        for day in (BEFORE, DAY):
            world.write_day(day, contacts=contacts(bob="free"))
            world.resolve(day)
    return made


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    monkeypatch.setenv(clock.VARIABLE, NOW)
    return folder


def _run(example: doctest.DocTest) -> None:
    told = io.StringIO()
    failed = doctest.DocTestRunner(verbose=False).run(example, out=told.write).failed
    assert not failed, told.getvalue()


@pytest.mark.parametrize("name", heap_assets.__all__)
def test_each_public_name_has_an_example_that_runs(here: Path, name: str) -> None:
    found = doctest.DocTestFinder().find(getattr(heap_assets, name), name)
    examples = [one for one in found if one.examples]
    assert examples, "no example"
    for one in examples:
        _run(one)


def test_there_are_few_names_and_the_stub_has_them_all() -> None:
    assert len(heap_assets.__all__) <= 20
    tree = ast.parse((PACKAGE / "__init__.pyi").read_text())
    imported = {alias.asname for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert imported == set(heap_assets.__all__)


OTHERS = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if ">>> " in path.read_text()
)


@pytest.mark.parametrize("module", OTHERS)
def test_every_example_of_the_package_runs(here: Path, module: str) -> None:
    for one in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(module)):
        if one.examples:
            _run(one)


def test_reading_writes_nothing(here: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in here.rglob("*")}
    project = Project.open()
    project.explain("email:ann@x.example")
    project.plan("plans_to_heap")
    project.sql("SELECT 1")
    assert project.audience("pro_plan", DAY).collect().height == 3
    assert {path: path.stat().st_mtime_ns for path in here.rglob("*")} == before


def test_the_notebook_runs(here: Path) -> None:
    notebook = json.loads(NOTEBOOK.read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) > 4
    names: dict[str, object] = {}
    for number, cell in enumerate(cells):
        exec(compile(cell, f"{NOTEBOOK.name}, cell {number}", "exec"), names)
    assert not any(cell.get("outputs") for cell in notebook["cells"]), "what a notebook printed may be personal data"
