"""Delivery to Heap, Segment and others: nothing lost, nothing sent twice, nothing on the wrong profile."""

from heap_assets.activation.connectors.base import Connector, Deployment, Requirement, Rows
from heap_assets.activation.connectors.consent import covers, newest_profiles_day
from heap_assets.activation.connectors.deletion import Deleted, Deletion
from heap_assets.activation.connectors.heap_deletion import deletion_of_heap, heap_deletion
from heap_assets.activation.connectors.inputs import GenericConnector, GenericSettings
from heap_assets.activation.connectors.reading import DELETED, ApiSettings, ReadSettings, frame_of
from heap_assets.activation.connectors.registry import built_in_kinds, connector_of, connectors, read_kinds, sync_kinds
from heap_assets.activation.connectors.rows import newest_users
from heap_assets.activation.engine.addressing import Addressed, AddressPolicy
from heap_assets.activation.engine.api import Api
from heap_assets.activation.engine.auth import (
    ApiKey,
    Auth,
    Basic,
    Bearer,
    ClientCredentials,
    JwtBearer,
    OAuth,
    RefreshToken,
)
from heap_assets.activation.engine.auth_google import ServiceAccount
from heap_assets.activation.engine.deliver import deliver, dry_run
from heap_assets.activation.engine.destination import BaseDestination, Dedupe, Destination, Row, Service
from heap_assets.activation.engine.exchange import LATER, Exchange, Remember, Request, Wait
from heap_assets.activation.engine.hashing import has_salt, hashed_key, hashed_keys, salt
from heap_assets.activation.engine.inquiry import planned_for, values_of
from heap_assets.activation.engine.lease import LeaseHeldError
from heap_assets.activation.engine.limits import Hint, Limits, Quota, Rate
from heap_assets.activation.engine.live import LiveSender, live_run_id
from heap_assets.activation.engine.log import Log, fold
from heap_assets.activation.engine.maintenance import (
    forget,
    forget_all,
    full_resend,
    keys_behind,
    keys_of_people,
    rejected,
    retry_rejected,
)
from heap_assets.activation.engine.report import Progress, Status, SyncReport
from heap_assets.activation.engine.selection import addressed
from heap_assets.activation.engine.spec import Guard, Mode, OnWithdrawn, Property, Retry, SyncSpec
from heap_assets.activation.engine.tables import changelog, changelog_since, runs, set_aside
from heap_assets.activation.engine.value_rules import NORMALISERS, Recipe, ValueRules
from heap_assets.activation.engine.verdict import Response, RowVerdict, Trouble, Verdict, retry_after, row_errors
from heap_assets.activation.reverse_etl import ToolRun, ToolRunner, tool_of
from heap_assets.sources.warehouse import Permission

__all__ = [
    "DELETED",
    "LATER",
    "NORMALISERS",
    "AddressPolicy",
    "Addressed",
    "Api",
    "ApiKey",
    "ApiSettings",
    "Auth",
    "BaseDestination",
    "Basic",
    "Bearer",
    "ClientCredentials",
    "Connector",
    "Dedupe",
    "Deleted",
    "Deletion",
    "Deployment",
    "Destination",
    "Exchange",
    "GenericConnector",
    "GenericSettings",
    "Guard",
    "Hint",
    "JwtBearer",
    "LeaseHeldError",
    "Limits",
    "LiveSender",
    "Log",
    "Mode",
    "OAuth",
    "OnWithdrawn",
    "Permission",
    "Progress",
    "Property",
    "Quota",
    "Rate",
    "ReadSettings",
    "Recipe",
    "RefreshToken",
    "Remember",
    "Request",
    "Requirement",
    "Response",
    "Retry",
    "Row",
    "RowVerdict",
    "Rows",
    "Service",
    "ServiceAccount",
    "Status",
    "SyncReport",
    "SyncSpec",
    "ToolRun",
    "ToolRunner",
    "Trouble",
    "ValueRules",
    "Verdict",
    "Wait",
    "addressed",
    "built_in_kinds",
    "changelog",
    "changelog_since",
    "connector_of",
    "connectors",
    "covers",
    "deletion_of_heap",
    "deliver",
    "dry_run",
    "fold",
    "forget",
    "forget_all",
    "frame_of",
    "full_resend",
    "has_salt",
    "hashed_key",
    "hashed_keys",
    "heap_deletion",
    "keys_behind",
    "keys_of_people",
    "live_run_id",
    "newest_profiles_day",
    "newest_users",
    "planned_for",
    "read_kinds",
    "rejected",
    "retry_after",
    "retry_rejected",
    "row_errors",
    "runs",
    "salt",
    "set_aside",
    "sync_kinds",
    "tool_of",
    "values_of",
]
