"""Who is who: deterministic identity resolution over links between identifiers (design.md, "Identity")."""

from heap_assets.identity.changes import assign, changes, only_suppressed, without_suppressed
from heap_assets.identity.decision_file import (
    append_decision,
    blanked_decisions,
    decisions_of_table,
    parsed_identifiers,
    read_decisions,
)
from heap_assets.identity.decision_links import DECISIONS_SOURCE
from heap_assets.identity.decision_values import forget_values, hashed_pairs, with_values
from heap_assets.identity.decisions import (
    DECISION_KINDS,
    Decision,
    DecisionError,
    DecisionKind,
    Unusable,
    check_decisions,
    without_contradictions,
)
from heap_assets.identity.engine import EngineChoice, EngineName, compile_engine, run_spark_job
from heap_assets.identity.engine.base import Engine, Resolution
from heap_assets.identity.engine.spark.launched import SparkJob
from heap_assets.identity.engine.spark.orders import SparkJobError, public_options
from heap_assets.identity.engine.spark.results import FOLDER as SPARK_FOLDER
from heap_assets.identity.engine.spark.results import remove_all as remove_spark_folder
from heap_assets.identity.engine.spark.tuning import SparkTuning, check_spark_installed
from heap_assets.identity.explain.audit import AUDIT_SCHEMA, AuditedTable, audit, audit_figures, audit_text
from heap_assets.identity.explain.blockers import IdentityTables
from heap_assets.identity.explain.explain import Explanation, explain
from heap_assets.identity.explain.query import Outcome
from heap_assets.identity.explain.what_if import what_if
from heap_assets.identity.extract import MappedColumn, extract, own_identify_links, resolve_path
from heap_assets.identity.neighbourhood import LinkIndex, Neighbourhood, identifier_hashes, row_identifiers
from heap_assets.identity.normalise import identity_values, normalised, suppressed_values, why_not
from heap_assets.identity.quality import Quality, quality
from heap_assets.identity.review import REVIEW, moved_often, review
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
from heap_assets.identity.schemas import CHANGES, CONFLICTS, GRAPH, LINKS, SHARED
from heap_assets.identity.timeline import Advanced, DayInput, Timeline, resolve

__all__ = [
    "AUDIT_SCHEMA",
    "CHANGES",
    "CONFLICTS",
    "DECISIONS_SOURCE",
    "DECISION_KINDS",
    "EMAIL",
    "GRAPH",
    "HEAP_IDENTITY",
    "HEAP_USER_ID",
    "LINKS",
    "REVIEW",
    "SHARED",
    "SPARK_FOLDER",
    "Advanced",
    "AuditedTable",
    "ColumnMapping",
    "DayInput",
    "Decision",
    "DecisionError",
    "DecisionKind",
    "Engine",
    "EngineChoice",
    "EngineName",
    "Explanation",
    "IdentifierRule",
    "IdentityTables",
    "LinkIndex",
    "LinksError",
    "MappedColumn",
    "MemoryLimitError",
    "Neighbourhood",
    "Outcome",
    "Quality",
    "Resolution",
    "Rules",
    "RulesError",
    "SourceTable",
    "SparkJob",
    "SparkJobError",
    "SparkTuning",
    "Timeline",
    "Unusable",
    "append_decision",
    "assign",
    "audit",
    "audit_figures",
    "audit_text",
    "blanked_decisions",
    "changes",
    "check_decisions",
    "check_spark_installed",
    "compile_engine",
    "decisions_of_table",
    "explain",
    "extract",
    "forget_values",
    "hashed_pairs",
    "identifier_hashes",
    "identity_values",
    "moved_often",
    "normalised",
    "only_suppressed",
    "own_identify_links",
    "parsed_identifiers",
    "public_options",
    "quality",
    "read_decisions",
    "remove_spark_folder",
    "resolve",
    "resolve_path",
    "review",
    "row_identifiers",
    "run_spark_job",
    "suppressed_values",
    "user_migrations_table",
    "users_table",
    "what_if",
    "why_not",
    "with_values",
    "without_contradictions",
    "without_suppressed",
]
