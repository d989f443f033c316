"""Two deployments with prefixes in one code location of somebody else's project, on one instance."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from heap_assets.alerts import Kind
from heap_assets.alerts.channels import WebhookChannel
from heap_assets.demo import Company
from heap_assets.orchestration.alert_sensors import alert_sensors, watched_checks
from heap_assets.orchestration.checks import asset_key
from heap_assets.orchestration.definitions import build_definitions
from heap_assets.orchestration.resources import dump_partitions, names_on
from heap_assets.orchestration.run_alarms import Own, finished_messages
from heap_assets.pipelines.readiness import unbuilt_days
from heap_assets.project import PLAIN_NAMES, Names, Project
from heap_assets.storage import Store
from heap_assets_tests.hostile_server import hostile_server
from heap_assets_tests.orchestration.company_platform import QUIET, make_world, why

PROD, EU = Names(("prod",), "prod_", "prod_"), Names(("eu", "heap"), "eu_", "eu_")
PACKAGE = Path(__file__).parent.parent.parent / "heap_assets" / "orchestration"


class HostManager(dg.IOManager):
    """The I/O manager of the project that the two are in: what is not its own must not pass through it."""

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        assert obj == "the host's", context.asset_key

    def load_input(self, context: dg.InputContext) -> Any:
        raise AssertionError(context.asset_key)


@dataclass
class Shared:
    """A code location with assets, a job and a group named like ours, and two deployments."""

    definitions: dg.Definitions
    projects: dict[str, Project]
    instance: dg.DagsterInstance

    def run(self, project: Project, assets: list[str], *days: str) -> dg.ExecuteInProcessResult:
        job = self.definitions.resolve_implicit_global_asset_job_def()
        chosen = job.get_subset(asset_selection={asset_key(asset, project.names) for asset in assets})
        where: dict[str, Any] = {"partition_key": days[0]}
        if len(days) == 2:
            bounds = zip(("start", "end"), days, strict=True)
            where = {"tags": {f"dagster/asset_partition_range_{end}": day for end, day in bounds}}
        result = chosen.execute_in_process(instance=self.instance, raise_on_error=False, run_config=QUIET, **where)
        assert result.success, why(result)
        return result

    def days_of(self, project: Project, asset: str) -> set[str]:
        return self.instance.get_materialized_partitions(asset_key(asset, project.names))


@dg.asset(group_name="identity")
def profiles() -> str:
    return "the host's"


@dg.asset(deps=[["prod", "profiles"]])
def report() -> str:
    raise RuntimeError("it fails")


@dg.op
def nothing() -> None: ...


@dg.job
def retention() -> None:
    nothing()


@pytest.fixture(scope="module")
def shared(company: Company, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    projects = {
        name: replace(make_world(company, tmp_path_factory.mktemp(name)).project, names=names)
        for name, names in (("prod", PROD), ("eu", EU))
    }
    host = dg.Definitions(
        assets=[profiles, report], jobs=[retention], resources={"io_manager": HostManager(), "lake": "the host's"}
    )
    definitions = dg.Definitions.merge(host, *map(build_definitions, projects.values()))
    with dg.DagsterInstance.ephemeral() as instance:
        yield Shared(definitions, projects, instance)


def test_nothing_of_a_deployment_is_outside_its_names(shared: Shared) -> None:
    repository = shared.definitions.get_repository_def()
    graph = repository.asset_graph
    own = {"profiles", "report"}
    keys = {key.to_user_string() for key in graph.get_all_asset_keys()} - own
    prod = {key.removeprefix("prod/") for key in keys if key.startswith("prod/")}
    assert prod == {key.removeprefix("eu/heap/") for key in keys if key.startswith("eu/heap/")}
    assert len(keys) == 2 * len(prod), "every key has one prefix or the other, dependencies too"
    assert {"heap/sessions", "profiles", "status/report", "heap_connect/landed"} <= prod
    for name, deployment in (("prod", PROD), ("eu", EU)):
        ours = [graph.get(key) for key in graph.get_all_asset_keys() if deployment.path(key.path)]
        assert all((node.group_name or "").startswith(f"{name}_") for node in ours)
        assert all(pool.startswith(f"{name}_") for node in ours for pool in node.pools or ())
        for node in ours:
            if (definition := node.partitions_def) and isinstance(definition, dg.DynamicPartitionsDefinition):
                assert definition.name == f"{name}_heap_dumps"
    names = [job.name for job in repository.get_all_jobs() if not job.name.startswith(("__", "retention"))]
    names += [one.name for one in (*repository.sensor_defs, *repository.schedule_defs)]
    names += [key for key in repository.get_top_level_resources() if key not in ("lake", "io_manager")]
    counts = [sum(name.startswith(prefix) for name in names) for prefix in ("prod_", "eu_")]
    assert sum(counts) == len(names)
    assert counts[0] == counts[1]
    for sensor in repository.sensor_defs:
        if isinstance(sensor, dg.AutomationConditionSensorDefinition):
            chosen = sensor.asset_selection.resolve(graph)
            assert dg.AssetKey("profiles") not in chosen, "the host's asset is in a group of the same name"
            assert {key.path[0] for key in chosen} <= {sensor.name.partition("_")[0]}


def test_each_deployment_is_built_from_its_own_dumps_into_its_own_lake(shared: Shared, company: Company) -> None:
    prod, eu = shared.projects["prod"], shared.projects["eu"]
    newest, dumps = str(company.until), [str(dump) for dump in company.dump_ids.values()]
    shared.instance.add_dynamic_partitions(str(dump_partitions(PROD).name), dumps)
    shared.run(prod, ["heap_connect/dumps"], dumps[0], dumps[-1])
    assert not shared.instance.get_dynamic_partitions(str(dump_partitions(EU).name))
    assert shared.days_of(prod, "heap_connect/landed")
    assert not shared.days_of(eu, "heap_connect/landed")
    assert unbuilt_days(prod)
    assert not unbuilt_days(eu)

    requested = shared.definitions.get_repository_def().get_sensor_def("eu_heap_manifests")
    with dg.build_sensor_context(instance=shared.instance) as context:
        tick = requested(context)
    asked = [dump for request in tick.run_requests for dump in request.tags["eu_heap/dump_ids"].split(",")]
    assert sorted(asked, key=int) == sorted(dumps, key=int), "those that prod has landed are not landed here"

    warehouse = [f"warehouse/{name}" for name in prod.settings.warehouse.tables]  # type: ignore[union-attr]
    shared.run(prod, ["heap/sessions", "heap/users", "heap/user_migrations", *warehouse], newest)
    assert shared.days_of(prod, "heap/users") == {newest}
    assert prod.lake.partitions("heap/users")
    assert not eu.lake.partitions("heap/users")
    due = dg.evaluate_automation_conditions(defs=shared.definitions, instance=shared.instance).results
    unread = {one.key.to_user_string() for one in due if one.true_subset.size} & {
        asset_key(path, names).to_user_string() for path in warehouse for names in (PROD, EU)
    }
    assert unread == {asset_key(path, EU).to_user_string() for path in warehouse}
    evaluated = shared.instance.event_log_storage.get_latest_asset_check_execution_by_key(
        [dg.AssetCheckKey(asset_key("heap/users", PROD), "unique_keys")]
    )
    assert evaluated, "checks keep their results under the prefixed key"
    assert names_on(shared.instance, prod.lake).key_prefix == ("prod",)
    assert names_on(shared.instance, eu.lake) == PLAIN_NAMES, "no run on its lake yet"


def test_alerts_are_about_the_own_assets_only(shared: Shared) -> None:
    graph = shared.definitions.get_repository_def().asset_graph
    prod = frozenset(key for key in graph.get_all_asset_keys() if PROD.path(key.path))
    watched = watched_checks(graph, Own(PROD, prod))
    assert ("heap/sessions", "newest_row_is_recent") in watched
    assert len(watched_checks(graph)) > len(watched)
    job = shared.definitions.resolve_implicit_global_asset_job_def().get_subset(asset_selection={dg.AssetKey("report")})
    run = job.execute_in_process(instance=shared.instance, raise_on_error=False, run_config=QUIET)
    runs = [shared.instance.get_run_by_id(run.run_id)]
    assert finished_messages(shared.instance, runs, "http://ui", lambda key: "", [])  # type: ignore[arg-type]
    assert not finished_messages(shared.instance, runs, "http://ui", lambda key: "", [], Own(PROD, prod))  # type: ignore[arg-type]


def test_each_deployment_of_a_code_location_has_its_own_allowed_hosts(shared: Shared, tmp_path: Path) -> None:
    prod, eu = shared.projects["prod"], shared.projects["eu"]
    strict = replace(prod, settings=prod.settings.model_copy(update={"allowed_hosts": []}))
    other = replace(eu, settings=eu.settings.model_copy(update={"allowed_hosts": ["api.example"]}))
    for _ in range(2):
        assert not strict.with_lake(strict.lake).allowed_hosts.allows("api.example")
        assert other.with_lake(other.lake).allowed_hosts.allows("api.example")
    with hostile_server() as server, dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        channel = WebhookChannel(url=server.url, on=(Kind.ALIVE,))
        for project, told in ((strict, 0), (prod, 1)):
            store = Store(str(tmp_path / project.names.name("alerts") / str(told)))
            [_, standing] = alert_sensors(store, [channel], "http://ui", allowed=project.allowed_hosts)
            with dg.build_sensor_context(instance=instance) as context:
                standing(context)  # type: ignore[operator]
            assert len(server.requests) == told


def test_every_asset_key_is_made_with_names() -> None:
    calls = [
        f"{path.name}:{node.lineno}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "asset_key"
        if len(node.args) + len(node.keywords) < 2 and path.name != "in_process.py"
    ]
    assert not calls, "the key would have no prefix"
