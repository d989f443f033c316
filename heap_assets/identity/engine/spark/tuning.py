"""How Spark runs the resolution: nothing of it changes the result."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from heap_assets.errors import SettingsError

HASH_BITS: Final = 64


@dataclass(frozen=True)
class SparkTuning:
    """A Spark of this machine, and the sizes by which it works.

    Attributes
    ----------
    above_links
        Rows of links above which Spark is used; up to it the native engine is. 0: Spark for any number.
    work
        Folder for what one run hands to the next step; None: the system's for temporary files.
    parts
        Files of the graph, and partitions of what is shuffled.
    cores
        Tasks at a time; None: one for each core.
    memory
        Heap of the Java process, such as `4g`.
    largest_component
        Identifiers of one component that an executor can take.
    pairs_at_once
        Pairs of nodes that this process unites at once; more are contracted by Spark first.
    rows_at_once
        Rows that the native engine takes in one call, unless one component has more.
    hash_bits
        Bits of the number of a node; fewer than 64 only to provoke collisions.
    """

    above_links: int = 300_000_000
    work: str | None = None
    parts: int = 64
    cores: int | None = None
    memory: str = "4g"
    largest_component: int = 50_000_000
    pairs_at_once: int = 20_000_000
    rows_at_once: int = 4_000_000
    hash_bits: int = HASH_BITS


def check_spark_installed() -> None:
    """Raise SettingsError if pyspark or Java is missing."""
    if find_spec("pyspark") is None:
        raise SettingsError("identity.engine is spark, which is not installed: pip install 'heap_assets[spark]'")
    home = os.environ.get("JAVA_HOME")
    if not (home and (Path(home) / "bin" / "java").exists()) and shutil.which("java") is None:
        raise SettingsError("identity.engine is spark, which needs Java 17: install a JRE, or set JAVA_HOME to one")
