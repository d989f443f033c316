"""Delivery to Heap, Segment and others: nothing lost, nothing sent twice, nothing on the wrong profile."""

from heap_assets.destinations.accounts import all_ledgers, at_account, ledger_of
from heap_assets.destinations.addressing import Addressed, AddressPolicy, addressed, nobody, writable_identities
from heap_assets.destinations.base import BaseDestination, Destination, Limits, Rate, Request, Response, Row
from heap_assets.destinations.deliver import deliver, dry_run
from heap_assets.destinations.events import EVENT_COLUMNS, KEY_COLUMNS, EventMapping, addressed_events, event_rows
from heap_assets.destinations.hashing import has_salt, hashed_key, hashed_keys, salt
from heap_assets.destinations.heap import HOSTS as HEAP_HOSTS
from heap_assets.destinations.heap import HeapAccountProperties, HeapApp, HeapUserProperties
from heap_assets.destinations.heap_deletion import HeapDeletion
from heap_assets.destinations.heap_events import HeapEvents
from heap_assets.destinations.heap_identify import (
    STANDS_FOR,
    HeapIdentify,
    confirm_identified,
    identify_candidates,
    sent_pairs,
)
from heap_assets.destinations.lease import LeaseHeldError, LeaseLostError
from heap_assets.destinations.log import Log, fold
from heap_assets.destinations.registry import custom_destination, registered
from heap_assets.destinations.report import Status, SyncReport
from heap_assets.destinations.segment import HOSTS as SEGMENT_HOSTS
from heap_assets.destinations.segment import (
    SegmentGroup,
    SegmentIdentify,
    SegmentReidentify,
    SegmentSource,
    SegmentTrack,
    anonymous_id,
    reidentify_rows,
    track_rows,
)
from heap_assets.destinations.sender import Progress
from heap_assets.destinations.spec import Guard, Mode, OnWithdrawn, Property, Retry, SyncSpec
from heap_assets.destinations.tables import changelog, runs, set_aside
from heap_assets.destinations.tracking_plan import TrackingPlan, Violation
from heap_assets.destinations.upkeep import forget, full_resend, keys_behind, rejected, retry_rejected
from heap_assets.destinations.webhook import Webhook, WebhookSettings

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
