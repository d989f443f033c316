"""Who is who: deterministic identity resolution over links between identifiers (design.md, "Identity")."""

from heap_assets.identity.changes import changes
from heap_assets.identity.errors import LinksError, RulesError, StateError
from heap_assets.identity.extract import Extraction, extract, own_identify_links
from heap_assets.identity.resolve import Resolution, resolve
from heap_assets.identity.rules import (
    EMAIL,
    HEAP_IDENTITY,
    HEAP_USER_ID,
    ColumnMapping,
    IdentifierRule,
    Rules,
    SourceTable,
    user_migrations_table,
    users_table,
)
from heap_assets.identity.shapes import CHANGES, CONFLICTS, GRAPH, LINKS, SHARED
from heap_assets.identity.timeline import Advanced, DayInput, Timeline

__all__ = [
    "CHANGES",
    "CONFLICTS",
    "EMAIL",
    "GRAPH",
    "HEAP_IDENTITY",
    "HEAP_USER_ID",
    "LINKS",
    "SHARED",
    "Advanced",
    "ColumnMapping",
    "DayInput",
    "Extraction",
    "IdentifierRule",
    "LinksError",
    "Resolution",
    "Rules",
    "RulesError",
    "SourceTable",
    "StateError",
    "Timeline",
    "changes",
    "extract",
    "own_identify_links",
    "resolve",
    "user_migrations_table",
    "users_table",
]
