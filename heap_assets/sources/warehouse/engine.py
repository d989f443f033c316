"""A warehouse engine: a folder here with `settings`, `reader`, `types`, `errors`, and a `publisher` if it has one.

`settings` has the models of its sections, which open the reader and the publisher. Both are imported only then, so that
reading a DuckDB file does not load Google's client. Engines are discovered; nothing else lists them.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterator, Mapping
from functools import cache

from pydantic import TypeAdapter

from heap_assets.config import SourceSettings, TargetSettings, one_of
from heap_assets.sources.warehouse.base import Warehouse


@cache
def source_kinds() -> tuple[type[SourceSettings], ...]:
    """Return the settings models of all engines that can be read."""
    return tuple(model for model in _models() if issubclass(model, SourceSettings))


@cache
def target_kinds() -> tuple[type[TargetSettings], ...]:
    """Return the settings models of all engines that can be published to."""
    return tuple(model for model in _models() if issubclass(model, TargetSettings))


def warehouse_of(settings: Mapping[str, object], section: str) -> Warehouse:
    """Return the warehouse of settings that are no section of their own, as those of Heap's export are."""
    source: SourceSettings = TypeAdapter(one_of(source_kinds())).validate_python(settings)
    warehouse: Warehouse = source.open(section)
    return warehouse


def _models() -> Iterator[type]:
    """Yield the classes that the engines' `settings` modules define."""
    for folder in pkgutil.iter_modules(sys.modules[__package__].__path__):
        if folder.ispkg:
            module = importlib.import_module(f"{__package__}.{folder.name}.settings")
            own = (m for m in vars(module).values() if isinstance(m, type) and m.__module__ == module.__name__)
            yield from (model for model in own if not model.__name__.startswith("_"))
