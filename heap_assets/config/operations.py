"""The `checks:`, `alerts:` and `run:` sections: how the platform is watched and run."""

from __future__ import annotations

import os
from datetime import date
from typing import Annotated, Literal

from pydantic import Field, field_validator

from heap_assets.config.base import Cron, Owner, Owners, Section

Occasion = Literal["check_failed", "check_warned", "run_failed", "stale", "not_ticking", "alert_undelivered", "alive"]

Host = Annotated[str, Field(pattern=r"^(\*\.)?[A-Za-z0-9._\-]+(:\d{1,5})?$|^\[?[0-9A-Fa-f:]+\]?$")]
"""`host`, `host:port` or `*.domain`: no scheme, no path."""


UI_VARIABLE = "HEAP_ASSETS_UI_URL"
"""Where the Dagster UI answers, unless the settings say it."""


class Alert(Section):
    """A channel of alerts and its filters. Secrets are named: `*_env` is the name of an environment variable."""

    kind: Literal["webhook", "slack", "email"] = Field(description="How messages are sent")
    name: str = Field(default="", description="What logs and messages call the channel; its kind unless given")
    url: str = Field(default="", description="A webhook's address")
    url_env: str = Field(default="", description="The variable that holds the address, where the address is a secret")
    secret_env: str = Field(default="", description="The variable that holds the key a webhook's body is signed with")
    host: str = Field(default="", description="SMTP server")
    port: int = Field(default=587, description="Port of the SMTP server")
    sender: str = Field(default="heap_assets@localhost", description="Address that emails come from")
    recipients: list[str] = Field(default=[], description="Addresses that emails go to")
    starttls: bool = Field(default=True, description="Encrypt the connection to the SMTP server")
    user_env: str = Field(default="", description="The variable that holds the SMTP user")
    password_env: str = Field(default="", description="The variable that holds the SMTP password")
    on: list[Occasion] = Field(
        default=["check_failed", "check_warned", "run_failed", "stale", "not_ticking", "alert_undelivered"],
        description="Kinds of alert that are sent here",
    )
    groups: list[str] = Field(default=[], description="Asset groups; all unless given")


_FEWEST_YEARS, _MOST_YEARS = 2, 7
_MOST_REPLAY_DAYS = 365


class Keep(Section):
    """How long days stay in the lake: of events, and of snapshot-sized tables (users, warehouse, identity, profiles).

    People stay until they ask to be erased.
    """

    snapshot_days: int = Field(default=35, ge=8, description="So many days; the newest always")
    month_ends: bool = Field(default=True, description="The last day of each month, for good")
    verdict_days: int = Field(
        default=120, ge=60, description="So many days of check results in the lake; Dagster keeps its own for good"
    )
    event_years: int | None = Field(
        default=None,
        description="Events stay so many years, 2 to 7, and go with the month in which they become older; every day "
        "from start_date on unless given",
    )
    replay_days: int = Field(
        default=90, description="Days that Heap keeps replays, up to 365: `replay_lives(time)` in SQL of models says so"
    )

    @field_validator("event_years")
    @classmethod
    def _is_of_a_plan(cls, value: int | None) -> int | None:
        if value is not None and not _FEWEST_YEARS <= value <= _MOST_YEARS:
            raise ValueError(
                f"{_FEWEST_YEARS} to {_MOST_YEARS} years, as long as Heap keeps events by plan: a lake with fewer "
                "lacks what Heap shows, and one that keeps more holds what Heap has deleted"
            )
        return value

    @field_validator("replay_days")
    @classmethod
    def _is_within_a_year(cls, value: int) -> int:
        if not 1 <= value <= _MOST_REPLAY_DAYS:
            raise ValueError(
                f"1 to {_MOST_REPLAY_DAYS} days: Heap keeps replays for 90 days by default and a year at most, and a "
                "link to one that is gone leads nowhere"
            )
        return value

    def events_from(self, today: date) -> date | None:
        """Return the first day whose events are kept, None if all are: the first of a month, `event_years` ago.

        Months go as a whole: identities are resolved anew when days of events go, and that once a month.
        """
        return None if self.event_years is None else today.replace(year=today.year - self.event_years, day=1)


class RunSettings(Section):
    """Options of Dagster's runs, schedules and sensors."""

    executor: Literal["in_process", "multiprocess"] = Field(
        default="in_process", description="Steps of a run in the run's own process, or each in a process of its own"
    )
    automation: Literal["running", "stopped"] = Field(
        default="running", description="Whether sensors and schedules start by themselves"
    )
    days_per_run: int = Field(default=31, ge=1, description="Days of event tables that one backfill run takes")
    ui_url: str = Field(
        default_factory=lambda: os.environ.get(UI_VARIABLE, "http://localhost:3000"),
        description="Links in alerts and reports lead here; `heap-assets dev` knows its own",
    )
    warehouse_schedule: Cron = Field(default="30 2 * * *", description="When sources are read, cron in UTC")
    owner: Owner | None = Field(
        default=None,
        description="Owner of what `owners` does not name: an email address, or team:name. Unless given, heap_connect "
        "is team:engineering's, heap_events and heap_users team:product's, warehouse and sources team:revops', "
        "audiences and sync team:marketing's, and everything else team:data's",
    )
    owners: dict[str, Owners] = Field(
        default={},
        description="Owner, or a list of them, by asset (audit), pattern (heap/events/checkout_*) or group (sync): the "
        "first that fits",
    )
