"""Syncs of Hightouch and Census: started once, waited for across kills, and judged by their rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from heap_assets.activation import Api, ToolRunner, tool_of
from heap_assets.activation.reverse_etl import HightouchTool
from heap_assets.errors import DeliveryError, HostNotAllowedError, SettingsError
from heap_assets.http_client import ANYWHERE
from heap_assets.orchestration.checks import asset_key
from heap_assets.orchestration.definitions import build_definitions
from heap_assets.pipelines.reverse_etl import preflight, start_and_wait
from heap_assets.project import Project, open_project, parse_settings
from heap_assets.storage import Inputs
from heap_assets_tests.connectors.servers.census import Census
from heap_assets_tests.connectors.servers.census import Outcome as CensusRows
from heap_assets_tests.connectors.servers.core import ManualClock
from heap_assets_tests.connectors.servers.hightouch import Hightouch
from heap_assets_tests.connectors.servers.hightouch import Outcome as HightouchRows
from heap_assets_tests.orchestration.company_platform import QUIET

SETTINGS = """
start_date: 2026-11-01
lake: {folder}/lake
heap: {{app_id: "1", source: {{kind: folder, path: {folder}/bucket}}}}
identity: {{identifiers: [{{type: email}}]}}
publish:
  dwh: {{kind: postgres, dsn: "postgresql://nobody@127.0.0.1:1/none", assets: [profiles], schedule: "0 5 * * *"}}
allowed_hosts: {allowed}
reverse_etl:
  crm:
    {{kind: {kind}, token: "${{TOOL_TOKEN}}", sync: {sync}, base_url: "{url}", poll_seconds: 0.002, reads: [{reads}]}}
"""
Tools = tuple[Hightouch, Census]


@pytest.fixture(scope="module")
def servers() -> Iterator[Tools]:
    with Hightouch(clock=ManualClock()) as hightouch, Census(clock=ManualClock()) as census:
        yield hightouch, census


@pytest.fixture(params=["hightouch", "census"])
def server(request: pytest.FixtureRequest, servers: Tools) -> Hightouch | Census:
    chosen = servers[request.param == "census"]
    chosen.heal()
    chosen.jobs.clear()
    chosen.outcomes.clear()
    chosen.calls.clear()
    return chosen


def project_at(folder: Path, server: Hightouch | Census, reads: str = "publish/dwh/profiles", **more: str) -> Project:
    of_kind = (
        {"kind": "hightouch", "sync": "11", "url": f"{server.url}/api/v1"}
        if isinstance(server, Hightouch)
        else {"kind": "census", "sync": "21", "url": f"{server.url}/api/v2"}
    )
    chosen = {**of_kind, "allowed": "[127.0.0.1]", "reads": reads, **more}
    path = folder / "heap_assets.yaml"
    return open_project(parse_settings(SETTINGS.format(folder=folder, **chosen), path), path)


@pytest.fixture
def project(tmp_path: Path, server: Hightouch | Census, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("TOOL_TOKEN", server.token if isinstance(server, Hightouch) else server.personal)
    return project_at(tmp_path, server)


def triggers(server: Hightouch | Census) -> int:
    return sum(call.path.endswith("/trigger") for call in server.calls)


def build_profiles(project: Project, day: str) -> None:
    project.lake.write("profiles", day, pl.LazyFrame({"profile_id": [day]}), Inputs({"of": day}))


class Killed(BaseException):
    """In place of a kill: nothing of ours handles it."""


def kill(*_: object, **__: object) -> None:
    raise Killed


def test_the_asset_has_the_rows_and_fails_when_too_many_are_rejected(
    project: Project, server: Hightouch | Census
) -> None:
    rows: Any = (
        [HightouchRows(90, 8, 2, failed=3), HightouchRows(10, failed=4)]
        if isinstance(server, Hightouch)
        else [CensusRows(100, 97, 2, 1), CensusRows(10, 6, 3, 1)]
    )
    key = 11 if isinstance(server, Hightouch) else 21
    outcomes: Any = server.outcomes
    definitions = build_definitions(project)
    assert (
        asset_key("publish/dwh/profiles")
        in definitions.resolve_asset_graph().get(asset_key("reverse_etl/crm")).parent_keys
    )
    job = definitions.resolve_implicit_global_asset_job_def()
    job = job.get_subset(asset_selection={asset_key("reverse_etl/crm")})
    instance = dg.DagsterInstance.ephemeral()
    ended = []
    for outcome in rows:
        outcomes[str(key) if isinstance(server, Hightouch) else key] = outcome
        ended.append(job.execute_in_process(instance=instance, raise_on_error=False, run_config=QUIET))
    assert [result.success for result in ended] == [True, False]
    [materialized] = ended[0].asset_materializations_for_node("reverse_etl__crm")
    shown = {name: value.value for name, value in materialized.metadata.items()}
    lost = {"rejected": 3} if isinstance(server, Hightouch) else {"rejected": 2, "invalid": 1}
    assert shown.items() >= {"planned": 100, "sent": 97, **lost}.items()
    [failure] = [event.step_failure_data for event in ended[1].all_events if event.is_step_failure]
    assert failure.user_failure_data is not None
    assert failure.user_failure_data.metadata["sent"].value == 6
    assert "40.0% of the rows" in str(failure.error)
    assert triggers(server) == 2
    assert server.violations == []


def test_a_killed_run_waits_for_the_same_run_unless_what_it_reads_is_new(
    project: Project, server: Hightouch | Census
) -> None:
    build_profiles(project, "2026-11-01")
    with pytest.raises(Killed):
        start_and_wait(project, "crm", report=kill)
    run = start_and_wait(project, "crm")
    assert (triggers(server), run.ended, run.failure) == (1, True, "")
    with pytest.raises(Killed):
        start_and_wait(project, "crm", report=kill)
    build_profiles(project, "2026-11-02")
    newer = start_and_wait(project, "crm")
    ids = [int(job.id.removeprefix("job-")) for job in server.jobs.values()]
    assert int(newer.id) == max(ids), "the run that began before the new rows is no proof that they went"
    assert server.violations == []


@pytest.mark.parametrize("when", ["before the call", "after the call"])
def test_a_kill_around_the_call_that_starts_it(
    project: Project, server: Hightouch | Census, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = project.settings.reverse_etl["crm"]
    tool = tool_of(chosen)
    with monkeypatch.context() as patched:
        patched.setattr(type(tool), "trigger" if when.startswith("before") else "triggered", kill)
        with pytest.raises(Killed):
            start_and_wait(project, "crm")
    assert start_and_wait(project, "crm").ended
    if isinstance(server, Hightouch):
        assert len(server.jobs) == 1, "the run that was started is known by the list"
    assert server.violations == []


def test_a_run_that_was_active_before_is_not_taken_for_ours(project: Project, server: Hightouch | Census) -> None:
    tool = tool_of(project.settings.reverse_etl["crm"])
    with Api(tool, allowed=project.allowed_hosts) as api:
        foreign = str(tool.triggered(api.call(tool.trigger(full=False)).fields))
    assert int(start_and_wait(project, "crm").id) > int(foreign)
    assert server.violations == []


def test_what_fails_there_fails_here(project: Project, server: Hightouch | Census) -> None:
    server.fail("job_fails", error="the query failed for ann@acme.example")
    assert start_and_wait(project, "crm").failure.endswith("the query failed for •••")


class Remembered:
    """What is stored, in memory."""

    state: Any = None

    def load(self) -> Any:
        return self.state

    def store(self, state: Any) -> None:
        self.state = state

    def clear(self) -> None:
        self.state = None


class FastClock:
    seconds = 0.0

    def now(self) -> float:
        return self.seconds

    def wait(self, seconds: float, woken: object = None) -> None:
        self.seconds += seconds


def test_after_its_time_the_run_stays_known_and_one_that_is_gone_does_not(servers: Tools) -> None:
    server = servers[0]
    server.heal()
    server.jobs.clear()
    server.hidden_polls = 9_999
    memory, settings = Remembered(), {"poll_seconds": 15.0, "clock": FastClock()}
    tool = HightouchTool(f"{server.url}/api/v1", 11, server.token)
    with Api(tool, allowed=ANYWHERE) as api:
        with pytest.raises(DeliveryError, match=r"more than 0.05 h"):
            ToolRunner(tool, api, memory, timeout=180, **settings).run("v1")
        assert memory.state["run"]
        with pytest.raises(DeliveryError, match="does not know its run"):
            ToolRunner(tool, api, memory, timeout=7200, **settings).run("v1")
    assert memory.state is None
    server.hidden_polls = 0


def test_settings_name_their_mistake(tmp_path: Path, servers: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    server = servers[0]
    monkeypatch.setenv("TOOL_TOKEN", server.token)
    with pytest.raises(
        SettingsError, match=r"reverse_etl.crm.reads\[0\] is 'publish/dwh/profile'.*publish/dwh/profiles"
    ):
        build_definitions(project_at(tmp_path, server, reads="publish/dwh/profile"))
    refused = project_at(tmp_path, server, allowed="[]")
    with pytest.raises((DeliveryError, HostNotAllowedError), match="allowed_hosts"):
        start_and_wait(refused, "crm")
    assert [result.passed for result in preflight(project_at(tmp_path, server), "crm")] == [True, True]
    assert [result.passed for result in preflight(project_at(tmp_path, server, sync="12"), "crm")] == [True, False]
    monkeypatch.setenv("TOOL_TOKEN", "of-another-workspace")
    assert [result.passed for result in preflight(project_at(tmp_path, server), "crm")] == [False]


def test_a_target_with_a_schedule_is_published_to_at_its_times(
    tmp_path: Path, servers: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOOL_TOKEN", "token")
    project = project_at(tmp_path, servers[0])
    definitions = build_definitions(project)
    [schedule] = [one for one in definitions.schedules or [] if one.name == "publish_to_dwh"]
    assert isinstance(schedule, dg.ScheduleDefinition)
    graph = definitions.resolve_asset_graph()
    assert graph.get(asset_key("publish/dwh/profiles")).automation_condition is None

    def requested() -> list[str | None]:
        ticked = schedule.evaluate_tick(dg.build_schedule_context(repository_def=definitions.get_repository_def()))
        return [request.partition_key for request in ticked.run_requests or []]

    assert requested() == []
    build_profiles(project, "2026-11-01")
    assert requested() == ["2026-11-01"]
