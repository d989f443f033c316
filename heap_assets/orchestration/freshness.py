"""Freshness policies: the chip in the UI that answers "did it run", by each asset's own cadence.

A policy looks at the last materialization of any partition, so backfilling an old day turns it green. What cannot be
fooled is `newest_row_is_recent`; alerts come from that (design.md, Checks and freshness).
"""

from datetime import timedelta
from typing import Literal

import dagster as dg

from heap_assets.quality import Cadence

Kind = Literal["heap", "warehouse", "identity", "sync"]

_BEHIND = {
    "heap": timedelta(0),
    "warehouse": timedelta(0),
    "identity": timedelta(hours=2),
    "sync": timedelta(hours=4),
}
"""Hours that a stage is behind its inputs in normal operation."""


def policy_for(kind: Kind, cadence: Cadence) -> dg.FreshnessPolicy:
    """Return the policy of an asset of a kind: warned when a run is late, failed when one was missed."""
    behind = _BEHIND[kind]
    warn = max(cadence.every * 1.25 + behind, timedelta(minutes=5))
    return dg.FreshnessPolicy.time_window(
        fail_window=max(cadence.every * 2.25 + behind, warn + timedelta(minutes=5)), warn_window=warn
    )
