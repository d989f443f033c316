"""Damage done to a company after it was written, one fault at a time: rows of a dump, its manifest, the warehouse."""

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import fastavro

from heap_assets.demo.company import Company
from heap_assets.demo.dumps import BUCKET
from heap_assets.demo.files import put
from heap_assets.demo.plan import DemoError

Row = dict[str, Any]
Rows = list[Row]
Types = dict[str, Any]
"""Column to the Avro type of its values, without null."""


@dataclass(frozen=True)
class Dump:
    """One dump of a company's bucket, to be damaged before it is landed."""

    company: Company
    day: date

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return self.company.bucket / f"sync_{self.company.dump_ids[self.day]}"

    @property
    def manifest_path(self) -> Path:
        """Its manifest."""
        return self.company.bucket / "manifests" / f"{self.folder.name}.json"

    def change_rows(self, table: str, change: Callable[[Rows], Rows]) -> None:
        """Replace a table's rows by what `change` makes of them; types stay."""
        self.rewrite(table, lambda rows, types: (change(rows), types))

    def rewrite(self, table: str, change: Callable[[Rows, Types], tuple[Rows, Types]]) -> None:
        """Replace the rows and types of a table; `change` may add, drop and retype columns.

        Raises
        ------
        DemoError
            If the dump has no rows of the table.
        """
        files = self.files(table)
        rows, types = change(self.rows(table), _read(files[0])[1])
        for spare in files[1:]:
            spare.unlink()
        written = _time_of(files[0])
        put(files[0], _container(table, rows, types), written)
        self._edit(table, files=[self._address(files[0])], columns=list(types))

    def rows(self, table: str) -> Rows:
        """Return a table's rows as they are in the files."""
        return [row for path in self.files(table) for row in _read(path)[0]]

    def add_table(self, table: str, rows: Rows) -> None:
        """Add a table that was never there; its ids are longs, all else is text."""
        types = {name: "long" if isinstance(value, int) else "string" for name, value in rows[0].items()}
        path = self.folder / table / "part-00000-added-c000.avro"
        put(path, _container(table, rows, types), _time_of(self.manifest_path))
        entry = {"name": table, "files": [self._address(path)], "columns": list(types), "incremental": True}
        self._save({**self.manifest(), "tables": [*self.manifest()["tables"], entry]})

    def cut_off(self, table: str) -> None:
        """Cut a table's first file off in the middle."""
        path = self.files(table)[0]
        content = path.read_bytes()
        put(path, content[: len(content) * 2 // 3], _time_of(path))

    def lose_file(self, table: str) -> None:
        """Delete a file that the manifest lists."""
        self.files(table)[0].unlink()

    def call_complete(self, table: str) -> None:
        """Let the manifest say that a table came whole (a full resync)."""
        self._edit(table, incremental=False)

    def withhold(self) -> None:
        """Take the manifest away: the dump was never finished."""
        self.manifest_path.unlink()

    def files(self, table: str) -> list[Path]:
        """Return a table's files."""
        entry = next((entry for entry in self.manifest()["tables"] if entry["name"] == table), None)
        if entry is None or not entry["files"]:
            raise DemoError(f"the dump of {self.day} has no rows of {table}")
        return [self.company.bucket / address.removeprefix(f"s3://{BUCKET}/") for address in entry["files"]]

    def manifest(self) -> dict[str, Any]:
        """Return the manifest."""
        manifest: dict[str, Any] = json.loads(self.manifest_path.read_text())
        return manifest

    def _edit(self, table: str, **changes: Any) -> None:
        manifest = self.manifest()
        manifest["tables"] = [{**entry, **changes} if entry["name"] == table else entry for entry in manifest["tables"]]
        self._save(manifest)

    def _save(self, manifest: dict[str, Any]) -> None:
        put(self.manifest_path, json.dumps(manifest, indent=1).encode(), _time_of(self.manifest_path))

    def _address(self, path: Path) -> str:
        return f"s3://{BUCKET}/{path.relative_to(self.company.bucket).as_posix()}"


def change_warehouse(company: Company, *statements: str) -> None:
    """Run SQL on the company's warehouse."""
    with duckdb.connect(str(company.warehouse)) as connection:
        for statement in statements:
            connection.execute(statement)


def _read(path: Path) -> tuple[Rows, Types]:
    with path.open("rb") as file:
        reader = fastavro.reader(file)
        schema: Any = reader.writer_schema
        rows = [dict(row) for row in _records(reader)]
    return rows, {field["name"]: _without_null(field["type"]) for field in schema["fields"]}


def _records(reader: Any) -> Iterator[Row]:
    yield from reader


def _without_null(kind: Any) -> Any:
    return next(one for one in kind if one != "null") if isinstance(kind, list) else kind


def _container(table: str, rows: Rows, types: Types) -> bytes:
    fields = [{"name": name, "type": ["null", kind]} for name, kind in types.items()]
    schema = fastavro.parse_schema({"type": "record", "name": table, "fields": fields})
    buffer = io.BytesIO()
    fastavro.writer(buffer, schema, [{name: row.get(name) for name in types} for row in rows], codec="deflate")
    return buffer.getvalue()


def _time_of(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)
