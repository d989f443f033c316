"""What a fork can be asked to do."""

from __future__ import annotations

import base64
import importlib
import pickle
import pkgutil
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
    if work == "loops":
        stages.identity(folder)
        return _loops()
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


def import_all() -> None:
    """Import what a deployment imports once its settings are read, so that no fork needs to."""
    stages.read_settings()


def load_loops(loops: dict[str, str]) -> None:
    """Load the machine code of identity's loops that a fork compiled, so that no other needs to."""
    for name, signatures in loops.items():
        module, _, function = name.rpartition(".")
        loop = getattr(importlib.import_module(module), function)
        for signature in pickle.loads(base64.b64decode(signatures)):
            loop.compile(signature)


def _loops() -> dict[str, str]:
    from heap_assets.identity.engine import native

    modules = [
        importlib.import_module(f"{native.__name__}.{found.name}") for found in pkgutil.iter_modules(native.__path__)
    ]
    return {
        f"{module.__name__}.{name}": base64.b64encode(pickle.dumps(loop.signatures)).decode()
        for module in modules
        for name, loop in vars(module).items()
        if getattr(loop, "signatures", None)
    }
