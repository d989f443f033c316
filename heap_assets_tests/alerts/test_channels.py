"""What arrives at a webhook, at Slack and by mail, and what is said when nothing does."""

import email
import hashlib
import hmac
from dataclasses import replace

import pytest
from alert_receivers import http_receiver, smtp_receiver

from heap_assets.alerts.channels import EmailChannel, SlackChannel, WebhookChannel, send
from heap_assets.alerts.message import Alarm, Kind, Message
from heap_assets.errors import DeliveryError, SettingsError

FAILED = Alarm(
    Kind.CHECK_FAILED,
    "profiles",
    "one_profile_per_identity",
    rule="No Heap identity stands on two profiles.",
    partition="2026-11-01",
    group="profiles",
    blocking=True,
    numbers={"identities_on_several_profiles": 3},
)
WARNED = replace(FAILED, kind=Kind.CHECK_WARNED, subject="heap/sessions", about="volume", group="heap", blocking=False)
MESSAGE = Message("Run abc finished", (WARNED, FAILED), link="http://localhost:3000/runs/abc", run_id="abc")


def test_a_webhook_gets_signed_json_that_the_receiver_can_verify() -> None:
    with http_receiver() as inbox:
        send(WebhookChannel(url=inbox.url, secret_env="HOOK_SECRET"), MESSAGE, {"HOOK_SECRET": "s3cret"})
    [body], [headers] = inbox.bodies, inbox.headers
    signed = headers["X-Heap-Assets-Timestamp"].encode() + b"." + body
    expected = hmac.new(b"s3cret", signed, hashlib.sha256).hexdigest()
    assert headers["X-Heap-Assets-Signature"] == f"sha256={expected}"
    [told] = inbox.json()
    assert told["link"] == "http://localhost:3000/runs/abc"
    assert Message.from_json(told).alarms == MESSAGE.alarms


def test_slack_gets_the_worst_first_with_link_rule_partition_and_counts() -> None:
    with http_receiver() as inbox:
        send(SlackChannel(url_env="SLACK"), MESSAGE, {"SLACK": inbox.url})
    text = str(inbox.json()[0]["text"])
    assert text.index("one_profile_per_identity") < text.index("volume")
    for part in ("runs/abc", "No Heap identity stands on two profiles.", "2026-11-01", "several profiles 3"):
        assert part in text


def test_a_mail_arrives() -> None:
    with smtp_receiver() as inbox:
        channel = EmailChannel(
            host="127.0.0.1", port=inbox.port, sender="heap@acme.test", recipients=("a@acme.test",), starttls=False
        )
        send(channel, MESSAGE, {})
    mail = email.message_from_bytes(inbox.bodies[0])
    assert mail["Subject"] == "[heap_assets] Run abc finished: 2 to look at"
    assert "runs/abc" in mail.get_payload()


def test_a_channel_hears_only_its_kinds_and_groups() -> None:
    def about(channel: WebhookChannel) -> list[str]:
        selected = channel.select(MESSAGE)
        return [alarm.about for alarm in selected.alarms] if selected else []

    assert about(WebhookChannel(url="x", on=(Kind.CHECK_WARNED,))) == ["volume"]
    assert about(WebhookChannel(url="x", groups=("profiles",))) == ["one_profile_per_identity"]
    assert about(WebhookChannel(url="x", on=(Kind.STALE,))) == []


@pytest.mark.parametrize("status", [302, 400, 500])
def test_a_refusal_names_the_channel_and_not_its_address(status: int) -> None:
    with http_receiver() as inbox:
        inbox.status = status
        with pytest.raises(DeliveryError, match=f"HTTP {status}") as refused:
            send(SlackChannel(url=inbox.url, name="ops"), MESSAGE, {})
    assert "ops" in str(refused.value)
    assert inbox.url not in str(refused.value)


def test_a_dead_address_is_a_delivery_error() -> None:
    with http_receiver() as inbox:
        url = inbox.url
    with pytest.raises(DeliveryError, match="could not be reached"):
        send(WebhookChannel(url=url), MESSAGE, {})


def test_a_missing_secret_names_its_variable() -> None:
    with pytest.raises(SettingsError, match="HOOK_SECRET"):
        send(WebhookChannel(url="http://127.0.0.1:9", secret_env="HOOK_SECRET"), MESSAGE, {})


def test_a_password_is_never_sent_without_tls() -> None:
    with pytest.raises(SettingsError, match="without TLS"):
        EmailChannel(host="h", sender="a", recipients=("b",), starttls=False, user_env="U", password_env="P")
