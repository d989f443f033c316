"""heap_assets.yaml as validated models: every choice a user makes is here."""

from heap_assets.config.heap import BigQuerySource, IdentifierTypes, S3Source
from heap_assets.config.load import load_settings, parse_settings, settings_path
from heap_assets.config.models import HEAP_DEFAULT_IDENTIFIERS, Settings
from heap_assets.config.operations import UI_VARIABLE, Alert
from heap_assets.config.sync import BaseSync, HeapIdentify, HeapUserProperties, SegmentTrack, Sync
from heap_assets.config.warehouse import WarehouseTable

__all__ = [
    "HEAP_DEFAULT_IDENTIFIERS",
    "UI_VARIABLE",
    "Alert",
    "BaseSync",
    "BigQuerySource",
    "HeapIdentify",
    "HeapUserProperties",
    "IdentifierTypes",
    "S3Source",
    "SegmentTrack",
    "Settings",
    "Sync",
    "WarehouseTable",
    "load_settings",
    "parse_settings",
    "settings_path",
]
