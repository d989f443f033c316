"""What a fork can be asked to do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from heap_assets_tests.torture import delivery, publishing, stages


def do(asked: dict[str, Any]) -> Any:
    """Do a piece of work; see :meth:`heap_assets_tests.torture.zygote.Zygote.ask`."""
    work, folder = asked["work"], Path(asked["folder"])
    if work == "company":
        return stages.make_company(folder, asked.get("people", 20), asked.get("days", 3))
    if work == "world":
        return stages.make_world(folder)
    if work == "settle" and asked["stage"] == "delivery":
        return delivery.settle(folder)
    if work == "settle" and asked["stage"] in publishing.TARGETS:
        return publishing.settle(folder)
    if work == "settle":
        return stages.settle(asked["stage"], folder)
    if work == "delivery":
        return delivery.send(folder)
    if work == "earlier":
        return publishing.earlier(folder)
    if work in publishing.TARGETS:
        return publishing.publish(folder)
    return stages.STAGES[work](folder)


def calls(asked: dict[str, Any]) -> Sequence[tuple[Any, Sequence[str]]]:
    """Return where else than in the lake a piece of work can be stopped."""
    return publishing.CALLS if asked["work"] in publishing.TARGETS else ()
