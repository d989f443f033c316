"""A new warehouse is one folder: nothing else is edited for it to be read, browsed, published to and checked."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from heap_assets.cli.setup import check
from heap_assets.pipelines.publishing import due_days, open_publisher, publish_day, published_tables
from heap_assets.pipelines.snapshots import snapshot_of_day
from heap_assets.pipelines.table import Task
from heap_assets.project import parse_settings, settings_schema
from heap_assets.project.project import Project
from heap_assets.sources import warehouse
from heap_assets.sources.heap_connect import Catalogue
from heap_assets.sources.warehouse import PublishStatus, browse, source_kinds, target_kinds
from heap_assets.storage import Lake

SETTINGS_OF_ENGINE = '''
from pathlib import Path
from typing import Literal

from heap_assets.config import SourceSettings, SqlLocation, TargetSettings


class ShelfSettings(SourceSettings):
    """A shelf of Parquet files."""

    kind: Literal["shelf"]
    path: Path

    def open(self, section):
        from heap_assets.sources.warehouse.shelf.reader import Shelf

        return Shelf(self.path)


class ShelfTarget(TargetSettings):
    """A shelf that files are put on."""

    kind: Literal["shelf"]
    path: Path

    @property
    def container(self):
        return self.path.name

    @property
    def sql_location(self):
        return SqlLocation("duckdb", "", self.path.name, "", {})

    def open(self, store, section):
        from heap_assets.sources.warehouse.shelf.publisher import ShelfPublisher

        return ShelfPublisher(self.path, store)
'''
READER = """
import polars as pl

from heap_assets.sources.warehouse.base import (
    Column, Permission, ReadResult, Table, Warehouse, choose_columns, find_relation,
)


class Shelf(Warehouse):
    kind = "shelf"

    def __init__(self, path):
        self.path = path

    def tables(self):
        return [Table(f"shelf.{file.stem}") for file in sorted(self.path.glob("*.parquet"))]

    def resolve(self, relation):
        return find_relation(relation, [table.name for table in self.tables()], "the shelf")

    def columns(self, relation):
        schema = pl.read_parquet_schema(self.file(relation))
        return [Column(name, str(dtype).upper()) for name, dtype in schema.items()]

    def file(self, relation):
        return self.path / f"{self.resolve(relation).partition('.')[2]}.parquet"

    def version(self, relation):
        return str(self.file(relation).stat().st_mtime_ns)

    def _read(self, request, path):
        names = choose_columns(request.columns, self.columns(request.relation), request.relation)
        rows = pl.scan_parquet(self.file(request.relation)).select(names).head(request.limit or 2**31)
        rows.sink_parquet(path)
        count = pl.scan_parquet(path).select(pl.len()).collect().item()
        return ReadResult(self.resolve(request.relation), names, count, {})

    def preflight(self):
        return [Permission("connect", self.path.is_dir(), str(self.path))]
"""
PUBLISHER = """
from uuid import uuid4

from heap_assets.sources.warehouse.base import Permission
from heap_assets.sources.warehouse.publish import Preview, Published, Publisher, PublishStatus, with_day


class ShelfPublisher(Publisher):
    def __init__(self, path, store):
        super().__init__(store, f"shelf-{path.name}")
        self.path = path

    def file(self, table, day):
        return self.path / f"{table}-{day or 'all'}.parquet"

    def exists(self, table):
        return any(self.path.glob(f"{table}-*.parquet"))

    def _replace(self, publication, day, frame, begin):
        load = uuid4().hex
        begin(load)
        self.path.mkdir(exist_ok=True)
        rows = with_day(frame, day).collect()
        rows.write_parquet(self.file(publication.table, day))
        return Published(PublishStatus.LOADED, publication.table, day, rows.height, load=load)

    def _intact(self, table, loads, *, every_row):
        return {day for day, _ in loads if self.file(table, day).exists()}

    def _is_committed(self, table, load_id):
        return True

    def _await(self, table, load_id):
        pass

    def _preview(self, publication, frame):
        return Preview(not self.exists(publication.table))

    def _create_view(self, table, into, on, origin):
        pass

    def view_origin(self, table, into):
        return ""

    def preflight(self):
        return [Permission("write", True, str(self.path))]
"""
DAY = datetime.now(UTC).date() - timedelta(days=1)


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Path]:
    """Give a folder of data, with an engine for such folders installed as one folder of the room of warehouses."""
    folder = tmp_path / "engines" / "shelf"
    folder.mkdir(parents=True)
    modules = {"__init__": "", "settings": SETTINGS_OF_ENGINE, "reader": READER, "publisher": PUBLISHER}
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    warehouse.__path__.append(str(folder.parent))
    for kinds in (source_kinds, target_kinds):
        kinds.cache_clear()
    data = tmp_path / "data"
    data.mkdir()
    pl.DataFrame({"id": [1, 2], "email": ["a@x", "b@x"]}).write_parquet(data / "contacts.parquet")
    yield data
    warehouse.__path__.remove(str(folder.parent))
    for kinds in (source_kinds, target_kinds):
        kinds.cache_clear()
    for module in [name for name in sys.modules if name.startswith("heap_assets.sources.warehouse.shelf")]:
        del sys.modules[module]


def test_it_is_read_browsed_published_and_checked(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "heap_assets.yaml"
    file.write_text(f"""
start_date: 2026-01-01
lake: ./lake
heap: {{app_id: "1", source: {{kind: folder, path: ./bucket}}}}
identity: {{identifiers: [{{type: email, max_per_profile: 3}}]}}
warehouse:
  kind: shelf
  path: {shelf}
  tables: {{contacts: {{relation: shelf.contacts, key: id, identifiers: {{email: email}}}}}}
publish:
  there: {{kind: shelf, path: {tmp_path / "published"}, assets: [warehouse/contacts]}}
""")
    settings = parse_settings(file.read_text(), file)
    project = Project(settings, Catalogue(), Lake.open(settings.lake.url), file)
    opened = project.warehouse()
    assert browse.tables_of(opened, "shelf")[0].name == "shelf.contacts"
    assert "shelf" in str(settings_schema())

    scratch = tmp_path / "scratch"
    scratch.mkdir()
    built = snapshot_of_day(Task(project, DAY, scratch, force=False), name="contacts")
    assert built is not None
    project.lake.write("warehouse/contacts", str(DAY), built.frame, built.inputs, notes=built.notes)
    [table], publisher = published_tables(project, "there"), open_publisher(project, "there")
    assert due_days(project, publisher, table) == [DAY]
    assert publish_day(project, publisher, table, DAY).status is PublishStatus.LOADED
    assert publish_day(project, publisher, table, DAY).status is PublishStatus.UNCHANGED
    rows = pl.read_parquet(tmp_path / "published" / f"{table.publication.table}-{DAY}.parquet")
    assert rows.select("partition_day", "id", "email").rows() == [(DAY, 1, "a@x"), (DAY, 2, "b@x")]

    monkeypatch.setenv("HEAP_ASSETS_SETTINGS", str(file))
    checked = CliRunner().invoke(check)
    assert "Warehouse     shelf, 1 tables" in checked.output, checked.output
