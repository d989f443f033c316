"""Destinations of one's own: Python classes announced as entry points of the group `heap_assets.activation`."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points

from heap_assets.activation.connectors.base import Destination
from heap_assets.errors import SettingsError

GROUP = "heap_assets.activation"
BUILT_IN = (
    "heap_user_properties",
    "heap_account_properties",
    "heap_events",
    "heap_identify",
    "segment_track",
    "segment_identify",
    "segment_reidentify",
    "segment_group",
    "webhook",
)


def registered() -> list[str]:
    """Return the kinds that installed packages announce."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def custom_destination(kind: str, **options: object) -> Destination:
    """Make a destination of a kind that an installed package announces.

    Parameters
    ----------
    options
        Given to the class as they stand in the settings.

    Raises
    ------
    SettingsError
        If no package announces the kind, or what it announces is no destination.
    """
    points = [point for point in entry_points(group=GROUP) if point.name == kind]
    if not points:
        known = ", ".join([*BUILT_IN, *registered()])
        raise SettingsError(
            f"sync kind {kind!r} is not known; known are {known}. Is the package installed that has it?"
        )
    factory: Callable[..., object] = points[0].load()
    try:
        made = factory(**options)
    except TypeError as error:
        raise SettingsError(f"sync kind {kind!r} ({points[0].value}) does not take these options: {error}") from error
    if not isinstance(made, Destination):
        raise SettingsError(f"sync kind {kind!r}: {points[0].value} is no destination; derive it from BaseDestination")
    return made
