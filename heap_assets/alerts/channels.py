"""Channels of alerts: a signed webhook, Slack, email.

Settings name the environment variables of secrets, which are read when a message is sent.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from email.message import EmailMessage
from time import time
from typing import Any

from heap_assets.alerts.message import DEFAULT_KINDS, Kind, Message
from heap_assets.config import Alert
from heap_assets.errors import DeliveryError, SettingsError
from heap_assets.http_client import ANYWHERE, AllowedHosts, HttpClient, NoAnswer
from heap_assets.mail import MailServer, send_mail

_TIMEOUT_SECONDS = 10.0
_SLACK_LIMIT = 3500  # characters; Slack cuts a text at 4,000


@dataclass(frozen=True, kw_only=True)
class Route:
    """The alarms a channel subscribes to: kinds, and asset groups (all if none is named)."""

    on: tuple[Kind, ...] = DEFAULT_KINDS
    groups: tuple[str, ...] = ()
    name: str = ""

    def select(self, message: Message) -> Message | None:
        """Return the part of a message that the channel subscribes to, None if there is none."""
        alarms = tuple(
            alarm
            for alarm in message.alarms
            if alarm.kind in self.on and (not self.groups or not alarm.group or alarm.group in self.groups)
        )
        return replace(message, alarms=alarms) if alarms else None


@dataclass(frozen=True, kw_only=True)
class WebhookChannel(Route):
    """POST of JSON; `url` may hold an address or `url_env` the name of a variable that does.

    With `secret_env`, `X-Heap-Assets-Signature: sha256=<hex>` is the HMAC-SHA256 of `<timestamp>.<body>`, where the
    timestamp is that of `X-Heap-Assets-Timestamp`, so that a recorded request cannot be replayed later.
    """

    url: str = ""
    url_env: str = ""
    secret_env: str = ""


@dataclass(frozen=True, kw_only=True)
class SlackChannel(Route):
    """A Slack incoming webhook; its address is a secret, so only the variable's name is kept."""

    url: str = ""
    url_env: str = "SLACK_WEBHOOK_URL"


@dataclass(frozen=True, kw_only=True)
class EmailChannel(Route):
    """Plain text through an SMTP server; with `user_env` and `password_env` it logs in, over TLS only."""

    host: str
    port: int = 587
    sender: str
    recipients: tuple[str, ...]
    starttls: bool = True
    user_env: str = ""
    password_env: str = ""

    def __post_init__(self) -> None:
        if self.user_env and not self.starttls:
            raise SettingsError(f"alert channel {self.host}:{self.port} would log in without TLS: set starttls")


Channel = WebhookChannel | SlackChannel | EmailChannel


def channel_name(channel: Channel) -> str:
    """Return a name that tells channels apart and holds no secret."""
    if channel.name:
        return channel.name
    if isinstance(channel, EmailChannel):
        address = f"{channel.host}:{channel.port}:{','.join(channel.recipients)}"
    else:
        address = channel.url_env or channel.url
    kind = type(channel).__name__.removesuffix("Channel").lower()
    return f"{kind}-{hashlib.sha256(address.encode()).hexdigest()[:8]}"


def send(channel: Channel, message: Message, environ: Mapping[str, str], allowed: AllowedHosts = ANYWHERE) -> None:
    """Send one message through one channel.

    Raises
    ------
    DeliveryError
        If it was not accepted; the text names the channel and the reason, never its address.
    SettingsError
        If a variable that the channel names is not set.
    """
    match channel:
        case WebhookChannel():
            _post(channel_name(channel), _address(channel, environ), *_signed(channel, message, environ), allowed)
        case SlackChannel():
            body = json.dumps({"text": message.as_text()[:_SLACK_LIMIT]}).encode()
            _post(
                channel_name(channel), _address(channel, environ), body, {"Content-Type": "application/json"}, allowed
            )
        case EmailChannel():
            _mail(channel, message, environ, allowed)


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """Return what a receiver compares `X-Heap-Assets-Signature` with."""
    return "sha256=" + hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()


def _signed(channel: WebhookChannel, message: Message, environ: Mapping[str, str]) -> tuple[bytes, dict[str, str]]:
    body = json.dumps(message.as_json()).encode()
    timestamp = str(int(time()))
    headers = {
        "Content-Type": "application/json",
        "X-Heap-Assets-Message": message.id,
        "X-Heap-Assets-Timestamp": timestamp,
    }
    if channel.secret_env:
        secret = _variable(environ, channel.secret_env, channel_name(channel))
        headers["X-Heap-Assets-Signature"] = signature(secret, timestamp, body)
    return body, headers


def _post(name: str, url: str, body: bytes, headers: Mapping[str, str], allowed: AllowedHosts) -> None:
    client = HttpClient(allowed=allowed)
    try:
        answer = client.exchange("POST", url, body, headers, _TIMEOUT_SECONDS)
    finally:
        client.close()
    if isinstance(answer, NoAnswer):
        raise DeliveryError(f"alert channel {name} could not be reached: {answer.reason}")
    if not 200 <= answer.status < 300:
        raise DeliveryError(f"alert channel {name} answered HTTP {answer.status}")


def _mail(channel: EmailChannel, message: Message, environ: Mapping[str, str], allowed: AllowedHosts) -> None:
    name = channel_name(channel)
    login = (
        (_variable(environ, channel.user_env, name), _variable(environ, channel.password_env, name))
        if channel.user_env
        else None
    )
    mail = EmailMessage()
    mail["Subject"] = " ".join(f"[heap_assets] {message.headline}".split())[:200]
    mail["From"] = channel.sender
    mail["To"] = ", ".join(channel.recipients)
    mail["X-Heap-Assets-Message"] = message.id
    mail.set_content(message.as_text())
    server = MailServer(channel.host, channel.port, channel.starttls, login)
    send_mail(server, mail, allowed, f"alert channel {name}")


def _address(channel: WebhookChannel | SlackChannel, environ: Mapping[str, str]) -> str:
    return channel.url or _variable(environ, channel.url_env, channel_name(channel))


def _variable(environ: Mapping[str, str], variable: str, name: str) -> str:
    try:
        return environ[variable]
    except KeyError:
        raise SettingsError(f"alert channel {name} needs the environment variable {variable!r}: set it") from None


def configured_channels(alerts: Sequence[Alert]) -> list[Channel]:
    """Return the channels that alerts go to."""
    return [_channel(alert, f"alerts[{index}]") for index, alert in enumerate(alerts)]


def _channel(alert: Alert, where: str) -> Channel:
    route: dict[str, Any] = {
        "on": tuple(Kind(kind) for kind in alert.on),
        "groups": tuple(alert.groups),
        "name": alert.name,
    }
    if alert.kind == "webhook":
        if not (alert.url or alert.url_env):
            raise SettingsError(f"{where} is a webhook without url or url_env: where should it go?")
        return WebhookChannel(url=alert.url, url_env=alert.url_env, secret_env=alert.secret_env, **route)
    if alert.kind == "slack":
        return SlackChannel(url=alert.url, url_env=alert.url_env or "SLACK_WEBHOOK_URL", **route)
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
        **route,
    )
