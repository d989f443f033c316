"""HeapAssetsComponent in somebody else's project of `dg`: scaffolded, checked, listed and run by `dg` itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

import heap_assets
from heap_assets.demo import Company
from heap_assets.errors import SettingsError
from heap_assets.orchestration.assets.status import activity_of
from heap_assets.orchestration.component import HeapAssetsComponent, names_of
from heap_assets.storage import Lake

ROOT = Path(__file__).parent.parent.parent
TYPE = "heap_assets.HeapAssetsComponent"
PYPROJECT = """
[project]
name = "acme"
version = "0.1.0"

[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "acme"
"""
DEFINITIONS = """
from pathlib import Path

from dagster import definitions, load_from_defs_folder


@definitions
def defs():
    return load_from_defs_folder(path_within_project=Path(__file__).parent)
"""
HOST = """
import dagster as dg


@dg.asset(group_name="identity")
def profiles() -> None: ...


@dg.op
def nothing() -> None: ...


@dg.job
def retention() -> None:
    nothing()


class NoStore(dg.IOManager):
    def handle_output(self, context, obj):
        raise RuntimeError("the project's I/O manager was given an output")

    def load_input(self, context):
        raise RuntimeError("the project's I/O manager was asked for an input")


@dg.definitions
def defs() -> dg.Definitions:
    return dg.Definitions(
        assets=[profiles],
        jobs=[retention],
        resources={"io_manager": NoStore(), "lake": "theirs"},
        executor=dg.multiprocess_executor,
    )
"""


@dataclass
class DgProject:
    """A project as `create-dagster project` makes it, with assets of its own and two Heap environments."""

    folder: Path
    data: Path
    """Folder of the company whose dumps and warehouse the environments read."""

    def write(self) -> None:
        source = self.folder / "src" / "acme"
        (source / "defs").mkdir(parents=True)
        (source / "__init__.py").touch()
        (source / "defs" / "__init__.py").touch()
        (source / "definitions.py").write_text(DEFINITIONS)
        (source / "defs" / "host.py").write_text(HOST)
        (self.folder / "pyproject.toml").write_text(PYPROJECT)
        self.home.mkdir()
        (self.home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        # what an installed package says of itself, whichever version is installed here
        about = self.folder / "installed" / "heap_assets-0.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: heap_assets\nVersion: 0\n")
        entry_points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
        lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in of.items()) for group, of in entry_points.items()]
        (about / "entry_points.txt").write_text("\n".join(lines))
        for name in ("prod", "eu"):
            self.environment(name).mkdir(parents=True)
            text = (ROOT / "heap_assets.yaml").read_text()
            text = text.replace("lake: ${HEAP_ASSETS_DEMO:-./data/demo}/lake", "lake: ./lake")
            text = text.replace("${HEAP_ASSETS_DEMO:-./data/demo}", str(self.data))
            (self.environment(name) / "heap_assets.yaml").write_text(text)
            (self.environment(name) / "heap_catalogue.yaml").write_text((ROOT / "heap_catalogue.yaml").read_text())

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def environment(self, name: str) -> Path:
        return self.folder / "heap" / name

    def lake(self, name: str) -> Lake:
        return Lake.open(str(self.environment(name) / "lake"))

    @cached_property
    def variables(self) -> dict[str, str]:
        paths = [self.folder / "installed", ROOT, self.folder / "src"]
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "DAGSTER_HOME": str(self.home),
            "DAGSTER_DISABLE_TELEMETRY": "1",
        }

    def dg(self, *commands: Sequence[str]) -> list[str]:
        """Run commands of `dg` in the project's folder, and return what each prints."""
        command = [sys.executable, "-m", "heap_assets_tests.orchestration.dg_commands", json.dumps(commands)]
        done = subprocess.run(command, cwd=self.folder, env=self.variables, capture_output=True, text=True, check=True)
        results = json.loads(done.stdout.splitlines()[-1])
        for argv, (code, output, error) in zip(commands, results, strict=True):
            assert code == 0, f"{argv}: {output}{error}{done.stderr}"
        return [output for _, output, _ in results]


def test_a_dg_project_takes_two_environments_in(company: Company, tmp_path: Path) -> None:
    project = DgProject(tmp_path / "acme", company.folder)
    project.write()
    dump = str(min(company.dump_ids.values()))
    with dg.DagsterInstance.from_config(str(project.home)) as instance:
        instance.add_dynamic_partitions("prod_heap_dumps", [dump])

    scaffold = ["scaffold", "defs", TYPE]
    options = ["--settings", "heap/prod/heap_assets.yaml", "--asset-key-prefix", "prod", "--group-prefix", "prod_"]
    components, _, schema = project.dg(
        ["list", "components", "--json"],
        [*scaffold, "heap_prod", *options],
        ["utils", "inspect-component", TYPE],
    )
    assert TYPE in {one["key"] for one in json.loads(components)["items"]}, "the entry point makes it known"
    assert "relative to the folder of defs.yaml" in schema
    made = project.folder / "src" / "acme" / "defs" / "heap_prod" / "defs.yaml"
    assert yaml.safe_load(made.read_text()) == {
        "type": TYPE,
        "attributes": {"settings": "heap/prod/heap_assets.yaml", "asset_key_prefix": "prod", "group_prefix": "prod_"},
    }
    second = {
        "type": TYPE,
        "attributes": {"settings": "../../../../heap/eu/heap_assets.yaml", "asset_key_prefix": ["heap", "eu"]},
    }
    (made.parent.parent / "eu").mkdir()
    (made.parent.parent / "eu" / "defs.yaml").write_text(yaml.safe_dump(second))

    *_, listed, _ = project.dg(
        ["check", "yaml"],
        ["check", "defs"],
        ["list", "defs", "--json"],
        ["launch", "--assets", "prod/heap_connect/dumps", "--partition", dump],
    )
    _check_list(json.loads(listed))
    assert project.lake("prod").store.list("_landing"), "it landed"
    assert not project.environment("eu").joinpath("lake").exists(), "and only there"
    with dg.DagsterInstance.from_config(str(project.home)) as instance:
        assert instance.get_materialized_partitions(dg.AssetKey(["prod", "heap_connect", "dumps"])) == {dump}
        [run] = instance.get_runs()
        instance.report_run_failed(run)
        key = dg.AssetKey(["prod", "heap", "users"])
        again = instance.create_run_for_job(_job(key), asset_selection=frozenset({key}))
    activity = activity_of(project.home, project.lake("prod"), ["heap/users", "heap_connect/dumps"])
    assert activity is not None
    assert {asset: one.run_id for asset, one in activity.items()} == {"heap/users": again.run_id}


def test_the_ui_documents_the_component(tmp_path: Path) -> None:
    # `dg` has no command for it any more: the webserver shows what the loaded code location says of its components
    project = DgProject(tmp_path / "acme", tmp_path / "no company")
    project.write()
    code = "import json; from acme.definitions import defs; print(json.dumps(defs().metadata[%r].value))"
    command = [sys.executable, "-c", code % "plugin_component_types_json"]
    done = subprocess.run(command, cwd=project.folder, env=project.variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shown = {one["name"]: one for package in json.loads(done.stdout) for one in package["componentTypes"]}
    page = shown[TYPE]
    assert page["description"].startswith("Heap's tables, identities, profiles and syncs of one heap_assets.yaml")
    assert yaml.safe_load(page["example"]) == {
        "type": TYPE,
        "attributes": {
            "settings": "heap/prod/heap_assets.yaml",
            "asset_key_prefix": "prod",
            "group_prefix": "prod_",
        },
    }
    keys = json.loads(page["schema"])["properties"]
    assert set(keys) == set(yaml.safe_load(page["example"])["attributes"])
    assert all(key["description"] for key in keys.values())


def _check_list(listed: dict[str, Any]) -> None:
    keys = {one["asset_key"] for one in listed["assets"]}
    assert {"prod/heap/sessions", "heap/eu/heap/sessions", "profiles", "prod/profiles"} <= keys
    assert all(key == "profiles" or key.startswith(("prod/", "heap/eu/")) for key in keys)
    jobs = {one["name"] for one in listed["jobs"]}
    assert {"retention", "prod_retention", "heap_eu_retention"} <= jobs
    groups = {one["asset_key"]: one["group_name"] for one in listed["assets"]}
    assert groups["prod/profiles"] == "prod_profiles"
    assert groups["heap/eu/profiles"] == "profiles"


def _job(key: dg.AssetKey) -> dg.JobDefinition:
    asset = dg.asset(key=key)(lambda: None)
    return dg.Definitions(assets=[asset]).resolve_implicit_global_asset_job_def()


@pytest.mark.parametrize(
    ("prefix", "group", "said"),
    [("pro d", "", "asset_key_prefix"), ("", "prod/", "group_prefix"), ("a" * 60, "", "longer than 40")],
)
def test_a_prefix_that_dagster_could_not_hold_is_refused(prefix: str, group: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        names_of(prefix, group)


def test_settings_that_are_not_there_are_named(tmp_path: Path) -> None:
    component = HeapAssetsComponent(settings="heap/other.yaml")
    with pytest.raises(SettingsError, match=r"heap/other\.yaml.*heap-assets init"):
        component.build_defs(dg.ComponentTree.for_test().load_context)


def test_a_mistake_in_the_settings_names_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "eu" / "heap_assets.yaml"
    file.parent.mkdir()
    file.write_text("start_date: soon\n")
    component = HeapAssetsComponent(settings=str(file), asset_key_prefix="eu")
    with pytest.raises(SettingsError, match=r"eu/heap_assets\.yaml: heap_assets\.yaml, line 1"):
        component.build_defs(dg.ComponentTree.for_test().load_context)


def test_importing_the_package_is_cheap_and_what_it_offers_is_there() -> None:
    heavy = {"dagster", "polars", "pydantic"}
    code = f"import sys, heap_assets; print([name for name in sys.modules if name.partition('.')[0] in {heavy}])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert set(heap_assets.__all__) <= set(dir(heap_assets))
    assert all(hasattr(heap_assets, name) for name in heap_assets.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = heap_assets.nothing  # type: ignore[attr-defined]
