"""Freshness policies: did it run? Whether its rows are new is what the check `newest_row_is_recent` says."""

from datetime import timedelta

import dagster as dg

_SLACK = 0.5


def policy(cadence: timedelta) -> dg.FreshnessPolicy:
    """Return the policy of an asset that should be materialized once per `cadence`; half of it more is a failure."""
    return dg.FreshnessPolicy.time_window(fail_window=cadence * (1 + _SLACK), warn_window=cadence * (1 + _SLACK / 3))
