"""Engines that resolve links into profiles, by the name that `identity.engine` has for them."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal, get_args

from heap_assets.identity.engine.base import Engine
from heap_assets.identity.engine.spark.tuning import SparkTuning, check_spark_installed

EngineName = Literal["native", "reference"]
ENGINES: Final[tuple[EngineName, ...]] = get_args(EngineName)

EngineChoice = EngineName | SparkTuning
"""An engine by its name, or how Spark is to run."""


def engine_named(name: EngineChoice) -> Engine:
    """Return an engine. Its code is imported here: Numba and its compiled loops cost a second to load."""
    if isinstance(name, SparkTuning):
        check_spark_installed()
        from heap_assets.identity.engine.spark.engine import SparkEngine

        return SparkEngine(name)
    if name == "reference":
        from heap_assets.identity.engine.reference import ReferenceEngine

        return ReferenceEngine()
    from heap_assets.identity.engine.native.engine import NativeEngine

    return NativeEngine()


def compile_engine() -> tuple[Path | None, int]:
    """Compile the native engine ahead of its first use, see :func:`native.cache.compile_all`."""
    from heap_assets.identity.engine.native.cache import compile_all

    return compile_all()
