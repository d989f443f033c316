"""Delivery to Heap, Segment and others: nothing lost, nothing sent twice, nothing on the wrong profile."""

from heap_assets.destinations.addressing import Addressed, AddressPolicy, addressed
from heap_assets.destinations.base import BaseDestination, Destination, Limits, Rate, Request, Response, Row
from heap_assets.destinations.deliver import deliver, dry_run
from heap_assets.destinations.heap import HeapAccountProperties, HeapApp, HeapUserProperties
from heap_assets.destinations.lease import LeaseHeldError, LeaseLostError
from heap_assets.destinations.log import Log, fold
from heap_assets.destinations.report import Status, SyncReport
from heap_assets.destinations.sender import Progress
from heap_assets.destinations.spec import Guard, Mode, OnWithdrawn, Property, Retry, SyncSpec

__all__ = [
    "AddressPolicy",
    "Addressed",
    "BaseDestination",
    "Destination",
    "Guard",
    "HeapAccountProperties",
    "HeapApp",
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
    "Status",
    "SyncReport",
    "SyncSpec",
    "addressed",
    "deliver",
    "dry_run",
    "fold",
]
