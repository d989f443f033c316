"""Signals: events that are derived, such as a sequence, a missing step, a crossed threshold, a campaign step."""

from heap_assets.signals.columns import FIRING_COLUMNS, PERSONAL_COLUMNS
from heap_assets.signals.firings import (
    CANCELLED,
    FIRED,
    FIRINGS,
    SignalDay,
    candidates,
    due_steps,
    new_firings,
)
from heap_assets.signals.rules import KINDS, OWN_COLUMNS, Signal, parse_signal
from heap_assets.signals.templates import TEMPLATES

__all__ = [
    "CANCELLED",
    "FIRED",
    "FIRINGS",
    "FIRING_COLUMNS",
    "KINDS",
    "OWN_COLUMNS",
    "PERSONAL_COLUMNS",
    "TEMPLATES",
    "Signal",
    "SignalDay",
    "candidates",
    "due_steps",
    "new_firings",
    "parse_signal",
]
