"""Reads a company's bucket as a stranger would: through manifests and an Avro reader."""

import json
from pathlib import Path
from typing import Any

import fastavro

from heap_assets.demo import Company


def manifests(company: Company) -> list[dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in (company.bucket / "manifests").iterdir()]
    return sorted(found, key=lambda manifest: manifest["dump_id"])


def table(manifest: dict[str, Any], name: str) -> dict[str, Any]:
    return next(entry for entry in manifest["tables"] if entry["name"] == name)


def path_of(company: Company, uri: str) -> Path:
    return company.bucket / uri.removeprefix("s3://").partition("/")[2]


def listed_files(company: Company) -> list[Path]:
    uris = [uri for manifest in manifests(company) for entry in manifest["tables"] for uri in entry["files"]]
    return [path_of(company, uri) for uri in uris]


def rows(company: Company, manifest: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for uri in table(manifest, name)["files"]:
        with path_of(company, uri).open("rb") as file:
            found.extend(fastavro.reader(file))  # type: ignore[arg-type]
    return found
