"""Two Heap environments in one code location: apart in names, and in who is who; what has state keeps its name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster.components.testing import create_defs_folder_sandbox

from heap_assets.errors import SettingsError
from heap_assets.orchestration.component import HeapAssetsComponent
from heap_assets.orchestration.definitions import load_definitions
from heap_assets.project import Names
from heap_assets.storage import Lake, state_keys
from heap_assets_tests.orchestration.company_platform import QUIET
from heap_assets_tests.pipelines.delivery_world import why
from heap_assets_tests.sources.heap_connect.dump_builders import Bucket, event, migration, user

pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")
"""Dagster's own helper for tests of components."""

SETTINGS = """
start_date: 2026-05-01
lake: {lake}
heap:
  app_id: "{app}"
  source: {source}
identity:
  identifiers:
    - {{type: heap_identity, max_per_profile: 2}}
    - {{type: heap_user_id, shared_above: 1}}
publish: {publish}
run: {{automation: stopped}}
"""
DSN = "postgresql://u:p-env-7712@db.example/{database}"
DAY = "2026-05-02"


class Environment:
    """A folder with an app's bucket and settings."""

    def __init__(self, folder: Path, name: str, app: str) -> None:
        self.folder, self.name, self.app = folder / name, name, app
        self.lake = Lake.open(str(self.folder / "lake"))
        self.bucket = Bucket(self.folder / "bucket")
        self.write()

    def write(self, lake: str = "./lake", source: str = "", publish: str = "{}", app: str = "") -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        chosen = source or "{kind: folder, path: ./bucket}"
        text = SETTINGS.format(lake=lake, app=app or self.app, source=chosen, publish=publish)
        (self.folder / "heap_assets.yaml").write_text(text)

    @property
    def attributes(self) -> dict[str, object]:
        return {"settings": str(self.folder / "heap_assets.yaml"), "asset_key_prefix": self.name}

    def load(self, prefix: str = "") -> dg.Definitions:
        names = Names((prefix or self.name,), "", f"{prefix or self.name}_")
        return load_definitions(self.folder / "heap_assets.yaml", names)


def two(folder: Path) -> tuple[Environment, Environment]:
    return Environment(folder, "us", "11"), Environment(folder, "eu", "22")


def loaded(*environments: Environment) -> Iterator[dg.Definitions]:
    """Load a code location of `dg` with a component for each environment."""
    with create_defs_folder_sandbox() as sandbox:
        for environment in environments:
            sandbox.scaffold_component(
                component_cls=HeapAssetsComponent,
                defs_path=environment.name,
                defs_yaml_contents={"type": "heap_assets.HeapAssetsComponent", "attributes": environment.attributes},
            )
        with sandbox.build_all_defs() as definitions:
            yield definitions


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEAP_ASSETS_NOW", "2026-05-03T13:00:00Z")


def refusal(*environments: Environment) -> str:
    with pytest.raises(Exception) as refused:  # noqa: PT011  Dagster wraps what a component raises
        next(loaded(*environments))
    errors = [refused.value]
    while (cause := errors[-1].__cause__ or errors[-1].__context__) is not None:
        errors.append(cause)
    return "\n".join(str(error) for error in errors if isinstance(error, SettingsError))


def test_one_number_of_a_user_is_two_people_in_two_apps(tmp_path: Path) -> None:
    environments = two(tmp_path)
    for environment, identity in zip(environments, ("ann@x.example", "bob@y.example"), strict=True):
        environment.bucket.dump(
            1,
            "2026-05-03T01:00:00",
            clicks=[event(1, f"{DAY} 01:00:00", user_id=1)],
            users=[user(1, identity=identity), user(2)],
            user_migrations=[migration(2, 1)],
        )
    built = loaded(*environments)
    definitions = next(built)
    keys = {key.path[0] for key in definitions.resolve_asset_graph().get_all_asset_keys()}
    assert keys == {"us", "eu"}
    jobs = [name for name in ("us_retention", "eu_retention") if definitions.resolve_job_def(name)]
    assert jobs == ["us_retention", "eu_retention"]
    instance, job = dg.DagsterInstance.ephemeral(), definitions.resolve_implicit_global_asset_job_def()

    def run(name: str, partition: str, *assets: str) -> None:
        chosen = job.get_subset(asset_selection={dg.AssetKey([name, *asset.split("/")]) for asset in assets})
        result = chosen.execute_in_process(
            instance=instance, partition_key=partition, raise_on_error=False, run_config=QUIET
        )
        assert result.success, why(result)

    for environment in environments:
        instance.add_dynamic_partitions(f"{environment.name}_heap_dumps", ["1"])
        run(environment.name, "1", "heap_connect/dumps")
        run(environment.name, DAY, "heap/events/clicks", "heap/users", "heap/user_migrations")
        run(environment.name, DAY, *(f"identity/{one}" for one in ("links", "graph", "conflicts", "shared", "changes")))
    graphs = [environment.lake.scan("identity/graph", DAY).collect() for environment in environments]
    people = [set(graph.filter(identifier_type="heap_identity")["identifier"]) for graph in graphs]
    assert people == [{"ann@x.example"}, {"bob@y.example"}]
    assert not set(graphs[0]["profile_id"].drop_nulls()) & set(graphs[1]["profile_id"].drop_nulls())
    assert instance.get_materialized_partitions(dg.AssetKey(["us", "identity", "graph"])) == {DAY}
    built.close()

    # what has state keeps its names
    us, eu = environments
    us.load()
    with pytest.raises(SettingsError, match=r"asset_key_prefix is 'usa', and what lies in the lake .* under 'us'"):
        us.load("usa")
    us.write(app="33")
    with pytest.raises(SettingsError, match=r"heap.app_id is another app than .*lake of its own"):
        us.load()
    us.write()
    eu.lake.store.delete(f"{state_keys.ENVIRONMENT}/names.json")
    eu.load("europe")


@pytest.mark.parametrize(
    ("shared", "said"),
    [
        (
            {"publish": "{dwh: {kind: postgres, dsn: '${DWH}'}}"},
            "publish.dwh is 'postgresql://db.example:5432/d d.heap_assets', and so is publish.dwh of",
        ),
        ({"lake": "s3://acme/lake"}, "lake is 's3://acme/lake', and so is lake of"),
        (
            {"source": "{kind: s3, bucket: heap-rs3-acme, role_arn: 'arn:aws:iam::1:role/heap'}"},
            "heap.source.role_arn is 'arn:aws:iam::1:role/heap', and so is heap.source.role_arn of",
        ),
    ],
)
def test_what_two_environments_may_not_share_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: dict[str, str], said: str
) -> None:
    monkeypatch.setenv("DWH", DSN.format(database="d"))
    environments = two(tmp_path)
    for environment in environments:
        environment.write(**shared)
        (environment.folder / "heap_catalogue.yaml").write_text("clicks: {}\n")  # known: nothing is looked for
    message = refusal(*environments)
    assert said in message
    assert "two Heap environments have two" in message
    assert "p-env-7712" not in message


def test_schemas_of_one_database_are_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DWH", DSN.format(database="d"))
    one, other = two(tmp_path)
    one.write(publish="{dwh: {kind: postgres, dsn: '${DWH}', schema: us, resolved_views: us_resolved}}")
    other.write(publish="{dwh: {kind: postgres, dsn: '${DWH}', schema: eu, resolved_views: us_resolved}}")
    assert "publish.dwh.resolved_views is" in refusal(one, other)
    other.write(publish="{dwh: {kind: postgres, dsn: '${DWH}', schema: eu, resolved_views: eu_resolved}}")
    assert next(loaded(one, other))
