"""Engines that resolve links into profiles, by the name that `identity.engine` has for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, get_args

from heap_assets.identity.engine.base import Engine
from heap_assets.identity.engine.spark.tuning import SparkTuning, check_spark_installed

EngineName = Literal["native", "reference"]
ENGINES: Final[tuple[EngineName, ...]] = get_args(EngineName)

EngineChoice = EngineName | SparkTuning | Engine
"""An engine by its name, how Spark is to run in this process, or an engine that was made elsewhere."""


def engine_named(name: EngineChoice) -> Engine:
    """Return an engine. Its code is imported here: Numba and its compiled loops cost a second to load."""
    if isinstance(name, SparkTuning):
        check_spark_installed()
        from heap_assets.identity.engine.spark.engine import SparkEngine

        return SparkEngine(name)
    if not isinstance(name, str):
        return name
    if name == "reference":
        from heap_assets.identity.engine.reference import ReferenceEngine

        return ReferenceEngine()
    from heap_assets.identity.engine.native.engine import NativeEngine

    return NativeEngine()


def run_spark_job(orders: Mapping[str, Any]) -> dict[str, Any]:
    """Resolve on a cluster as told, see :func:`job.run_job`. Its code needs pyspark."""
    from heap_assets.identity.engine.spark.job import run_job

    return run_job(orders)


def compile_engine() -> tuple[Path | None, int]:
    """Compile the native engine ahead of its first use, see :func:`native.cache.compile_all`."""
    from heap_assets.identity.engine.native.cache import compile_all

    return compile_all()
