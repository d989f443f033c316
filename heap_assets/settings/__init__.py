"""heap_assets.yaml as validated models: every choice a user makes is here."""

from heap_assets.settings.load import load_settings, parse_settings, settings_path
from heap_assets.settings.models import Settings
from heap_assets.settings.operations import UI_VARIABLE

__all__ = ["UI_VARIABLE", "Settings", "load_settings", "parse_settings", "settings_path"]
