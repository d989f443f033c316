"""A small code location with a check that fails when told so, and the alert sensors, for the fast and the slow test."""

import os
from pathlib import Path
from typing import Any

import dagster as dg

from heap_assets.alerts.channels import Channel, EmailChannel, WebhookChannel
from heap_assets.errors import SourceError
from heap_assets.orchestration.alert_sensors import alert_sensors
from heap_assets.orchestration.checks import check_step
from heap_assets.quality.engine import Check, CheckContext
from heap_assets.quality.results import CheckResult, Severity
from heap_assets.storage import Lake

DAYS = dg.DailyPartitionsDefinition("2026-11-01", end_date="2026-11-08")
UI = "http://localhost:3000"


class LakeResource(dg.ConfigurableResource[Any]):
    url: str

    def open(self) -> Lake:
        return Lake.open(self.url)


class Toy:
    """A table whose checks fail on the days that files in `folder` name: `<check>/<day>`, and whose step may raise."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def break_it(self, what: str, day: str) -> None:
        (self.folder / what).mkdir(parents=True, exist_ok=True)
        (self.folder / what / day).touch()

    def mend(self, what: str, day: str) -> None:
        (self.folder / what / day).unlink()

    def broken(self, what: str, day: str) -> bool:
        return (self.folder / what / day).exists()

    def checks(self) -> list[Check]:
        def judge(name: str) -> Any:
            def _judge(subject: CheckContext) -> CheckResult:
                bad = self.broken(name, subject.partition)
                return CheckResult(passed=not bad, numbers={"bad_rows": 3 * bad})

            return _judge

        return [
            Check("crm/contacts", "unique_keys", "No contact is there twice.", judge("unique_keys")),
            Check("crm/contacts", "volume", "As many contacts as ever.", judge("volume"), Severity.WARN),
        ]

    def definitions(self, channels: list[Channel], lake_url: str) -> dg.Definitions:
        @dg.asset(key=["crm", "contacts"], partitions_def=DAYS, group_name="warehouse")
        def contacts(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
            if self.broken("step", context.partition_key):
                raise SourceError("crm.contacts cannot be read: the warehouse is closed")
            return dg.MaterializeResult()

        return dg.Definitions(
            assets=[contacts],
            asset_checks=[check_step("contacts_checks", self.checks(), DAYS)],
            sensors=alert_sensors(
                Lake.open(lake_url).store, channels, UI, run_interval_seconds=5, standing_interval_seconds=5
            ),
            resources={"lake": LakeResource(url=lake_url)},
            executor=dg.in_process_executor,
        )


@dg.definitions
def location_from_environment() -> dg.Definitions:
    """Build the code location that the daemon loads (the slow test sets the variables)."""
    toy = Toy(Path(os.environ["TOY_FOLDER"]))
    channels: list[Channel] = [
        WebhookChannel(url_env="TOY_WEBHOOK", secret_env="TOY_SECRET"),
        EmailChannel(
            host="127.0.0.1",
            port=int(os.environ["TOY_SMTP_PORT"]),
            sender="heap_assets@acme.test",
            recipients=("data@acme.test",),
            starttls=False,
        ),
    ]
    return toy.definitions(channels, os.environ["TOY_LAKE"])
