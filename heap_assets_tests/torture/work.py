"""What a fork can be asked to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from heap_assets_tests.torture import delivery, stages


def do(asked: dict[str, Any]) -> Any:
    """Do a piece of work; see :meth:`heap_assets_tests.torture.zygote.Zygote.ask`."""
    work, folder = asked["work"], Path(asked["folder"])
    if work == "company":
        return stages.make_company(folder, asked.get("people", 20), asked.get("days", 3))
    if work == "world":
        return stages.make_world(folder)
    if work == "settle" and asked["stage"] == "delivery":
        return delivery.settle(folder)
    if work == "settle":
        return stages.settle(asked["stage"], folder)
    if work == "delivery":
        return delivery.send(folder)
    return stages.STAGES[work](folder)
