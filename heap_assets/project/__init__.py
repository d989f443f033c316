"""Settings, catalogue and lake of a deployment, opened once."""

from heap_assets.project.allowed_hosts import check_publish_hosts, refused_hosts
from heap_assets.project.project import CATALOGUE_KEY, Project, is_writable, load_catalogue, open_project, s3_access

__all__ = [
    "CATALOGUE_KEY",
    "Project",
    "check_publish_hosts",
    "is_writable",
    "load_catalogue",
    "open_project",
    "refused_hosts",
    "s3_access",
]
