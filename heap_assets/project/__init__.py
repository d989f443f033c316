"""Settings, catalogue and lake of a deployment, opened once."""

from heap_assets.project.allowed_hosts import allowed_hosts, check_publish_hosts, refused_hosts
from heap_assets.project.catalogue import CATALOGUE_KEY, catalogue_files, is_writable, load_catalogue, parse_catalogue
from heap_assets.project.environment import (
    Environment,
    check_apart,
    check_environment,
    remember_environment,
)
from heap_assets.project.heap_sources import s3_access
from heap_assets.project.inbox import folded_columns, table_columns
from heap_assets.project.masking import (
    masked,
    masked_scan,
    masking_rules,
    message_masker,
    rules_version,
    with_pseudonyms,
    would_mask,
)
from heap_assets.project.names import PLAIN_NAMES, Names
from heap_assets.project.ownership import mapping_of, owner_column, without_erased
from heap_assets.project.project import Project, open_project
from heap_assets.project.settings import load_settings, parse_settings, settings_schema, spark_tuning

__all__ = [
    "CATALOGUE_KEY",
    "PLAIN_NAMES",
    "Environment",
    "Names",
    "Project",
    "allowed_hosts",
    "catalogue_files",
    "check_apart",
    "check_environment",
    "check_publish_hosts",
    "folded_columns",
    "is_writable",
    "load_catalogue",
    "load_settings",
    "mapping_of",
    "masked",
    "masked_scan",
    "masking_rules",
    "message_masker",
    "open_project",
    "owner_column",
    "parse_catalogue",
    "parse_settings",
    "refused_hosts",
    "remember_environment",
    "rules_version",
    "s3_access",
    "settings_schema",
    "spark_tuning",
    "table_columns",
    "with_pseudonyms",
    "without_erased",
    "would_mask",
]
