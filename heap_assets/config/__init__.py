"""heap_assets.yaml as validated models: every choice a user makes is here, or with the connector that it configures."""

from heap_assets.config.base import Section
from heap_assets.config.heap import BigQuerySource, HeapSettings, IdentifierTypes, Region, S3Source
from heap_assets.config.identity import IdentifierType
from heap_assets.config.load import load_settings, parse_settings, settings_path
from heap_assets.config.models import HEAP_DEFAULT_IDENTIFIERS, Settings
from heap_assets.config.operations import UI_VARIABLE, Alert
from heap_assets.config.sync import (
    PROPERTIES,
    EventSettings,
    KeyedSettings,
    Since,
    SyncKinds,
    SyncSettings,
    UpsertRules,
    UpsertSettings,
    named,
)
from heap_assets.config.warehouse import WarehouseTable

__all__ = [
    "HEAP_DEFAULT_IDENTIFIERS",
    "PROPERTIES",
    "UI_VARIABLE",
    "Alert",
    "BigQuerySource",
    "EventSettings",
    "HeapSettings",
    "IdentifierType",
    "IdentifierTypes",
    "KeyedSettings",
    "Region",
    "S3Source",
    "Section",
    "Settings",
    "Since",
    "SyncKinds",
    "SyncSettings",
    "UpsertRules",
    "UpsertSettings",
    "WarehouseTable",
    "load_settings",
    "named",
    "parse_settings",
    "settings_path",
]
