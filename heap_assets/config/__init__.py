"""heap_assets.yaml as validated models: every choice a user makes is here, or with the connector that it configures."""

from heap_assets.config.audience_files import read_audiences
from heap_assets.config.base import Day, Section
from heap_assets.config.functions import FunctionLimits, FunctionSettings, FunctionsSettings
from heap_assets.config.heap import (
    GOOGLE_STORAGE,
    BigQuerySource,
    ExportedSource,
    FilesSource,
    HeapSettings,
    IdentifierTypes,
    IngestSchedule,
    Region,
    S3Source,
    WarehouseSource,
    bigquery_hosts,
)
from heap_assets.config.heap_api import SQL_MARK, HeapQuerySettings, LabelEnvironment, LabelsSettings
from heap_assets.config.identity import AccountsSettings, Behaviour, IdentifierType, Score
from heap_assets.config.inbox import InboxSettings, InboxSource, InboxTable, LiveSettings
from heap_assets.config.kinds import Kinds
from heap_assets.config.load import PATH_VARIABLE, load_settings, parse_settings, settings_path
from heap_assets.config.models import HEAP_DEFAULT_IDENTIFIERS, Settings
from heap_assets.config.operations import UI_VARIABLE, Alert, Host
from heap_assets.config.privacy import ConsentSource, MaskingRule, PrivacySettings, RequestTable
from heap_assets.config.reports import EmailOutput, FileOutput, ReportSettings
from heap_assets.config.reverse_etl import CensusSettings, HightouchSettings, ReverseEtlSync
from heap_assets.config.schema import settings_schema
from heap_assets.config.spark import (
    AnySpark,
    ClusterSettings,
    DatabricksSpark,
    DataprocSpark,
    EmrServerlessSpark,
    EmrSpark,
    GlueSpark,
    LocalSpark,
)
from heap_assets.config.sql_location import SqlLocation
from heap_assets.config.sync import (
    PROPERTIES,
    EventSettings,
    KeyedSettings,
    Since,
    SyncSettings,
    UpsertRules,
    UpsertSettings,
    named,
)
from heap_assets.config.sync_abilities import HashedSettings, Match, MatchSettings, VendorSettings, VersionedSettings
from heap_assets.config.warehouse import SourceSettings, TargetSettings, WarehouseTable, one_of

__all__ = [
    "GOOGLE_STORAGE",
    "HEAP_DEFAULT_IDENTIFIERS",
    "PATH_VARIABLE",
    "PROPERTIES",
    "SQL_MARK",
    "UI_VARIABLE",
    "AccountsSettings",
    "Alert",
    "AnySpark",
    "Behaviour",
    "BigQuerySource",
    "CensusSettings",
    "ClusterSettings",
    "ConsentSource",
    "DatabricksSpark",
    "DataprocSpark",
    "Day",
    "EmailOutput",
    "EmrServerlessSpark",
    "EmrSpark",
    "EventSettings",
    "ExportedSource",
    "FileOutput",
    "FilesSource",
    "FunctionLimits",
    "FunctionSettings",
    "FunctionsSettings",
    "GlueSpark",
    "HashedSettings",
    "HeapQuerySettings",
    "HeapSettings",
    "HightouchSettings",
    "Host",
    "IdentifierType",
    "IdentifierTypes",
    "InboxSettings",
    "InboxSource",
    "InboxTable",
    "IngestSchedule",
    "KeyedSettings",
    "Kinds",
    "LabelEnvironment",
    "LabelsSettings",
    "LiveSettings",
    "LocalSpark",
    "MaskingRule",
    "Match",
    "MatchSettings",
    "PrivacySettings",
    "Region",
    "ReportSettings",
    "RequestTable",
    "ReverseEtlSync",
    "S3Source",
    "Score",
    "Section",
    "Settings",
    "Since",
    "SourceSettings",
    "SqlLocation",
    "SyncSettings",
    "TargetSettings",
    "UpsertRules",
    "UpsertSettings",
    "VendorSettings",
    "VersionedSettings",
    "WarehouseSource",
    "WarehouseTable",
    "bigquery_hosts",
    "load_settings",
    "named",
    "one_of",
    "parse_settings",
    "read_audiences",
    "settings_path",
    "settings_schema",
]
