"""The `checks:`, `alerts:` and `run:` sections: how the platform is watched and run."""

from __future__ import annotations

import os
from typing import Annotated, Literal

from pydantic import Field

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


class Keep(Section):
    """How long days of snapshot-sized tables stay in the lake: users, warehouse tables, identity, profiles.

    Event tables keep every day from `start_date`.
    """

    snapshot_days: int = Field(default=35, ge=8, description="So many days; the newest always")
    month_ends: bool = Field(default=True, description="The last day of each month, for good")
    verdict_days: int = Field(
        default=120, ge=60, description="So many days of check results in the lake; Dagster keeps its own for good"
    )


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
