"""Runs that wait for a slot of a pool sleep until they ask for it again.

Dagster's in-process executor asks without a pause otherwise, and takes a whole core for as long as it waits: the
interval that it sleeps for is never above 0 (dagster-io/dagster#20367, still so in 1.13).
"""

import time

from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext


def _seconds_to_next_claim(self: InstanceConcurrencyContext) -> float:
    now = time.time()
    return max(0.0, min((at - now for at in self._pending_timeouts.values()), default=0.0))


def sleep_while_waiting() -> None:
    """Correct that interval for all runs of this process."""
    InstanceConcurrencyContext.interval_to_next_pending_claim_check = _seconds_to_next_claim  # type: ignore[method-assign]
