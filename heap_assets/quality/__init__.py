"""Checks as data, the rules of each subject, stored results, and the numbers they compare with."""

from heap_assets.quality.audiences import checks_for_audiences
from heap_assets.quality.engine import Check, Judge, Subject, blocking_checks, record_check
from heap_assets.quality.heap_tables import checks_for_event_table, checks_for_migrations, checks_for_users
from heap_assets.quality.identity import SIZE_EDGES, checks_for_identity
from heap_assets.quality.landing import (
    CATALOGUE,
    QUOTA,
    TABLES_LANDED,
    checks_for_dumps,
    landed_verdict,
    news_verdict,
    quota_verdict,
)
from heap_assets.quality.profiles import WarehouseKeys, checks_for_profiles
from heap_assets.quality.recency import recency_checks
from heap_assets.quality.result_store import WHOLE, StoredVerdict
from heap_assets.quality.results import Severity, Verdict, could_not_judge, hashed, nothing_to_judge_by
from heap_assets.quality.sync import DELIVERED, checks_for_sync, delivery_recency_check, sync_verdicts
from heap_assets.quality.thresholds import Cadence, Thresholds
from heap_assets.quality.warehouse import checks_for_warehouse_table

__all__ = [
    "CATALOGUE",
    "DELIVERED",
    "QUOTA",
    "SIZE_EDGES",
    "TABLES_LANDED",
    "WHOLE",
    "Cadence",
    "Check",
    "Judge",
    "Severity",
    "StoredVerdict",
    "Subject",
    "Thresholds",
    "Verdict",
    "WarehouseKeys",
    "blocking_checks",
    "checks_for_audiences",
    "checks_for_dumps",
    "checks_for_event_table",
    "checks_for_identity",
    "checks_for_migrations",
    "checks_for_profiles",
    "checks_for_sync",
    "checks_for_users",
    "checks_for_warehouse_table",
    "could_not_judge",
    "delivery_recency_check",
    "hashed",
    "landed_verdict",
    "news_verdict",
    "nothing_to_judge_by",
    "quota_verdict",
    "recency_checks",
    "record_check",
    "sync_verdicts",
]
