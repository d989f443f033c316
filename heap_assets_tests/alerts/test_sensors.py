"""The sensors over real runs on a real instance; messages arrive at a real receiver."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from alert_receivers import Inbox, http_receiver
from alert_toys import LakeResource, Toy

from heap_assets.alerts.channels import WebhookChannel
from heap_assets.alerts.message import Kind
from heap_assets.quality.result_store import record
from heap_assets.quality.results import CheckResult, Severity
from heap_assets.storage import Lake

DAY = "2026-11-01"


class Project:
    """An instance, a toy, a webhook, and the two sensors with their cursors."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance, inbox: Inbox, **route: object) -> None:
        self.instance = instance
        self.inbox = inbox
        self.toy = Toy(folder / "toy")
        self.lake_url = str(folder / "lake")
        self.channel = WebhookChannel(url=inbox.url, name="ops", **route)  # type: ignore[arg-type]
        self.defs = self.toy.definitions([self.channel], self.lake_url)
        self.cursors: dict[str, str | None] = {}

    def run(self, day: str = DAY, **tags: str) -> bool:
        job = self.defs.resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(
            instance=self.instance,
            partition_key=day,
            raise_on_error=False,
            tags={f"dagster/{k}": v for k, v in tags.items()},
        )
        return bool(result.success)

    def tick(self, sensor: str = "run_alerts") -> list[dict[str, object]]:
        """Evaluate a sensor and return the messages that arrived because of it."""
        before = len(self.inbox.bodies)
        repository = self.defs.get_repository_def()
        with dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursors.get(sensor),
            repository_def=repository,
            resources={"lake": LakeResource(url=self.lake_url)},
        ) as context:
            repository.get_sensor_def(sensor)(context)
            self.cursors[sensor] = context.cursor
        return self.inbox.json()[before:]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with dg.instance_for_test() as instance, http_receiver() as inbox:
        yield Project(tmp_path, instance, inbox)


def abouts(message: dict[str, object]) -> list[tuple[object, ...]]:
    alarms: list[dict[str, object]] = message["alarms"]  # type: ignore[assignment]
    return [(alarm["about"], alarm["kind"], alarm["partition"], alarm["recovered"]) for alarm in alarms]


def test_failed_and_warned_checks_of_a_green_run_arrive_in_one_message(project: Project) -> None:
    project.toy.break_it("unique_keys", DAY)
    project.toy.break_it("volume", DAY)
    assert project.run()
    [message] = project.tick()
    assert abouts(message) == [
        ("unique_keys", "check_failed", DAY, False),
        ("volume", "check_warned", DAY, False),
    ]
    alarm = message["alarms"][0]  # type: ignore[index]
    assert alarm["rule"] == "No contact is there twice."
    assert alarm["numbers"] == {"bad_rows": 3}
    assert alarm["group"] == "warehouse"
    assert str(message["link"]).startswith("http://localhost:3000/runs/")


def test_told_once_on_change_and_once_on_recovery(project: Project) -> None:
    project.toy.break_it("unique_keys", DAY)
    project.run()
    assert len(project.tick()) == 1
    assert project.tick() == []
    project.run()
    assert project.tick() == [], "it fails still, and that has been told"
    project.toy.mend("unique_keys", DAY)
    project.run()
    [message] = project.tick()
    assert abouts(message) == [("unique_keys", "check_failed", DAY, True)]
    project.run()
    assert project.tick() == []


def test_another_partition_is_another_alarm(project: Project) -> None:
    for day in (DAY, "2026-11-02"):
        project.toy.break_it("unique_keys", day)
        project.run(day)
    assert [abouts(message)[0][2] for message in project.tick()] == [DAY, "2026-11-02"]


def test_the_runs_of_a_backfill_share_a_message(project: Project) -> None:
    for day in (DAY, "2026-11-02", "2026-11-03"):
        project.toy.break_it("unique_keys", day)
        project.run(day, backfill="abcd")
    [message] = project.tick()
    assert [alarm[2] for alarm in abouts(message)] == [DAY, "2026-11-02", "2026-11-03"]
    assert message["headline"] == "Backfill abcd, 3 runs: 3 to look at"
    assert message["link"] == "http://localhost:3000/runs/b/abcd"


def test_a_failed_run_is_told_with_its_reason_and_taken_back(project: Project) -> None:
    project.toy.break_it("step", DAY)
    assert not project.run()
    [message] = project.tick()
    assert abouts(message) == [("run_failed", "run_failed", DAY, False)]
    assert message["alarms"][0]["detail"] == "crm.contacts cannot be read: the warehouse is closed"  # type: ignore[index]
    project.toy.mend("step", DAY)
    project.run("2026-11-02")
    assert project.tick() == [], "another day proves nothing about this one"
    project.run(DAY)
    [message] = project.tick()
    assert abouts(message) == [("run_failed", "run_failed", DAY, True)]


def test_a_dead_webhook_fails_nothing_and_what_was_said_arrives_later(project: Project) -> None:
    project.inbox.status = 500
    project.toy.break_it("unique_keys", DAY)
    assert project.run()
    assert project.tick() == []
    assert project.tick() == []
    project.inbox.status = 200
    told = [abouts(message)[0][0] for message in project.tick()]
    assert told[0] == "unique_keys"
    assert project.tick() == []


def test_a_dead_channel_is_reported_to_the_others(tmp_path: Path) -> None:
    with dg.instance_for_test() as instance, http_receiver() as good, http_receiver() as dead:
        project = Project(tmp_path, instance, good)
        other = WebhookChannel(url=dead.url, name="dead")
        project.defs = project.toy.definitions([project.channel, other], project.lake_url)
        dead.status = 503
        project.toy.break_it("unique_keys", DAY)
        project.run()
        told = {abouts(message)[0][0] for message in project.tick()}
        assert told == {"unique_keys", "undelivered"}
        assert project.tick() == []
        dead.status = 200
        [message] = project.tick()
        assert abouts(message) == [("undelivered", "alert_undelivered", None, True)]
        assert abouts(dead.json()[0])[0][0] == "unique_keys"


def test_routing_by_asset_group(tmp_path: Path) -> None:
    with dg.instance_for_test() as instance, http_receiver() as inbox:
        project = Project(tmp_path, instance, inbox, groups=("sync",))
        project.toy.break_it("unique_keys", DAY)
        project.run()
        assert project.tick() == []


def recency(project: Project, *, passed: bool) -> None:
    record(
        Lake.open(project.lake_url).store,
        CheckResult(passed=passed, numbers={"hours_behind": 99.0}),
        asset="crm/contacts",
        check="newest_row_is_recent",
        partition="all",
        version=None,
        severity=Severity.ERROR,
        blocking=False,
        rule="The newest row is recent.",
    )


def test_staleness_is_told_from_the_stored_verdict_though_nothing_ran(project: Project) -> None:
    check = dg.AssetCheckSpec("newest_row_is_recent", asset=["crm", "contacts"])

    @dg.multi_asset_check(name="recency", specs=[check])
    def never_run() -> Iterator[dg.AssetCheckResult]:
        yield dg.AssetCheckResult(passed=True)

    project.defs = dg.Definitions.merge(project.defs, dg.Definitions(asset_checks=[never_run]))
    [message] = project.tick("standing_alerts")
    assert ("recency_not_judged", "not_ticking", None, False) in abouts(message)
    recency(project, passed=False)
    [message] = project.tick("standing_alerts")
    assert ("newest_row_is_recent", "stale", None, False) in abouts(message)
    assert ("recency_not_judged", "not_ticking", None, True) in abouts(message)
    assert project.tick("standing_alerts") == []
    recency(project, passed=True)
    [message] = project.tick("standing_alerts")
    assert abouts(message) == [("newest_row_is_recent", "stale", None, True)]


def test_a_dead_mans_switch_hears_a_sign_of_life_every_hour(tmp_path: Path) -> None:
    with dg.instance_for_test() as instance, http_receiver() as inbox:
        project = Project(tmp_path, instance, inbox, on=(Kind.ALIVE,))
        for _ in range(2):
            [message] = project.tick("standing_alerts")
            assert abouts(message) == [("alive", "alive", None, False)]


def test_an_error_that_may_hold_values_is_told_by_its_name_only(project: Project) -> None:
    def judge(_: object) -> CheckResult:
        raise ValueError("ann@acme.test is odd")

    project.defs = _with_broken_judge(project, judge)
    project.run()
    [message] = project.tick()
    assert "ann@" not in str(message)
    assert "could_not_judge: ValueError" in str(message)


def _with_broken_judge(project: Project, judge: object) -> dg.Definitions:
    from dataclasses import replace

    checks = [replace(check, evaluate=judge) for check in project.toy.checks()]
    project.toy.checks = lambda: checks  # type: ignore[method-assign,assignment]
    return project.toy.definitions([project.channel], project.lake_url)
