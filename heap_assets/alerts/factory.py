"""The alert channels of the settings."""

from __future__ import annotations

from collections.abc import Sequence

from heap_assets.alerts.channels import Channel, EmailChannel, SlackChannel, WebhookChannel
from heap_assets.alerts.message import Kind
from heap_assets.config import Alert
from heap_assets.errors import SettingsError


def configured_channels(alerts: Sequence[Alert]) -> list[Channel]:
    """Return the channels that alerts go to."""
    return [_channel(alert, f"alerts[{index}]") for index, alert in enumerate(alerts)]


def _channel(alert: Alert, where: str) -> Channel:
    on = tuple(Kind(kind) for kind in alert.on)
    groups = tuple(alert.groups)
    if alert.kind == "webhook":
        if not (alert.url or alert.url_env):
            raise SettingsError(f"{where} is a webhook without url or url_env: where should it go?")
        return WebhookChannel(
            url=alert.url, url_env=alert.url_env, secret_env=alert.secret_env, on=on, groups=groups, name=alert.name
        )
    if alert.kind == "slack":
        return SlackChannel(
            url=alert.url, url_env=alert.url_env or "SLACK_WEBHOOK_URL", on=on, groups=groups, name=alert.name
        )
    if not (alert.host and alert.recipients):
        raise SettingsError(f"{where} is an email without host or recipients")
    return EmailChannel(
        host=alert.host,
        port=alert.port,
        sender=alert.sender,
        recipients=tuple(alert.recipients),
        starttls=alert.starttls,
        user_env=alert.user_env,
        password_env=alert.password_env,
        on=on,
        groups=groups,
        name=alert.name,
    )
