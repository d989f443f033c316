"""Runs a dbt project and heap_assets in one code location, and prints what followed what, as JSON.

For the environment that has dbt (`test_dbt.py`): `python -m heap_assets_tests.dbt.follow FOLDER`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from time import sleep
from typing import Any

import dagster as dg
import duckdb
import yaml
from dagster_dbt import DbtCliResource, DbtProject, dbt_assets
from dbt.cli.main import dbtRunner

from heap_assets import clock
from heap_assets.bi import TOOLS
from heap_assets.demo import write_company
from heap_assets.demo.server_process import ServerProcess, running_server
from heap_assets.orchestration.definitions import build_definitions
from heap_assets.orchestration.resources import DUMPS
from heap_assets.pipelines.readiness import landing_pauses
from heap_assets.pipelines.waiting import waits
from heap_assets.project import Project, parse_settings
from heap_assets.sources.heap_connect import Catalogue
from heap_assets.storage import Lake
from heap_assets_tests.bi.test_files import LAYER

ROOT = Path(__file__).parents[2]
MODELS = ("crm_contacts", "billing_customers")
FOLLOWS = "heap_user_properties"


class Location:
    """A code location with both, and an instance to run it on."""

    def __init__(self, folder: Path) -> None:
        today = datetime.now(UTC).date()
        # before noon: a table whose upstream did not materialize is not read yet
        os.environ[clock.VARIABLE] = datetime.combine(today, time(9), UTC).isoformat()
        company = write_company(folder / "company", people=40, days=3, until=today - timedelta(days=1), faults=False)
        self.day = str(company.until)
        self.dump_ids = [str(dump) for dump in company.dump_ids.values()]
        self.warehouse = company.folder / "warehouse.duckdb"
        os.environ |= {"WAREHOUSE": str(self.warehouse), "HEAP_ASSETS_DEMO": str(company.folder)}
        self.folder = folder
        self.instance = _instance(folder)
        self.project = _project(folder)
        self.define()
        self.cursor: Any = None

    def define(self) -> None:
        """Make the definitions anew: what a condition asked of the lake is cached for seconds."""
        self.definitions = dg.Definitions.merge(_models(self.folder), build_definitions(self.project))

    def run(self, keys: set[dg.AssetKey], partition: str | None) -> None:
        job = self.definitions.resolve_implicit_global_asset_job_def().get_subset(asset_selection=keys)
        job.execute_in_process(instance=self.instance, partition_key=partition)

    def land(self) -> None:
        self.instance.add_dynamic_partitions(str(DUMPS.name), self.dump_ids)
        for dump in self.dump_ids:
            self.run({dg.AssetKey(["heap_connect", "dumps"])}, dump)
        while not landing_pauses(self.project):
            sleep(0.5)

    def build_models(self) -> dict[str, Any]:
        """Run `dbt build`; return model to the metadata of its materialization."""
        # a process of its own, as every run of Dagster's launchers: dbt's connection stays open for writing
        subprocess.run([sys.executable, "-m", __spec__.name, str(self.folder), "models"], check=True, stdout=sys.stderr)
        events = [self.instance.get_latest_materialization_event(dg.AssetKey(["marts", model])) for model in MODELS]
        return {
            model: event.asset_materialization.metadata
            for model, event in zip(MODELS, events, strict=True)
            if event is not None and event.asset_materialization is not None
        }

    def follow(self) -> list[str]:
        """Run what automation requests until it requests nothing; return the assets, in order."""
        requested: list[str] = []
        while True:
            self.define()
            evaluation = dg.evaluate_automation_conditions(
                defs=self.definitions, instance=self.instance, cursor=self.cursor
            )
            self.cursor = evaluation.cursor
            asset_graph = self.definitions.resolve_asset_graph()
            by_day: dict[str, set[dg.AssetKey]] = {}
            for result in evaluation.results:
                if asset_graph.get(result.key).is_partitioned:  # all but the status report
                    for day in result.true_subset.expensively_compute_partition_keys():
                        by_day.setdefault(day, set()).add(result.key)
            if not by_day:
                return requested
            for day, keys in sorted(by_day.items()):
                self.run(keys, day)
                requested += [f"{key.to_user_string()} {day}" for key in sorted(keys)]

    def lineage(self, asset: dg.AssetKey, column: str, models: dict[str, Any]) -> list[str]:
        """Return the chain of first origins of a column."""
        asset_graph = self.definitions.resolve_asset_graph()
        chain = [f"{asset.to_user_string()}.{column}"]
        metadata = models.get(asset.path[-1]) if asset.path[0] == "marts" else None
        if metadata is None and asset_graph.has(asset):
            metadata = asset_graph.get(asset).metadata
        lineage = (metadata or {}).get("dagster/column_lineage")
        columns = getattr(lineage, "value", lineage)
        for origin in (columns.deps_by_column.get(column, []) if columns else [])[:1]:
            chain += self.lineage(origin.asset_key, origin.column_name, models)
        return chain


def _instance(folder: Path) -> dg.DagsterInstance:
    (folder / "dagster").mkdir(exist_ok=True)
    return dg.DagsterInstance.local_temp(str(folder / "dagster"))


def _models(folder: Path) -> dg.Definitions:
    resource = _resource(folder)
    target = folder / "dbt" / "target"
    if not (target / "manifest.json").exists():
        resource.cli(["parse"], manifest={}, target_path=target).wait()

    @dbt_assets(manifest=target / "manifest.json")
    def models(context, dbt: DbtCliResource):  # type: ignore[no-untyped-def]  # Dagster reads the annotation
        yield from dbt.cli(["build"], context=context).stream().fetch_column_metadata()

    return dg.Definitions(assets=[models], resources={"dbt": resource})


def _resource(folder: Path) -> DbtCliResource:
    if not (folder / "dbt").exists():
        shutil.copytree(Path(__file__).parent / "project", folder / "dbt")
    executable = str(Path(sys.executable).parent / "dbt")
    return DbtCliResource(project_dir=DbtProject(folder / "dbt"), dbt_executable=executable)


def _project(folder: Path) -> Project:
    settings = yaml.safe_load((ROOT / "heap_assets.yaml").read_text())
    for model in MODELS:
        settings["warehouse"]["tables"][model] |= {"relation": f"main_marts.{model}", "upstream": ["marts", model]}
    settings["sync"] = {name: sync for name, sync in settings["sync"].items() if name == FOLLOWS}
    settings["heap"]["tables"] = {"include": ["pageviews"]}
    settings["heap"]["identifiers"] = {"users": settings["heap"]["identifiers"]["users"]}
    for section in ("signals", "analytics", "models"):
        settings.pop(section, None)  # of traits and tables that are left out here
    settings["profiles"] = {"traits": {"plan": settings["profiles"]["traits"]["plan"]}}
    settings["sync"][FOLLOWS]["properties"] = {"Plan": "plan"}
    for table in ("crm_accounts", "product_accounts", "support_tickets"):
        del settings["warehouse"]["tables"][table]
    settings["lake"] = str(folder / "lake")
    file = folder / "heap_assets.yaml"
    file.write_text(yaml.safe_dump(settings))
    parsed = parse_settings(file.read_text(), file)
    return Project(parsed, Catalogue.load(ROOT / "heap_catalogue.yaml"), Lake.open(parsed.lake.url))


def parsed_bi_files(folder: Path) -> dict[str, list[str]]:
    """Parse the files of `heap-assets bi dbt` in a project of their own; return what dbt knows of."""
    for name, text in TOOLS["dbt"](LAYER):
        path = folder / "models" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    project = yaml.safe_load((Path(__file__).parent / "project" / "dbt_project.yml").read_text())
    del project["models"]  # of models that are not here, which dbt warns of
    (folder / "dbt_project.yml").write_text(yaml.safe_dump(project))
    shutil.copy(Path(__file__).parent / "project" / "profiles.yml", folder)
    place = ["--project-dir", str(folder), "--profiles-dir", str(folder), "--warn-error"]
    done = dbtRunner().invoke(["--quiet", "parse", *place])
    if not done.success:
        raise SystemExit(f"dbt parse failed: {done.exception or done.result}")
    exposures = {exposure.name: exposure.depends_on.nodes for exposure in done.result.exposures.values()}
    return {"sources": sorted(done.result.sources), **exposures}


def _plans(heap: ServerProcess) -> list[str]:
    users = heap.state()["users"].values()
    return sorted(user["properties"]["Plan"] for user in users if "Plan" in user["properties"])


def main(folder: Path) -> None:
    """Print what automation requested before, after one, and after a second `dbt build`, and a column's lineage."""
    with running_server("heap", folder / "heap", arguments=["--app-id", "2463913201"]) as heap:
        os.environ["HEAP_BASE_URL"] = heap.base_url
        location = Location(folder)
        with duckdb.connect(str(location.warehouse), read_only=True) as warehouse:
            users = warehouse.execute("select heap_identity from product.users where heap_identity is not null")
            heap.seed([identity for (identity,) in users.fetchall()], app_id="2463913201")
        location.land()
        before = location.follow()
        waiting = {wait.asset: str(wait) for wait in waits(location.project)}
        models = location.build_models()
        first = location.follow()
        plans = _plans(heap)
        with duckdb.connect(str(location.warehouse)) as warehouse:
            warehouse.execute("update billing.customers set plan = 'changed', updated_at = now()")
        location.build_models()
        second = location.follow()
        sync = dg.AssetKey(["sync", FOLLOWS])
        location.run({sync}, location.day)  # what the sync's schedule requests
        print(
            json.dumps(
                {
                    "day": location.day,
                    "before": before,
                    "waits": waiting,
                    "first": first,
                    "plans": plans,
                    "second": second,
                    "changed_plans": _plans(heap),
                    "bi": parsed_bi_files(folder / "bi"),
                    "lineage": location.lineage(sync, "Plan", models),
                }
            )
        )


if __name__ == "__main__":
    if sys.argv[2:] == ["models"]:
        built = Path(sys.argv[1])
        _models(built).resolve_implicit_global_asset_job_def().execute_in_process(instance=_instance(built))
    else:
        main(Path(sys.argv[1]))
