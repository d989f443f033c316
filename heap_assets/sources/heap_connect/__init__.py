"""Heap Connect's dumps, from a bucket or a folder into typed tables by day."""

from heap_assets.sources.heap_connect.avro_container import Limits
from heap_assets.sources.heap_connect.catalogue import (
    Catalogue,
    Missing,
    landed_columns,
    plain_columns,
)
from heap_assets.sources.heap_connect.columns import built_in_columns
from heap_assets.sources.heap_connect.config import (
    OWN_COLUMNS,
    USER_MIGRATIONS,
    USERS,
    LandingConfig,
    Selection,
    keys_of,
)
from heap_assets.sources.heap_connect.discover import PreflightCheck, discover, first_day, preflight
from heap_assets.sources.heap_connect.erasing import LandedPart, landed_parts, rewrite_part
from heap_assets.sources.heap_connect.expiring import ExpiredRows, expired_rows, forget_before
from heap_assets.sources.heap_connect.files import FilesSource, FileTable
from heap_assets.sources.heap_connect.landing import Landing
from heap_assets.sources.heap_connect.manifest import ManifestError, parse_manifest
from heap_assets.sources.heap_connect.quota import FASTEST, Plan, Quota, QuotaStatus, quota, usage
from heap_assets.sources.heap_connect.records import Counts, DumpRecord, Failure, TableState
from heap_assets.sources.heap_connect.reports import DumpReport, files_in_quarantine, rows_set_aside
from heap_assets.sources.heap_connect.s3_client import (
    S3Access,
    caller_of,
    check_bucket,
    read_policy,
    role_arn,
    s3_client,
    trust_policy,
)
from heap_assets.sources.heap_connect.snapshots import (
    MIGRATIONS_SCHEMA,
    OWN_MARK,
    OWN_VALUE,
    build_user_migrations,
    build_users,
    resolved,
    resynced_users,
    without_own,
)
from heap_assets.sources.heap_connect.sources import DumpSource, FolderSource, ManifestFile, S3Source
from heap_assets.sources.heap_connect.tables import build_event_day
from heap_assets.sources.heap_connect.values import key_dtype, read_times

__all__ = [
    "FASTEST",
    "MIGRATIONS_SCHEMA",
    "OWN_COLUMNS",
    "OWN_MARK",
    "OWN_VALUE",
    "USERS",
    "USER_MIGRATIONS",
    "Catalogue",
    "Counts",
    "DumpRecord",
    "DumpReport",
    "DumpSource",
    "ExpiredRows",
    "Failure",
    "FileTable",
    "FilesSource",
    "FolderSource",
    "LandedPart",
    "Landing",
    "LandingConfig",
    "Limits",
    "ManifestError",
    "ManifestFile",
    "Missing",
    "Plan",
    "PreflightCheck",
    "Quota",
    "QuotaStatus",
    "S3Access",
    "S3Source",
    "Selection",
    "TableState",
    "build_event_day",
    "build_user_migrations",
    "build_users",
    "built_in_columns",
    "caller_of",
    "check_bucket",
    "discover",
    "expired_rows",
    "files_in_quarantine",
    "first_day",
    "forget_before",
    "key_dtype",
    "keys_of",
    "landed_columns",
    "landed_parts",
    "parse_manifest",
    "plain_columns",
    "preflight",
    "quota",
    "read_policy",
    "read_times",
    "resolved",
    "resynced_users",
    "rewrite_part",
    "role_arn",
    "rows_set_aside",
    "s3_client",
    "trust_policy",
    "usage",
    "without_own",
]
