"""The folder of compiled loops, beside the package or one that this user can write to; compiling all loops ahead."""

from __future__ import annotations

import os
import shutil
import tempfile
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any, Final

import numba
import numpy as np
import polars as pl
from numba.core.caching import UserProvidedCacheLocator

from heap_assets.identity.engine.base import ExtractedLinks, LinksOfDay
from heap_assets.identity.rules import IdentifierRule, Rules
from heap_assets.identity.schemas import LINKS
from heap_assets.storage import Store

_BESIDE: Final = Path(__file__).parent / "__pycache__"


def choose_cache() -> Path | None:
    """Set Numba's cache to a folder that this process can write to, and return it; None if there is none.

    Of those that can be written, `NUMBA_CACHE_DIR` wins, then the package's own `__pycache__`, then the user's cache
    folder, then one for this user alone in the folder for temporary files. The results of `heap-assets warm` beside a
    package that is read-only now are copied: Numba itself does not read a cache that it cannot write.
    """
    if numba.config.CACHE_DIR:
        chosen = _of_this_package(Path(numba.config.CACHE_DIR))
        if _is_writable(chosen):
            return chosen
        numba.config.CACHE_DIR = ""
    if _is_writable(_BESIDE):
        return _BESIDE
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    for folder in (home / "heap_assets", Path(tempfile.gettempdir()) / f"heap_assets-{os.getuid()}"):
        if _is_writable(folder) and folder.stat().st_uid == os.getuid():  # machine code of others is not run
            numba.config.CACHE_DIR = str(folder)
            _copy_compiled(_of_this_package(folder))
            return _of_this_package(folder)
    return None


def _of_this_package(folder: Path) -> Path:
    subfolder: str = UserProvidedCacheLocator.get_suitable_cache_subpath(__file__)
    return folder / subfolder


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def _copy_compiled(target: Path) -> None:
    target.mkdir(mode=0o700, exist_ok=True)
    for file in sorted(_BESIDE.glob("*.nb[ci]")):
        if not (target / file.name).exists():
            partial = target / f".tmp-{os.getpid()}-{file.name}"
            shutil.copyfile(file, partial)
            partial.replace(target / file.name)


_FIRST_DAY = date(2026, 1, 1)
_RULES = Rules(
    (
        IdentifierRule("account", max_per_profile=1),
        IdentifierRule("email", max_per_profile=2),
        IdentifierRule("device", max_per_profile=4, shared_above=1),
        IdentifierRule("cookie", shared_above={"cookie": 2}),
    )
)


def compile_all() -> tuple[Path | None, int]:
    """Resolve a small company over some days, so that each loop is compiled and cached.

    Returns the folder of the cache (None: this process can write nowhere, so nothing is cached), and the number of its
    files.
    """
    # kernels import this module
    from heap_assets.identity.engine.native import kernel_table
    from heap_assets.identity.engine.native.engine import NativeEngine

    engine = NativeEngine()
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        events: dict[tuple[str, date], ExtractedLinks] = {}
        for number, people in enumerate((4000, 20, 20)):
            day = _FIRST_DAY + timedelta(days=number)
            file = f"links/{day}"
            store.sink(f"{file}-links.parquet", _links(people, number))
            if number == 2:
                del events["visits", _FIRST_DAY + timedelta(days=1)]
            events["visits", day] = ExtractedLinks("visits", day, store.scan(f"{file}-links.parquet"), file)
            resolution, _ = engine.advance(store, LinksOfDay(day, events, {}), _RULES)
            resolution.write_graph(Path(folder) / "graph.parquet")
            for table in (resolution.graph, resolution.conflicts, resolution.shared):
                table.collect()
    engine.resolve(_links(50, 7).lazy(), Rules(_RULES.identifiers, order="first_seen")).graph.collect()
    kernel_table.prefault(np.zeros(256, np.int64), 0, 256)  # only millions of identifiers get here
    kernel_table.prefault(np.zeros(256, np.uint64), 0, 256)
    cache = choose_cache()
    return cache, 0 if cache is None else sum(1 for _ in cache.glob("*.nbc"))


def _links(people: int, seed: int) -> pl.DataFrame:
    random = Random(seed)  # noqa: S311  made-up links
    rows: list[tuple[Any, ...]] = []
    for _ in range(people):
        person = random.randrange(people)
        at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=random.randrange(999))
        chain = [
            ("account", f"a{person}"), ("email", f"e{random.randrange(people)}@x.io" * random.choice([1, 9])),
            ("device", f"d{random.randrange(people)}"), ("cookie", f"c{random.randrange(people // 3 + 1)}"),
        ]  # fmt: skip
        for a, b in pairwise(chain):
            rows.append((*a, *b, "visits", at, at, 1, random.random() < 0.1))
        rows.append((*chain[0], None, None, "visits", at, at, 1, False))
    return pl.DataFrame(rows, schema=LINKS, orient="row")
