"""Alerts: messages, an outbox that is not lost, and channels."""

from heap_assets.alerts.channels import Channel, configured_channels
from heap_assets.alerts.message import DEFAULT_KINDS, MEANINGS, Alarm, Kind, Message
from heap_assets.alerts.outbox import Outbox

__all__ = ["DEFAULT_KINDS", "MEANINGS", "Alarm", "Channel", "Kind", "Message", "Outbox", "configured_channels"]
