"""What of deploy/ can be held without a container engine: each file against what reads it, and the others."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import boto3
import botocore.validate
import dagster as dg
import pytest
import yaml
from dagster_aws.ecs import EcsRunLauncher
from dagster_aws.ecs.container_context import EcsContainerContext
from dagster_aws.s3 import S3ComputeLogManager
from dagster_cloud_cli.config.models import load_dagster_cloud_yaml
from dagster_dg_core.config import DgRawBuildConfig
from dagster_postgres import PostgresEventLogStorage

from heap_assets_tests.deployment.dockerfile import DEPLOY, stages
from heap_assets_tests.sources.warehouse import servers

ROOT = DEPLOY.parent
SCHEME = "postgresql+psycopg2://"
OF_SQLITE = {"event_log_storage"}
"""Keys of the package's dagster.yaml that PostgreSQL makes void."""


def loaded(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text())


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """Give the URI of a PostgreSQL of its own."""
    try:
        with servers.postgres_cluster() as address:
            yield f"{SCHEME}{address}/postgres"
    except servers.UnavailableError as error:
        pytest.skip(f"{error}: the instances of deploy/ were NOT opened on PostgreSQL")


@pytest.mark.parametrize("where", ["compose", "ecs"])
def test_an_instance_has_what_init_writes_but_for_its_storage(where: str) -> None:
    own = yaml.safe_load(resources.files("heap_assets.config").joinpath("dagster.yaml").read_text())
    shipped = loaded(f"{where}/dagster.yaml")
    assert {key: shipped.get(key) for key in own.keys() - OF_SQLITE} == {
        key: value for key, value in own.items() if key not in OF_SQLITE
    }


def test_the_instances_open_on_postgresql(postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_PG_URL", postgres)
    monkeypatch.setenv("DAGSTER_LOGS_BUCKET", "acme-dagster-logs")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    for where in ("compose", "ecs"):
        home = tmp_path / where
        home.mkdir()
        text = (DEPLOY / where / "dagster.yaml").read_text().replace("/var/lib/dagster", str(home / "files"))
        (home / "dagster.yaml").write_text(text)
        with dg.DagsterInstance.from_config(str(home)) as instance:
            assert isinstance(instance.event_log_storage, PostgresEventLogStorage)
            assert instance.get_runs_count() == 0
            assert instance.event_log_storage.get_pool_config().default_pool_limit == 1
            if where == "ecs":
                assert isinstance(instance.run_launcher, EcsRunLauncher)
                assert isinstance(instance.compute_log_manager, S3ComputeLogManager)


def test_the_image_is_small_unprivileged_and_compiled_ahead() -> None:
    build, image = stages()
    assert all((ROOT / source).exists() for copy in build.arguments("COPY") for source in copy.split()[:-1])
    assert build.arguments("RUN")[-1].endswith("heap-assets warm")
    assert image.arguments("USER") == ["10001:10001"]
    assert image.arguments("COPY") == ["--from=build /opt/heap_assets /opt/heap_assets"], "no source, no tools"
    assert build.environment["NUMBA_CPU_NAME"] == image.environment["NUMBA_CPU_NAME"], "or it is compiled again"
    assert not re.search("(?i)password|secret|token|key", str(image.environment))


def test_what_the_image_is_built_from_is_not_ignored() -> None:
    allowed = {
        line.removeprefix("!") for line in (DEPLOY / "Dockerfile.dockerignore").read_text().split() if "!" in line
    }
    assert allowed == {source for copy in stages()[0].arguments("COPY") for source in copy.split()[:-1]}


def test_containers_of_compose_are_read_only_and_run_what_the_image_runs() -> None:
    compose, image = loaded("compose/compose.yaml"), stages()[1]
    ours = {name: service for name, service in compose["services"].items() if service["image"] == "heap_assets"}
    assert ours.keys() == {"heap_assets", "webserver", "daemon"}
    for service in ours.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
    [server] = loaded("compose/workspace.yaml")["load_from"]
    assert ours["heap_assets"]["command"] == image.command
    assert server["grpc_server"]["host"] in ours
    assert str(server["grpc_server"]["port"]) in image.command
    mounts = {mount.removesuffix(":ro").rpartition(":")[2] for mount in ours["heap_assets"]["volumes"]}
    assert {image.environment["HEAP_ASSETS_SETTINGS"].rpartition("/")[0], "/var/lib/dagster"} <= mounts
    assert all(service["environment"]["DAGSTER_PG_URL"].startswith(SCHEME) for service in ours.values())
    assert [name for name, service in ours.items() if "env_file" in service] == ["heap_assets"], (
        "secrets of the settings"
    )
    assert all(address.startswith("127.0.0.1:") for service in ours.values() for address in service.get("ports", []))


def test_the_task_definition_is_one_that_ecs_takes() -> None:
    definition = json.loads((DEPLOY / "ecs" / "task_definition.json").read_text())
    client = boto3.client("ecs", region_name="eu-central-1", aws_access_key_id="x", aws_secret_access_key="x")
    shape = client.meta.service_model.operation_model("RegisterTaskDefinition").input_shape
    report = botocore.validate.ParamValidator().validate(definition, shape)
    assert not report.has_errors(), report.generate_report()
    containers = {container["name"]: container for container in definition["containerDefinitions"]}
    assert containers["daemon"]["secrets"] == containers["code"]["secrets"], "a run inherits them, and needs as many"
    assert containers["code"]["command"] == stages()[1].command
    assert len({container["image"] for container in containers.values()}) == 1


def test_the_files_of_dagster_plus_are_read_by_its_tools() -> None:
    text = (DEPLOY / "dagster_plus" / "dagster_cloud.yaml").read_text()
    [location] = load_dagster_cloud_yaml(text).locations
    assert location.code_source is not None
    assert (
        location.code_source.module_name in sys.modules or location.code_source.module_name == "heap_assets.definitions"
    )
    assert loaded("dagster_plus/build.yaml").keys() <= DgRawBuildConfig.__annotations__.keys()
    context = loaded("dagster_plus/container_context.yaml")
    assert (
        EcsContainerContext.create_from_config({"ecs": context["ecs"]}).run_resources == context["ecs"]["run_resources"]
    )


def test_the_values_of_the_chart_say_what_init_writes() -> None:
    own = yaml.safe_load(resources.files("heap_assets.config").joinpath("dagster.yaml").read_text())
    values = loaded("helm/values.yaml")
    daemon = values["dagsterDaemon"]
    chart = {
        "telemetry": values["telemetry"],
        "python_logs": values["pythonLogs"],
        "concurrency": {key: values["concurrency"][key] for key in ("pools", "runs")},
        "retention": {key: values["retention"][key] for key in ("schedule", "sensor")},
        "run_monitoring": daemon["runMonitoring"],
        "run_retries": daemon["runRetries"],
        "sensors": daemon["sensors"],
        "schedules": daemon["schedules"],
        **values["additionalInstanceConfig"],
    }
    assert {key: _snake(value) for key, value in chart.items()} == {
        key: value for key, value in own.items() if key not in {*OF_SQLITE, "nux"}
    }


def test_the_chart_runs_the_image_unprivileged_and_read_only() -> None:
    [deployment] = loaded("helm/values.yaml")["dagster-user-deployments"]["deployments"]
    image = stages()[1]
    assert deployment["podSecurityContext"]["runAsUser"] == int(image.arguments("USER")[0].partition(":")[0])
    assert deployment["securityContext"]["readOnlyRootFilesystem"] is True
    assert deployment["codeServerArgs"] == image.command[-2:]
    assert {mount["mountPath"] for mount in deployment["volumeMounts"]} == {"/settings", "/tmp"}
    assert deployment["includeConfigInLaunchedRuns"] == {"enabled": True}


def _snake(value: Any) -> Any:
    """Spell the keys of the chart as dagster.yaml does."""
    if isinstance(value, dict):
        return {re.sub("([A-Z])", lambda found: f"_{found[1].lower()}", key): _snake(one) for key, one in value.items()}
    return [_snake(one) for one in value] if isinstance(value, list) else value
