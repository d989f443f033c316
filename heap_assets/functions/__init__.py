"""Users' own JavaScript functions: run in child processes with limits, their results checked; it imports no Dagster."""

from heap_assets.functions.bundle import Bundle, Place, bundle
from heap_assets.functions.enrichment import enriched
from heap_assets.functions.limits import Limits
from heap_assets.functions.pool import (
    DROPPED,
    REJECTED,
    RESULT,
    SPLIT,
    Batch,
    Pool,
    Results,
    batches_of,
)
from heap_assets.functions.process import FunctionFailedError, require_limits
from heap_assets.functions.rows import DTYPES, ORDINAL, Outcome, Shape, is_passed, json_rows, through, wide_integers

__all__ = [
    "DROPPED",
    "DTYPES",
    "ORDINAL",
    "REJECTED",
    "RESULT",
    "SPLIT",
    "Batch",
    "Bundle",
    "FunctionFailedError",
    "Limits",
    "Outcome",
    "Place",
    "Pool",
    "Results",
    "Shape",
    "batches_of",
    "bundle",
    "enriched",
    "is_passed",
    "json_rows",
    "require_limits",
    "through",
    "wide_integers",
]
