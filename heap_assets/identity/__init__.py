"""Who is who: deterministic identity resolution over links between identifiers (design.md, "Identity")."""

from heap_assets.identity.changes import assign, changes
from heap_assets.identity.engine import EngineName, compile_engine
from heap_assets.identity.engine.base import Resolution
from heap_assets.identity.explain.audit import AUDIT_SCHEMA, AuditedTable, audit, audit_figures, audit_text
from heap_assets.identity.explain.blockers import IdentityTables
from heap_assets.identity.explain.explain import Explanation, explain
from heap_assets.identity.explain.query import QuestionError, Verdict
from heap_assets.identity.explain.what_if import WHAT_IF_SCHEMA, SweepError, Variant, WhatIf, variants, what_if
from heap_assets.identity.extract import Extraction, extract, own_identify_links, resolve_path
from heap_assets.identity.normalise import normalised, suppressed_values, why_not
from heap_assets.identity.proposal import IdentityValues, identity_values
from heap_assets.identity.quality import Quality, QualityError, quality
from heap_assets.identity.rules import (
    EMAIL,
    HEAP_IDENTITY,
    HEAP_USER_ID,
    ColumnMapping,
    IdentifierRule,
    LinksError,
    MemoryLimitError,
    Rules,
    RulesError,
    SourceTable,
    user_migrations_table,
    users_table,
)
from heap_assets.identity.shapes import CHANGES, CONFLICTS, GRAPH, LINKS, SHARED
from heap_assets.identity.suppressed import only_suppressed, without_suppressed
from heap_assets.identity.timeline import Advanced, DayInput, Timeline, resolve

__all__ = [
    "AUDIT_SCHEMA",
    "CHANGES",
    "CONFLICTS",
    "EMAIL",
    "GRAPH",
    "HEAP_IDENTITY",
    "HEAP_USER_ID",
    "LINKS",
    "SHARED",
    "WHAT_IF_SCHEMA",
    "Advanced",
    "AuditedTable",
    "ColumnMapping",
    "DayInput",
    "EngineName",
    "Explanation",
    "Extraction",
    "IdentifierRule",
    "IdentityTables",
    "IdentityValues",
    "LinksError",
    "MemoryLimitError",
    "Quality",
    "QualityError",
    "QuestionError",
    "Resolution",
    "Rules",
    "RulesError",
    "SourceTable",
    "SweepError",
    "Timeline",
    "Variant",
    "Verdict",
    "WhatIf",
    "assign",
    "audit",
    "audit_figures",
    "audit_text",
    "changes",
    "compile_engine",
    "explain",
    "extract",
    "identity_values",
    "normalised",
    "only_suppressed",
    "own_identify_links",
    "quality",
    "resolve",
    "resolve_path",
    "suppressed_values",
    "user_migrations_table",
    "users_table",
    "variants",
    "what_if",
    "why_not",
    "without_suppressed",
]
