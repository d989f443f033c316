"""Is the source readable? One verdict for each thing that can be wrong, before anything is landed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from heap_assets.errors import HeapAssetsError
from heap_assets.redaction import redact_error
from heap_assets.sources.heap_connect.avro_container import read_header
from heap_assets.sources.heap_connect.manifest import Manifest, parse_manifest
from heap_assets.sources.heap_connect.sources import DumpSource, ManifestFile

HEADER_BYTES = 256 << 10


@dataclass(frozen=True)
class Verdict:
    """One step: what was looked at, whether it is well, and what was seen or is to be done."""

    step: str
    passed: bool
    detail: str


def preflight(source: DumpSource, caller: Callable[[], str] | None = None) -> list[Verdict]:
    """Check credentials, listing, newest manifest and one file header, in this order; stop at the first failure.

    Parameters
    ----------
    caller
        Says who requests are made as; left out for sources without credentials.
    """
    verdicts: list[Verdict] = []

    def step(name: str, look: Callable[[], str]) -> bool:
        try:
            verdicts.append(Verdict(name, True, look()))
        except HeapAssetsError as error:
            verdicts.append(Verdict(name, False, str(error)))
        except Exception as error:
            verdicts.append(Verdict(name, False, f"{type(error).__name__}: {redact_error(error)}"))
        return verdicts[-1].passed

    found: list[ManifestFile] = []
    opened: list[Manifest] = []
    if caller is not None and not step("credentials", caller):
        return verdicts
    if not step("listing", lambda: _listing(source, found)) or not found:
        return verdicts
    if step("newest manifest", lambda: _manifest(source, found[-1], opened)):
        step("file header", lambda: _file_header(source, opened[0]))
    return verdicts


def _listing(source: DumpSource, found: list[ManifestFile]) -> str:
    found += source.manifests()
    if not found:
        return f"{source.describe()} can be listed and has no dumps yet: Heap writes the first within a day"
    return f"{len(found)} dumps, {found[0].dump_id} to {found[-1].dump_id}"


def _manifest(source: DumpSource, newest: ManifestFile, opened: list[Manifest]) -> str:
    opened.append(parse_manifest(source.read(newest.key), newest.key, newest.dump_id))
    files = sum(len(table.files) for table in opened[0].tables)
    written = f"{newest.last_modified:%Y-%m-%d %H:%M} UTC"
    return f"dump {newest.dump_id} of {written}: {len(opened[0].tables)} tables, {files} files"


def _file_header(source: DumpSource, manifest: Manifest) -> str:
    uri = next((file for table in manifest.tables for file in table.files), None)
    if uri is None:
        return "the newest dump has no files"
    columns, codec = header_of(source, uri)
    return f"{len(columns)} columns, codec {codec}: {uri}"


def header_of(source: DumpSource, uri: str) -> tuple[dict[str, object], str]:
    """Read a data file's header, and no more of it: columns with their Avro types, and the codec.

    Raises
    ------
    ValueError, SourceError
        If it is no Avro file, or cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="heap-assets-") as scratch:
        path = Path(scratch) / "header"
        path.write_bytes(source.read(uri, HEADER_BYTES))
        header = read_header(path)
    return {field["name"]: field["type"] for field in header.schema["fields"]}, header.codec
