"""What a sync needs at its destination, tried without sending anything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from heap_assets.activation import Connector, Permission
from heap_assets.errors import HeapAssetsError


def preflight(connector: Connector[Any]) -> Iterator[Permission]:
    """Try what a sync will need, one result each; one that cannot be tried has failed."""
    reason = connector.unavailable(make=True)
    if reason is not None:
        yield Permission("destination", False, reason)
        return
    try:
        yield from connector.preflight()
    except HeapAssetsError as error:
        yield Permission("calls", False, str(error), "see that the address can be reached and the login is accepted")


def refusal(connector: Connector[Any]) -> str | None:
    """Return why the first rows must not be sent to an account yet, None if nothing is against it."""
    if connector.enabled_on is not None:
        return None
    failed = [result for result in connector.preflight() if not result.passed]
    return "; ".join(f"{result.name}: {result.detail}" for result in failed) or None
