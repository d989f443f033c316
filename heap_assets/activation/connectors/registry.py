"""The registry of the kinds of sync: modules of this folder and of folders in it, and entry points of packages."""

from __future__ import annotations

import importlib
import inspect
import logging
import pkgutil
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from heap_assets.activation import connectors as package
from heap_assets.activation.connectors.base import Connector, Deployment
from heap_assets.activation.connectors.reading import ReadSettings
from heap_assets.config import SyncSettings
from heap_assets.redaction import redact

GROUP = "heap_assets.connectors"
"""Entry points of this group name connectors of other packages."""

_log = logging.getLogger("heap_assets.delivery")


@cache
def connectors() -> dict[str, type[Connector[Any]]]:
    """Return kind to connector: those of this package first; a plug-in cannot take the place of one."""
    built_in = {connector.kind(): connector for connector in _built_in()}
    return built_in | {connector.kind(): connector for connector in _plugged_in() if connector.kind() not in built_in}


def sync_kinds() -> tuple[type[SyncSettings], ...]:
    """Return the settings models of all kinds: what a `sync:` section may hold."""
    return tuple(connector.settings_model for connector in connectors().values())


@cache
def built_in_kinds() -> frozenset[str]:
    """Return the kinds of this package."""
    return frozenset(connector.kind() for connector in _built_in())


def read_kinds() -> tuple[type[ReadSettings], ...]:
    """Return the settings models of the kinds that can be read: what a `sources:` section may hold besides engines."""
    return tuple(model for connector in connectors().values() if (model := connector.source_model) is not None)


def connector_of(deployment: Deployment, name: str) -> Connector[Any]:
    """Return the connector of a sync of the settings."""
    settings = deployment.settings.sync[name]
    return connectors()[settings.kind](name, settings, deployment)


def _built_in() -> Iterator[type[Connector[Any]]]:
    for file in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        module = importlib.import_module(file.name)
        for member in vars(module).values():
            if _is_connector(member) and member.__module__ == module.__name__:
                yield member


def _plugged_in() -> Iterator[type[Connector[Any]]]:
    for point in entry_points(group=GROUP):
        try:
            member = point.load()
        except Exception as error:  # whatever the package does when it is imported
            _log.warning("the connector %s (%s) cannot be loaded: %s", point.name, point.value, redact(str(error)))
            continue
        if _is_connector(member):
            yield member
        else:
            _log.warning("the connector %s (%s) is no subclass of Connector", point.name, point.value)


def _is_connector(member: object) -> bool:
    return isinstance(member, type) and issubclass(member, Connector) and not inspect.isabstract(member)
