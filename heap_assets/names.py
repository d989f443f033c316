"""What each table of the lake is called, in the order of the pipeline."""

DUMPS = "heap_connect/dumps"
LANDED = "heap_connect/landed"
EXPORTS = "heap_connect/exports"
USERS = "heap/users"
MIGRATIONS = "heap/user_migrations"
LINKS = "identity/links"
GRAPH = "identity/graph"
CONFLICTS = "identity/conflicts"
SHARED = "identity/shared"
CHANGES = "identity/changes"
PROFILES = "profiles"
AUDIENCES = "audiences"
AUDIT = "audit"

SNAPSHOT_TABLES = ("users", "user_migrations")
_WITHOUT_EVENTS_PREFIX = ("sessions", "pageviews", *SNAPSHOT_TABLES)


def heap_asset(table: str) -> str:
    """Return the lake asset of a Heap table: `heap/sessions`, `heap/users`, `heap/events/<table>`."""
    return f"heap/{table}" if table in _WITHOUT_EVENTS_PREFIX else f"heap/events/{table}"


def warehouse_asset(table: str) -> str:
    """Return the lake asset of a warehouse table."""
    return f"warehouse/{table}"


def sync_asset(name: str) -> str:
    """Return the asset of a sync."""
    return f"sync/{name}"


def publish_asset(target: str, table: str) -> str:
    """Return the asset of a table published to a target."""
    return f"publish/{target}/{table}"
