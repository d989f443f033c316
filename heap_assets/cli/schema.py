"""`heap-assets schema`: what editors know heap_assets.yaml by."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import click

from heap_assets.config import settings_path
from heap_assets.project import settings_schema
from heap_assets.quality import Thresholds

SCHEMA_FILE = "heap_assets.schema.json"


@click.command()
@click.option(
    "--out", type=click.Path(path_type=Path, allow_dash=True), help=f"[default: {SCHEMA_FILE} beside the settings]"
)
def schema(out: Path | None) -> None:
    """Write the JSON Schema of heap_assets.yaml, by which editors complete, explain and check its keys.

    `heap-assets init` writes it too, and the line `# yaml-language-server: $schema=./heap_assets.schema.json` that
    editors find it by. Write it again after an upgrade, or when a connector of your own is installed. `-` prints it.
    """
    if out == Path("-"):
        click.echo(schema_text(), nl=False)
        return
    path = out or settings_path().parent / SCHEMA_FILE
    path.write_text(schema_text())
    click.echo(f"Wrote {path}")


def schema_text() -> str:
    """Return the schema as JSON, with the names of thresholds as the keys of `checks:`."""
    document = settings_schema()
    checks = document["properties"]["checks"]
    number = checks.pop("additionalProperties")
    checks["properties"] = {
        threshold.name: {**number, "default": threshold.default, "description": threshold.metadata["meaning"]}
        for threshold in fields(Thresholds)
    }
    checks["additionalProperties"] = False
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"
