"""Data quality: checks as data, the rules of each subject, stored results and the thresholds."""

from heap_assets.quality.analytics import checks_for_analytics
from heap_assets.quality.audiences import checks_for_audiences
from heap_assets.quality.consent import CONSENTED, consent_check, nobody_without_consent
from heap_assets.quality.decisions import IDLE_DECISIONS, checks_for_decisions, decisions_hold
from heap_assets.quality.dumps import (
    CATALOGUE,
    QUOTA,
    TABLES_LANDED,
    catalogue_result,
    checks_for_dumps,
    landing_result,
    quota_result,
)
from heap_assets.quality.engine import Check, CheckContext, Evaluate, add_stored, blocking_checks, record_check
from heap_assets.quality.functions import checks_for_function
from heap_assets.quality.heap_tables import (
    checks_for_event_table,
    checks_for_migrations,
    checks_for_users,
)
from heap_assets.quality.identity import SIZE_EDGES, checks_for_identity
from heap_assets.quality.inbox import (
    checks_for_folded_table,
    checks_for_message_table,
    coming_check,
    followed_check,
)
from heap_assets.quality.measures import unique_key_check
from heap_assets.quality.personal_data import personal_columns, sample_of
from heap_assets.quality.privacy_tables import checks_for_privacy
from heap_assets.quality.profiles import WarehouseKeys, checks_for_profiles, name_of_key_check
from heap_assets.quality.recency import recency_checks
from heap_assets.quality.result_store import ALL_PARTITIONS, StoredResult
from heap_assets.quality.results import CheckResult, Number, Severity, could_not_evaluate, hashed, nothing_to_compare
from heap_assets.quality.sync import (
    API_VERSION_LIVES,
    DELIVERED,
    NOTHING_LOST,
    api_version_check,
    api_version_lives,
    checks_for_sync,
    delivery_recency_check,
    nothing_lost,
    nothing_lost_check,
    sync_results,
)
from heap_assets.quality.thresholds import Cadence, Thresholds
from heap_assets.quality.unified import checks_for_unified_events
from heap_assets.quality.warehouse import checks_for_warehouse_table

__all__ = [
    "ALL_PARTITIONS",
    "API_VERSION_LIVES",
    "CATALOGUE",
    "CONSENTED",
    "DELIVERED",
    "IDLE_DECISIONS",
    "NOTHING_LOST",
    "QUOTA",
    "SIZE_EDGES",
    "TABLES_LANDED",
    "Cadence",
    "Check",
    "CheckContext",
    "CheckResult",
    "Evaluate",
    "Number",
    "Severity",
    "StoredResult",
    "Thresholds",
    "WarehouseKeys",
    "add_stored",
    "api_version_check",
    "api_version_lives",
    "blocking_checks",
    "catalogue_result",
    "checks_for_analytics",
    "checks_for_audiences",
    "checks_for_decisions",
    "checks_for_dumps",
    "checks_for_event_table",
    "checks_for_folded_table",
    "checks_for_function",
    "checks_for_identity",
    "checks_for_message_table",
    "checks_for_migrations",
    "checks_for_privacy",
    "checks_for_profiles",
    "checks_for_sync",
    "checks_for_unified_events",
    "checks_for_users",
    "checks_for_warehouse_table",
    "coming_check",
    "consent_check",
    "could_not_evaluate",
    "decisions_hold",
    "delivery_recency_check",
    "followed_check",
    "hashed",
    "landing_result",
    "name_of_key_check",
    "nobody_without_consent",
    "nothing_lost",
    "nothing_lost_check",
    "nothing_to_compare",
    "personal_columns",
    "quota_result",
    "recency_checks",
    "record_check",
    "sample_of",
    "sync_results",
    "unique_key_check",
]
