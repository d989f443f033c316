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
from heap_assets.quality.results import Severity, Verdict
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
def platform(tmp_path: Path) -> Iterator[Project]:
    with dg.instance_for_test() as instance, http_receiver() as inbox:
        yield Project(tmp_path, instance, inbox)


def abouts(message: dict[str, object]) -> list[tuple[object, ...]]:
    alarms: list[dict[str, object]] = message["alarms"]  # type: ignore[assignment]
    return [(alarm["about"], alarm["kind"], alarm["partition"], alarm["recovered"]) for alarm in alarms]


def test_failed_and_warned_checks_of_a_green_run_arrive_in_one_message(platform: Project) -> None:
    platform.toy.break_it("unique_keys", DAY)
    platform.toy.break_it("volume", DAY)
    assert platform.run()
    [message] = platform.tick()
    assert abouts(message) == [
        ("unique_keys", "check_failed", DAY, False),
        ("volume", "check_warned", DAY, False),
    ]
    alarm = message["alarms"][0]  # type: ignore[index]
    assert alarm["rule"] == "No contact is there twice."
    assert alarm["numbers"] == {"bad_rows": 3}
    assert alarm["group"] == "warehouse"
    assert str(message["link"]).startswith("http://localhost:3000/runs/")


def test_told_once_on_change_and_once_on_recovery(platform: Project) -> None:
    platform.toy.break_it("unique_keys", DAY)
    platform.run()
    assert len(platform.tick()) == 1
    assert platform.tick() == []
    platform.run()
    assert platform.tick() == [], "it fails still, and that has been told"
    platform.toy.mend("unique_keys", DAY)
    platform.run()
    [message] = platform.tick()
    assert abouts(message) == [("unique_keys", "check_failed", DAY, True)]
    platform.run()
    assert platform.tick() == []


def test_another_partition_is_another_alarm(platform: Project) -> None:
    for day in (DAY, "2026-11-02"):
        platform.toy.break_it("unique_keys", day)
        platform.run(day)
    assert [abouts(message)[0][2] for message in platform.tick()] == [DAY, "2026-11-02"]


def test_the_runs_of_a_backfill_share_a_message(platform: Project) -> None:
    for day in (DAY, "2026-11-02", "2026-11-03"):
        platform.toy.break_it("unique_keys", day)
        platform.run(day, backfill="abcd")
    [message] = platform.tick()
    assert [alarm[2] for alarm in abouts(message)] == [DAY, "2026-11-02", "2026-11-03"]
    assert message["headline"] == "Backfill abcd, 3 runs: 3 to look at"
    assert message["link"] == "http://localhost:3000/runs/b/abcd"


def test_a_failed_run_is_told_with_its_reason_and_taken_back(platform: Project) -> None:
    platform.toy.break_it("step", DAY)
    assert not platform.run()
    [message] = platform.tick()
    assert abouts(message) == [("run_failed", "run_failed", DAY, False)]
    assert message["alarms"][0]["detail"] == "crm.contacts cannot be read: the warehouse is closed"  # type: ignore[index]
    platform.toy.mend("step", DAY)
    platform.run("2026-11-02")
    assert platform.tick() == [], "another day proves nothing about this one"
    platform.run(DAY)
    [message] = platform.tick()
    assert abouts(message) == [("run_failed", "run_failed", DAY, True)]


def test_a_dead_webhook_fails_nothing_and_what_was_said_arrives_later(platform: Project) -> None:
    platform.inbox.status = 500
    platform.toy.break_it("unique_keys", DAY)
    assert platform.run()
    assert platform.tick() == []
    assert platform.tick() == []
    platform.inbox.status = 200
    told = [abouts(message)[0][0] for message in platform.tick()]
    assert told[0] == "unique_keys"
    assert platform.tick() == []


def test_a_dead_channel_is_reported_to_the_others(tmp_path: Path) -> None:
    with dg.instance_for_test() as instance, http_receiver() as good, http_receiver() as dead:
        platform = Project(tmp_path, instance, good)
        other = WebhookChannel(url=dead.url, name="dead")
        platform.defs = platform.toy.definitions([platform.channel, other], platform.lake_url)
        dead.status = 503
        platform.toy.break_it("unique_keys", DAY)
        platform.run()
        told = {abouts(message)[0][0] for message in platform.tick()}
        assert told == {"unique_keys", "undelivered"}
        assert platform.tick() == []
        dead.status = 200
        [message] = platform.tick()
        assert abouts(message) == [("undelivered", "alert_undelivered", None, True)]
        assert abouts(dead.json()[0])[0][0] == "unique_keys"


def test_routing_by_asset_group(tmp_path: Path) -> None:
    with dg.instance_for_test() as instance, http_receiver() as inbox:
        platform = Project(tmp_path, instance, inbox, groups=("sync",))
        platform.toy.break_it("unique_keys", DAY)
        platform.run()
        assert platform.tick() == []


def recency(platform: Project, *, passed: bool) -> None:
    record(
        Lake.open(platform.lake_url).store,
        Verdict(passed=passed, numbers={"hours_behind": 99.0}),
        asset="crm/contacts",
        check="newest_row_is_recent",
        partition="all",
        version=None,
        severity=Severity.ERROR,
        blocking=False,
        rule="The newest row is recent.",
    )


def test_staleness_is_told_from_the_stored_verdict_though_nothing_ran(platform: Project) -> None:
    check = dg.AssetCheckSpec("newest_row_is_recent", asset=["crm", "contacts"])

    @dg.multi_asset_check(name="recency", specs=[check])
    def never_run() -> Iterator[dg.AssetCheckResult]:
        yield dg.AssetCheckResult(passed=True)

    platform.defs = dg.Definitions.merge(platform.defs, dg.Definitions(asset_checks=[never_run]))
    [message] = platform.tick("standing_alerts")
    assert ("recency_not_judged", "not_ticking", None, False) in abouts(message)
    recency(platform, passed=False)
    [message] = platform.tick("standing_alerts")
    assert ("newest_row_is_recent", "stale", None, False) in abouts(message)
    assert ("recency_not_judged", "not_ticking", None, True) in abouts(message)
    assert platform.tick("standing_alerts") == []
    recency(platform, passed=True)
    [message] = platform.tick("standing_alerts")
    assert abouts(message) == [("newest_row_is_recent", "stale", None, True)]


def test_a_dead_mans_switch_hears_a_sign_of_life_every_hour(tmp_path: Path) -> None:
    with dg.instance_for_test() as instance, http_receiver() as inbox:
        platform = Project(tmp_path, instance, inbox, on=(Kind.ALIVE,))
        for _ in range(2):
            [message] = platform.tick("standing_alerts")
            assert abouts(message) == [("alive", "alive", None, False)]


def test_an_error_that_may_hold_values_is_told_by_its_name_only(platform: Project) -> None:
    def judge(_: object) -> Verdict:
        raise ValueError("ann@acme.test is odd")

    platform.defs = _with_broken_judge(platform, judge)
    platform.run()
    [message] = platform.tick()
    assert "ann@" not in str(message)
    assert "could_not_judge: ValueError" in str(message)


def _with_broken_judge(platform: Project, judge: object) -> dg.Definitions:
    from dataclasses import replace

    checks = [replace(check, judge=judge) for check in platform.toy.checks()]
    platform.toy.checks = lambda: checks  # type: ignore[method-assign,assignment]
    return platform.toy.definitions([platform.channel], platform.lake_url)
