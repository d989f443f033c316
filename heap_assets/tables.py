"""The asset paths of the lake's tables, in the order of the pipeline."""

import hashlib
import re
import unicodedata

LANDING = "heap_connect/"
HEAP = "heap/"
EVENTS = "heap/events/"
WAREHOUSE = "warehouse/"
IDENTITY = "identity/"
SIGNALS = "signals/"
ANALYTICS = "analytics/"
MODELS = "models/"
SYNCS = "sync/"
REVERSE_ETL = "reverse_etl/"
REPORTS = "reports/"
LABELS = "labels/"
INBOX = "inbox/"
"""What the paths of a group of assets start with."""

WAREHOUSE_SOURCE = "warehouse"
"""The name of the source that `warehouse:` is."""
RESERVED_SOURCES = frozenset(
    {
        *("accounts", "analytics", "audiences", "audit", "events", "functions", "identity", "inbox", "live"),
        *("models", "privacy", "profiles", "publish", "reverse_etl", "signals", "status", "sync", "the_warehouse"),
        *("labels", "reports", "unified_events", "users", WAREHOUSE_SOURCE),
        *("information_schema", "latest", "main", "pg_catalog", "resolved", "system", "temp"),
    }
)
"""Names that no other source may have, nor one that begins with heap or publish__: of our own tables, a job, schemas in
SQL."""

DUMPS = "heap_connect/dumps"
LANDED = "heap_connect/landed"
EXPORTS = "heap_connect/exports"
USERS = "heap/users"
SESSIONS = "heap/sessions"
PAGEVIEWS = "heap/pageviews"
MIGRATIONS = "heap/user_migrations"
LINKS = "identity/links"
GRAPH = "identity/graph"
CONFLICTS = "identity/conflicts"
SHARED = "identity/shared"
CHANGES = "identity/changes"
REVIEW = "identity/review"
RESOLVED = (LINKS, GRAPH, CONFLICTS, SHARED, CHANGES)
"""What one resolution of a day makes."""

PROFILES = "profiles"
AUDIENCES = "audiences"
PROFILE_COLUMNS = (
    "profile_id",
    "first_seen",
    "last_seen",
    "identifiers",
    "heap_identity",
    "heap_identities",
    "heap_user_ids",
    "conflicts",
)
"""Columns that every profiles table has, besides those that the settings name."""
BEHAVIOUR_COLUMNS = ("session_count", "active_days", "last_active", "engagement_score", "lifecycle_stage")
"""Columns that `profiles.behaviour` adds to profiles, besides one per feature."""
TREND_COLUMNS = ("sessions_per_week", "trend", "features_used")
TOP_PAGES_COLUMN = "top_pages"
"""Those that it adds on request."""
ACCOUNT_PROFILES = "accounts/profiles"
ACCOUNT_AUDIENCES = "accounts/audiences"
ACCOUNT_COLUMNS = ("account", "people", "active_people")
"""Columns that every table of accounts has, besides those that the settings name."""
AUDIT = "audit"
UNIFIED_EVENTS = "unified_events"
STATUS_REPORT = "status/report"
ERASURES = "privacy/erasures"
SHARED_WITH = "privacy/shared_with"
FINDINGS = "privacy/findings"
KEYS = "privacy/keys"
RETENTION = "privacy/retention"

INBOX_MESSAGES = ("track", "identify", "group", "page", "screen", "alias", "delete")
"""Tables of the inbox, by the type of the message (destinations_b.md 4.2); each webhook source has one besides."""
_OF_PEOPLE = ("identify", "group", "alias", "delete")
INBOX_USERS = "inbox/users"
INBOX_ACCOUNTS = "inbox/accounts"
INBOX_COLUMNS = (
    "message_id",
    "time",
    "received_at",
    "source",
    "user_id",
    "anonymous_id",
    "previous_id",
    "group_id",
    "event",
    "name",
    "category",
    "sent_by",
    "body",
)
"""Columns that every table of messages has, besides those that the settings name."""

SNAPSHOT_TABLES = ("users", "user_migrations")
_ORDINARY = re.compile(r"[a-z0-9_]{1,100}")
_SOURCE = re.compile(r"(?!heap|publish__)[a-z][a-z0-9_]*")
_LONGEST_WORDS = 80
_WITHOUT_EVENTS_PREFIX = ("sessions", "pageviews", *SNAPSHOT_TABLES)


def heap_asset(table: str) -> str:
    """Return the lake asset of a Heap table: `heap/sessions`, `heap/users`, `heap/events/<key of the table>`."""
    return f"{HEAP}{table}" if table in _WITHOUT_EVENTS_PREFIX else f"{EVENTS}{event_key(table)}"


def event_key(table: str) -> str:
    """Return the last part of an event table's asset key.

    A name of lower-case letters, digits and `_`, as Heap makes them, stays. Of any other name the letters and digits
    that Dagster can hold stay, and a hash of the whole name tells it from others.

    >>> event_key("sign_up"), event_key("Sign-Up"), event_key("anmeldung_größe")
    ('sign_up', 'sign_up_a821364b', 'anmeldung_groe_b99deb0f')
    """
    if _ORDINARY.fullmatch(table):
        return table
    plain = unicodedata.normalize("NFKD", table).encode("ascii", "ignore").decode().lower()
    words = "_".join(re.findall(r"[a-z0-9]+", plain))[:_LONGEST_WORDS]
    digest = hashlib.sha256(table.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{words or 'event'}_{digest}"


def warehouse_asset(table: str) -> str:
    """Return the lake asset of a table of a source, by the name that settings refer to it by.

    >>> warehouse_asset("contacts"), warehouse_asset("crm/contacts")
    ('warehouse/contacts', 'crm/contacts')
    """
    return table if "/" in table else f"{WAREHOUSE}{table}"


def sync_asset(name: str) -> str:
    """Return the asset of a sync."""
    return f"{SYNCS}{name}"


def inbox_asset(table: str) -> str:
    """Return the lake asset of a table of messages.

    >>> inbox_asset("track")
    'inbox/track'
    """
    return f"{INBOX}{table}"


def event_asset(name: str) -> str:
    """Return the lake asset of events by the name that definitions use: of Heap's table, of messages, or a model.

    >>> event_asset("sign_up"), event_asset("inbox/track"), event_asset("inbox/track/Order Paid")
    ('heap/events/sign_up', 'inbox/track', 'inbox/track')
    """
    if is_model(name):
        return name
    return "/".join(name.split("/", 2)[:2]) if is_inbox_table(name) else heap_asset(name)


def signal_asset(name: str) -> str:
    """Return the asset of a signal's firings."""
    return f"{SIGNALS}{name}"


def is_heap_event(name: str) -> bool:
    """Return whether the name of an event is one of Heap's: not of messages, of a model or of a signal."""
    return not (is_inbox_table(name) or is_model(name) or is_signal(name))


def is_signal(asset: str) -> bool:
    """Return whether an asset holds the firings of a signal."""
    return asset.startswith(SIGNALS)


def analytics_asset(name: str) -> str:
    """Return the asset of an analytics result."""
    return f"{ANALYTICS}{name}"


def is_analytics(asset: str) -> bool:
    """Return whether an asset is an analytics result."""
    return asset.startswith(ANALYTICS)


def model_asset(name: str) -> str:
    """Return the asset of a model."""
    return f"{MODELS}{name}"


def is_model(asset: str) -> bool:
    """Return whether an asset is a model."""
    return asset.startswith(MODELS)


def report_asset(name: str) -> str:
    """Return the asset of a report's results."""
    return f"{REPORTS}{name}"


def labels_asset(environment: str) -> str:
    """Return the asset of the labels of an environment."""
    return f"{LABELS}{environment}"


def publish_asset(target: str, table: str) -> str:
    """Return the asset of a table published to a target."""
    return f"publish/{target}/{table}"


def reverse_etl_asset(name: str) -> str:
    """Return the asset of a sync of Hightouch or Census."""
    return f"{REVERSE_ETL}{name}"


def is_heap_table(asset: str) -> bool:
    """Return whether an asset is a table of Heap, snapshots included."""
    return asset.startswith(HEAP)


def is_event_table(asset: str) -> bool:
    """Return whether an asset is an event table of Heap other than sessions and pageviews."""
    return asset.startswith(EVENTS)


def is_kept_for_years(asset: str) -> bool:
    """Return whether an asset holds events, which `keep.event_years` is about, and not what says who people are.

    >>> is_kept_for_years("heap/sessions"), is_kept_for_years("heap/users"), is_kept_for_years("inbox/identify")
    (True, False, False)
    """
    if is_inbox_table(asset):
        return asset not in (INBOX_USERS, INBOX_ACCOUNTS, *map(inbox_asset, _OF_PEOPLE))
    if is_heap_table(asset):
        return asset not in (USERS, MIGRATIONS)
    return is_signal(asset) or asset == UNIFIED_EVENTS


def is_inbox_table(asset: str) -> bool:
    """Return whether an asset is a table of the inbox, those folded from messages included."""
    return asset.startswith(INBOX)


def is_warehouse_table(asset: str) -> bool:
    """Return whether an asset is a table of the warehouse or of another source."""
    source, slash, _ = asset.partition("/")
    return asset.startswith(WAREHOUSE) or (bool(slash) and is_source_name(source))


def is_sync(asset: str) -> bool:
    """Return whether an asset is a sync."""
    return asset.startswith(SYNCS)


def warehouse_table(asset: str) -> str:
    """Return the name that settings refer to a table of a source by, see :func:`warehouse_asset`."""
    return asset.removeprefix(WAREHOUSE)


def source_of(asset: str) -> str:
    """Return the name of the source that a table is read from.

    >>> source_of("warehouse/contacts"), source_of("crm/contacts")
    ('warehouse', 'crm')
    """
    return asset.partition("/")[0]


def source_title(source: str) -> str:
    """Return what messages call a source."""
    return "the warehouse" if source == WAREHOUSE_SOURCE else f"the source {source}"


def is_source_name(name: str) -> bool:
    """Return whether a source beside the warehouse may have a name."""
    return bool(_SOURCE.fullmatch(name)) and name not in RESERVED_SOURCES


def sync_name(asset: str) -> str:
    """Return the name that the settings give a sync."""
    return asset.removeprefix(SYNCS)
