"""A warehouse engine: a folder here with `settings`, `reader`, `types`, `errors`, and a `publisher` if it has one.

`settings` has the models of its sections, which open the reader and the publisher. Both are imported only then, so that
reading a DuckDB file does not load Google's client. Engines are discovered; nothing else lists them.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter

from heap_assets.config import Section, SourceSettings, TargetSettings, one_of
from heap_assets.sources.warehouse.base import Warehouse

M = TypeVar("M", bound=Section)


@cache
def source_kinds() -> tuple[type[SourceSettings], ...]:
    """Return the settings models of all engines that can be read."""
    return tuple(_models(SourceSettings))


@cache
def target_kinds() -> tuple[type[TargetSettings], ...]:
    """Return the settings models of all engines that can be published to."""
    return tuple(_models(TargetSettings))


def warehouse_of(settings: Mapping[str, object], section: str) -> Warehouse:
    """Return the warehouse of settings that are no section of their own, as those of Heap's export are."""
    source: SourceSettings = TypeAdapter(one_of(source_kinds())).validate_python(settings)
    warehouse: Warehouse = source.open(section)
    return warehouse


def _models(base: type[M]) -> Iterator[type[M]]:
    for folder in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if folder.ispkg:
            module = importlib.import_module(f"{__package__}.{folder.name}.settings")
            classes = (m for m in vars(module).values() if isinstance(m, type) and m.__module__ == module.__name__)
            yield from (model for model in classes if issubclass(model, base))
