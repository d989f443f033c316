"""Where Heap's data is read, as the settings say: buckets and files."""

from __future__ import annotations

from heap_assets.config import FilesSource as FilesSettings
from heap_assets.config import S3Source as S3Settings
from heap_assets.sources.heap_connect import (
    USER_MIGRATIONS,
    FilesSource,
    FileTable,
    FolderSource,
    Landing,
    S3Access,
    S3Source,
    s3_client,
)


def s3_access(source: S3Settings | FilesSettings) -> S3Access:
    """Return how the bucket of the settings is reached; without profile or role, boto3 looks where it always does."""
    return S3Access(
        region=source.region,
        endpoint_url=source.endpoint_url,
        profile=source.profile,
        role_arn=source.role_arn,
        external_id=source.external_id.get_secret_value() if source.external_id else None,
    )


def files_source(source: FilesSettings, landing: Landing) -> FilesSource:
    """Return files of a folder or bucket as dumps; one that landed keeps its number when it changes."""
    if source.path is not None:
        files: FolderSource | S3Source = FolderSource(source.path)
    else:
        files = S3Source(s3_client(s3_access(source)), str(source.bucket), source.prefix)
    tables = [
        FileTable(
            name,
            table.files,
            table.format,
            {column: [own] if isinstance(own, str) else own for column, own in table.columns.items()},
            frozenset(table.hashed),
            table.types,
            table.event_column,
            name == USER_MIGRATIONS if table.full is None else table.full,
        )
        for name, table in source.tables.items()
    ]
    return FilesSource(
        files, tables, lambda: {record.manifest_key: number for number, record in landing.records().items()}
    )
