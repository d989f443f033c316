"""The `checks:`, `alerts:` and `run:` sections: how the platform is watched and run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr

from heap_assets.settings.base import Section


class Alert(Section):
    """Where to tell what."""

    kind: Literal["webhook", "slack", "email"]
    url: str | None = Field(default=None, description="Webhook or Slack address, as ${ALERT_WEBHOOK_URL}")
    secret: SecretStr | None = Field(default=None, description="Signs a webhook's body")
    smtp_host: str | None = None
    smtp_port: int = 25
    smtp_user: str | None = None
    smtp_password: SecretStr | None = None
    sender: str = "heap_assets@localhost"
    recipients: list[str] = []
    on: list[Literal["check_failed", "check_warned", "run_failed", "stale"]] = ["check_failed", "run_failed", "stale"]
    groups: list[str] = Field(default=[], description="Asset groups; all unless given")


class RunSettings(Section):
    """How Dagster runs things."""

    executor: Literal["in_process", "multiprocess"] = "in_process"
    automation: Literal["running", "stopped"] = Field(
        default="running", description="Whether sensors and schedules start by themselves"
    )
    days_per_run: int = Field(default=31, ge=1, description="Days of event tables that one backfill run takes")
    ui_url: str = Field(default="http://localhost:3000", description="Links in alerts and reports lead here")
    warehouse_schedule: str = "30 2 * * *"
    owner: str = "team:data-eng"
