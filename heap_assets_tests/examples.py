"""How many examples a property is tried on."""

from __future__ import annotations

import os

_SHORT = 3


def examples(whole: int) -> int:
    """Return a third of a number, for properties whose examples cost seconds; all with `HEAP_ASSETS_LONG`."""
    return whole if "HEAP_ASSETS_LONG" in os.environ else -(-whole // _SHORT)
