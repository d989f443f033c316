"""Users' own JavaScript functions: run in child processes with limits, their results checked; it imports no Dagster."""

from heap_assets.functions.bundle import Bundle, Place, bundle
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

__all__ = [
    "DROPPED",
    "REJECTED",
    "RESULT",
    "SPLIT",
    "Batch",
    "Bundle",
    "FunctionFailedError",
    "Limits",
    "Place",
    "Pool",
    "Results",
    "batches_of",
    "bundle",
    "require_limits",
]
