"""A destination of an installed package that defines the requests; rows and settings are those of any generic sync."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cached_property
from importlib.metadata import entry_points
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from heap_assets.activation.connectors.inputs import GenericConnector, GenericSettings
from heap_assets.activation.connectors.registry import connectors
from heap_assets.activation.engine.destination import Dedupe, Destination
from heap_assets.activation.engine.spec import Mode
from heap_assets.errors import SettingsError
from heap_assets.yaml_core import core

GROUP = "heap_assets.activation"
"""Entry points of this group name classes with the interface of a destination."""
_NAMES_ACCOUNT = re.compile(
    r"(?i)(^|_)(url|host|address|endpoint|region|account|app|project|workspace|tenant|site|org|environment|id)(_id)?$"
)


class CustomSync(GenericSettings):
    """A destination of an installed package (entry point group `heap_assets.activation`)."""

    is_custom: ClassVar[bool] = True

    kind: Literal["custom"] = "custom"
    destination: str = Field(description="Name of the entry point")
    options: dict[str, Any] = Field(default={}, description="Given to its class", repr=False)

    @field_validator("options", mode="before")
    @classmethod
    def _are_typed(cls, value: Any) -> Any:
        return core(value)

    @property
    def is_upsert(self) -> bool:
        """Return False: only the class, not the settings, knows whether it upserts."""
        return False


class CustomConnector(GenericConnector[CustomSync]):
    """Rows as they come, to a class of an installed package."""

    settings_model = CustomSync

    def destination(self, table: str = "") -> Destination:
        return self._destination

    @cached_property
    def _destination(self) -> Destination:
        """The one object of the class that this connector asks everything: to make it may take a login."""
        return custom_destination(self.settings.destination, **self.settings.options)

    @property
    def dedupe(self) -> Dedupe:
        """Return what the class says if there is an object of it: to ask may take a login."""
        destination = self.__dict__.get("_destination")
        return destination.dedupe if destination is not None else Dedupe()

    @property
    def mode(self) -> Mode:
        """Whether keys are kept up to date or each row is sent once, as the class says."""
        return self._destination.mode

    def account(self, table: str = "") -> str:
        """Name the account: that of the class, with the options that identify an address or an account."""
        options = self.settings.options.items()
        return super().account(table) + str(sorted((k, str(value)) for k, value in options if _NAMES_ACCOUNT.search(k)))

    def unavailable(self, *, make: bool) -> str | None:
        """Return why there is no destination: no package has it, or its class refuses the options."""
        if not make and self.settings.destination in registered():
            return None
        try:
            _ = self._destination
        except SettingsError as error:
            return str(error)
        return None


def registered() -> list[str]:
    """Return the names of the destinations of installed packages."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def custom_destination(kind: str, **options: object) -> Destination:
    """Make a destination that an installed package announces.

    `options`: given to the class as they stand in the settings. Raises SettingsError if no package announces the kind,
    or what it announces is no destination.
    """
    points = [point for point in entry_points(group=GROUP) if point.name == kind]
    if not points:
        kinds = ", ".join([*(name for name in connectors() if name != CustomSync.kind_name()), *registered()])
        raise SettingsError(
            f"sync kind {kind!r} is not known; known are {kinds}. Is the package installed that has it?"
        )
    factory: Callable[..., object] = points[0].load()
    try:
        destination = factory(**options)
    except TypeError as error:
        raise SettingsError(f"sync kind {kind!r} ({points[0].value}) does not take these options: {error}") from error
    if not isinstance(destination, Destination):
        raise SettingsError(f"sync kind {kind!r}: {points[0].value} is no destination; derive it from BaseDestination")
    return destination
