"""Errors that a user can act on; every message names the thing that is wrong and what to do."""

from collections.abc import Collection
from difflib import get_close_matches
from typing import ClassVar

from heap_assets.redaction import redact


class HeapAssetsError(Exception):
    """Base of all errors this package raises on purpose. Texts are redacted: they may quote what a server said.

    `exit_status`: of a command that ends with it: 2 for a mistake or for missing input; 1 if another system could not
    be reached or refused, so that trying again later may help.

    >>> from heap_assets import HeapAssetsError, Project
    >>> try:
    ...     Project.open("heap_assets.yaml").sql("DROP TABLE heap.users")
    ... except HeapAssetsError as error:
    ...     print(type(error).__name__)
    SqlError
    """

    is_redacted: ClassVar[bool] = True
    exit_status: ClassVar[int] = 2

    def __init__(self, *args: object) -> None:
        super().__init__(*(redact(part) if isinstance(part, str) else part for part in args))


class SettingsError(HeapAssetsError):
    """A mistake in heap_assets.yaml: the message names the key, the value and what was expected.

    >>> from heap_assets import Project, SettingsError
    >>> try:
    ...     Project.open("heap_assets.yaml").audience("nobody")
    ... except SettingsError as error:
    ...     print(error)
    there is no audience 'nobody'. Audiences: pro_plan
    """


class SourceError(HeapAssetsError):
    """A source (bucket, folder, warehouse) cannot be read as configured."""

    exit_status: ClassVar[int] = 1


class MissingInputError(HeapAssetsError):
    """A partition that is needed has not been built yet.

    >>> from heap_assets import MissingInputError, Project
    >>> try:
    ...     Project.open("heap_assets.yaml").table("heap/pageviews").day("2026-01-01")
    ... except MissingInputError as error:
    ...     print(error)
    heap/pageviews has no partition 2026-01-01: materialize it first
    """


class StaleWriterError(HeapAssetsError):
    """The stored partition was built from inputs that this writer does not know; it is kept."""


class ConflictError(HeapAssetsError):
    """Other processes keep writing the same object, or hold its lock for too long."""

    exit_status: ClassVar[int] = 1


class DamagedFileError(HeapAssetsError):
    """A file of the lake that cannot be understood: the message names it and what to do."""


class DeliveryError(HeapAssetsError):
    """A destination refused, or could not be reached; what was acknowledged is kept."""

    exit_status: ClassVar[int] = 1


class HostNotAllowedError(HeapAssetsError):
    """The settings' `allowed_hosts` do not have this host; nothing was sent."""


def did_you_mean(name: str, names: Collection[str]) -> str:
    """Return the nearest of `names` as the end of a message about an unknown `name`; empty if none is near.

    >>> did_you_mean("emial", ["crm_id", "email"]), did_you_mean("x", ["crm_id"])
    (" Did you mean 'email'?", '')
    """
    close = get_close_matches(name, names, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def no_such(kind: str, name: str, names: Collection[str]) -> SettingsError:
    """Return the error about a `name` that is none of `names`, which it lists.

    >>> no_such("sync", "webhooks", ["webhook", "crm"])
    SettingsError("there is no sync 'webhooks'. Syncs: webhook, crm. Did you mean 'webhook'?")
    """
    listed, near = ", ".join(names) or "none", did_you_mean(name, names)
    return SettingsError(f"there is no {kind} {name!r}. {kind.capitalize()}s: {listed}{near and f'.{near}'}")
