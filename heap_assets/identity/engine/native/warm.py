"""Compiles every loop of the engine ahead of the first resolution, as an image build does."""

from __future__ import annotations

import tempfile
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import polars as pl

from heap_assets.identity.engine.base import ExtractedLinks, LinksOfDay
from heap_assets.identity.engine.native import kernel_table
from heap_assets.identity.engine.native.cache import choose_cache
from heap_assets.identity.engine.native.engine import NativeEngine
from heap_assets.identity.rules import IdentifierRule, Rules
from heap_assets.identity.shapes import LINKS
from heap_assets.storage import Store

_START = date(2026, 1, 1)
_RULES = Rules(
    (
        IdentifierRule("account", max_per_profile=1),
        IdentifierRule("email", max_per_profile=2),
        IdentifierRule("device", max_per_profile=4, shared_above=1),
        IdentifierRule("cookie", shared_above={"cookie": 2}),
    )
)


def compile_all() -> tuple[Path | None, int]:
    """Resolve a small company over some days, so that each loop is compiled and kept.

    Returns
    -------
    The folder in which compiled loops are kept (None: this process can write nowhere, so nothing is kept), and how many
    files are there.
    """
    engine = NativeEngine()
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        events: dict[tuple[str, date], ExtractedLinks] = {}
        for number, people in enumerate((4000, 20, 20)):
            day = _START + timedelta(days=number)
            file = f"links/{day}"
            store.sink(f"{file}-links.parquet", _links(people, number))
            if number == 2:
                del events["visits", _START + timedelta(days=1)]
            events["visits", day] = ExtractedLinks("visits", day, store.scan(f"{file}-links.parquet"), file)
            resolution, _ = engine.advance(store, LinksOfDay(day, events, {}), _RULES)
            resolution.write_graph(Path(folder) / "graph.parquet")
            for table in (resolution.graph, resolution.conflicts, resolution.shared):
                table.collect()
    engine.resolve(_links(50, 7).lazy(), Rules(_RULES.identifiers, order="first_seen")).graph.collect()
    kernel_table.touch(np.zeros(256, np.int64), 0, 256)  # only millions of identifiers get here
    kernel_table.touch(np.zeros(256, np.uint64), 0, 256)
    kept = choose_cache()
    return kept, 0 if kept is None else sum(1 for _ in kept.glob("*.nbc"))


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
        for one, other in pairwise(chain):
            rows.append((*one, *other, "visits", at, at, 1, random.random() < 0.1))
        rows.append((*chain[0], None, None, "visits", at, at, 1, False))
    return pl.DataFrame(rows, schema=LINKS, orient="row")
