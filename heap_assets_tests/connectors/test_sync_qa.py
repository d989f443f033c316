"""The six steps by which a sync is accepted, against a local Salesforce."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from heap_assets import clock
from heap_assets.activation.engine import auth
from heap_assets.cli.sync import sync as command
from heap_assets.config.load import PATH_VARIABLE
from heap_assets.pipelines.suites import required_checks
from heap_assets.pipelines.sync_qa import is_same
from heap_assets.quality import CheckResult, Severity, result_store
from heap_assets_tests.connectors import kit
from heap_assets_tests.connectors.servers.salesforce import SalesforceServer
from heap_assets_tests.connectors.test_salesforce import LEADS


@pytest.fixture
def org(monkeypatch: pytest.MonkeyPatch) -> Iterator[SalesforceServer]:
    for name, value in LEADS.secrets.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(auth, "_tokens", {})
    with LEADS.make_server() as server:
        yield server


@pytest.fixture
def deployment(org: SalesforceServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> kit.Deployment:
    """A deployment with one day, whose checks have passed."""
    monkeypatch.setenv(clock.VARIABLE, f"{kit.DAY}T12:00:00+00:00")
    monkeypatch.setenv(PATH_VARIABLE, str(tmp_path / "heap_assets.yaml"))
    one = kit.Deployment.make(tmp_path, LEADS.settings.replace("{url}", org.url) + "match: upsert")
    one.write(0, LEADS.rows(4), LEADS.schema)
    _judge(one, passed=True)
    return one


def _judge(deployment: kit.Deployment, *, passed: bool) -> None:
    lake, day = deployment.project.lake, str(kit.DAY)
    for check in required_checks(deployment.project, kit.TABLE):
        version = result_store.partition_version(lake, kit.TABLE, day)
        facts = {"asset": kit.TABLE, "check": check, "partition": day, "version": version}
        result_store.record(lake.store, CheckResult(passed), **facts, severity=Severity.ERROR, blocking=True)


def _steps(*arguments: str) -> tuple[int, dict[str, tuple[bool | None, str]]]:
    answer = CliRunner().invoke(command, ["qa", kit.SYNC, *arguments, "--json"])
    steps = json.loads(answer.output)
    assert [step["number"] for step in steps] == [1, 2, 3, 4, 5, 6]
    assert not any(value in answer.output for value in ("Lastname", "title-", "secret-4711", "user-0"))
    return answer.exit_code, {step["title"]: (step["passed"], step["detail"]) for step in steps}


def test_a_dry_run_sends_nothing_and_a_run_proves_that_the_values_are_there(
    deployment: kit.Deployment, org: SalesforceServer
) -> None:
    code, steps = _steps("user-00003")
    assert (code, steps["test user"], steps["wait"]) == (0, (True, "1 in warehouse/people"), (None, "nothing was sent"))
    assert steps["trigger"] == (True, "dry run: add of LastName, Company, Title, Lead_Score__c, Is_PQL__c")
    assert steps["verify"] == (None, "it has no record there")
    assert steps["mapping"] == (True, "7 things are as needed")
    assert not org.records.get("Lead")
    code, steps = _steps("user-00003", "--send")
    assert (code, steps["trigger"]) == (0, (True, "succeeded: 4 sent, 0 rejected, 0 invalid"))
    assert steps["verify"] == (True, "the same values there: LastName, Company, Title, Lead_Score__c, Is_PQL__c")
    assert steps["logs"][1].endswith("acknowledged, HTTP 200")
    org.edit("Lead", org.find("Lead", "Heap_Id__c", "user-00003")[0], Title="theirs")
    assert _steps("user-00003")[1]["verify"] == (None, "other values there: Title")
    text = CliRunner().invoke(command, ["qa", kit.SYNC, "user-00003"]).output.splitlines()
    assert text[3] == "4 verify     -       other values there: Title"


def test_each_step_that_fails_says_why(deployment: kit.Deployment, org: SalesforceServer) -> None:
    code, steps = _steps("user-99999")
    assert (code, steps["test user"]) == (1, (False, "none in warehouse/people"))
    _judge(deployment, passed=False)
    org.fields["Lead"].pop("Title")
    code, steps = _steps("user-00003", "--send")
    assert code == 1
    assert steps["trigger"][1].startswith("blocked: 0 sent")
    assert steps["verify"][0] is False
    assert steps["logs"] == (False, "none: nothing of it was ever sent")
    assert steps["mapping"] == (False, "Lead.Title is no field that the user may see")


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        ("2026-11-01T09:00:00.000Z", "2026-11-01T10:00:00.000+0100", True),
        (71, 71.0, True),
        ("true", True, True),
        (True, False, False),
        ("a ", "a", True),
        ("a", None, False),
        ("007", 7, True),
    ],
)
def test_values_are_the_same_whatever_their_spelling(ours: object, theirs: object, same: bool) -> None:
    assert is_same(ours, theirs) is same
