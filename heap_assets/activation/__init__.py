"""Delivery to Heap, Segment and others: nothing lost, nothing sent twice, nothing on the wrong profile."""

from heap_assets.activation.connectors.base import BaseDestination, Destination, Limits, Rate, Request, Response, Row
from heap_assets.activation.connectors.heap_deletion import HeapDeletion
from heap_assets.activation.connectors.heap_events import HeapEvents
from heap_assets.activation.connectors.heap_identify import (
    STANDS_FOR,
    HeapIdentify,
    confirm_identified,
    identify_candidates,
    sent_pairs,
)
from heap_assets.activation.connectors.heap_properties import HOSTS as HEAP_HOSTS
from heap_assets.activation.connectors.heap_properties import HeapAccountProperties, HeapApp, HeapUserProperties
from heap_assets.activation.connectors.registry import custom_destination, registered
from heap_assets.activation.connectors.segment import HOSTS as SEGMENT_HOSTS
from heap_assets.activation.connectors.segment import (
    SegmentGroup,
    SegmentIdentify,
    SegmentReidentify,
    SegmentSource,
    SegmentTrack,
    anonymous_id,
    reidentify_rows,
    track_rows,
)
from heap_assets.activation.connectors.tracking_plan import TrackingPlan, Violation
from heap_assets.activation.connectors.webhook import Webhook, WebhookSettings
from heap_assets.activation.engine.accounts import all_ledgers, at_account, ledger_of
from heap_assets.activation.engine.addressing import Addressed, AddressPolicy, addressed, nobody, writable_identities
from heap_assets.activation.engine.deliver import deliver, dry_run
from heap_assets.activation.engine.events import EVENT_COLUMNS, KEY_COLUMNS, EventMapping, addressed_events, event_rows
from heap_assets.activation.engine.hashing import has_salt, hashed_key, hashed_keys, salt
from heap_assets.activation.engine.lease import LeaseHeldError, LeaseLostError
from heap_assets.activation.engine.log import Log, fold
from heap_assets.activation.engine.maintenance import forget, full_resend, keys_behind, rejected, retry_rejected
from heap_assets.activation.engine.report import Status, SyncReport
from heap_assets.activation.engine.sender import Progress
from heap_assets.activation.engine.spec import Guard, Mode, OnWithdrawn, Property, Retry, SyncSpec
from heap_assets.activation.engine.tables import changelog, runs, set_aside

__all__ = [
    "EVENT_COLUMNS",
    "HEAP_HOSTS",
    "KEY_COLUMNS",
    "SEGMENT_HOSTS",
    "STANDS_FOR",
    "AddressPolicy",
    "Addressed",
    "BaseDestination",
    "Destination",
    "EventMapping",
    "Guard",
    "HeapAccountProperties",
    "HeapApp",
    "HeapDeletion",
    "HeapEvents",
    "HeapIdentify",
    "HeapUserProperties",
    "LeaseHeldError",
    "LeaseLostError",
    "Limits",
    "Log",
    "Mode",
    "OnWithdrawn",
    "Progress",
    "Property",
    "Rate",
    "Request",
    "Response",
    "Retry",
    "Row",
    "SegmentGroup",
    "SegmentIdentify",
    "SegmentReidentify",
    "SegmentSource",
    "SegmentTrack",
    "Status",
    "SyncReport",
    "SyncSpec",
    "TrackingPlan",
    "Violation",
    "Webhook",
    "WebhookSettings",
    "addressed",
    "addressed_events",
    "all_ledgers",
    "anonymous_id",
    "at_account",
    "changelog",
    "confirm_identified",
    "custom_destination",
    "deliver",
    "dry_run",
    "event_rows",
    "fold",
    "forget",
    "full_resend",
    "has_salt",
    "hashed_key",
    "hashed_keys",
    "identify_candidates",
    "keys_behind",
    "ledger_of",
    "nobody",
    "registered",
    "reidentify_rows",
    "rejected",
    "retry_rejected",
    "runs",
    "salt",
    "sent_pairs",
    "set_aside",
    "track_rows",
    "writable_identities",
]
