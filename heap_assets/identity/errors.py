"""Errors of identity resolution that a user can act on."""

from __future__ import annotations

from heap_assets.errors import HeapAssetsError, SettingsError


class RulesError(SettingsError):
    """A rule contradicts itself or names what does not exist; the message names the type, the value and what to do."""


class LinksError(HeapAssetsError):
    """A table given to the engine is not a table of links."""


class MemoryLimitError(HeapAssetsError):
    """There is more to resolve than fits into the memory that this process may use."""
