"""Stitch's tap-heap as it is installed from PyPI, in a virtual environment of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path

import polars as pl

VERSION = "1.4.0"
_HOME = Path(__file__).resolve().parent.parent / ".venvs" / "tap-heap"


def installed() -> Path:
    """Return the tap's command, installing it first if need be."""
    command = _HOME / "bin" / "tap-heap"
    if not command.exists():
        venv.create(_HOME, with_pip=True)
        subprocess.run([_HOME / "bin" / "pip", "install", "-q", f"tap-heap=={VERSION}"], check=True)
    return command


def command(folder: Path, bucket: str, table: str, columns: list[str]) -> list[str]:
    """Write the tap's config and catalog and return how it is started; it writes messages to its standard output."""
    config = {"start_date": "2026-01-01T00:00:00Z", "bucket": bucket, "account_id": "123456789012",
              "external_id": "bench", "role_name": "bench"}  # fmt: skip
    properties = {name: {"type": ["null", "string"]} for name in columns}
    selected = [{"breadcrumb": [], "metadata": {"selected": True, "table-key-properties": ["event_id"]}}]
    selected += [
        {"breadcrumb": ["properties", name], "metadata": {"selected": True, "inclusion": "available"}}
        for name in columns
    ]
    stream = {"stream": table, "tap_stream_id": table, "key_properties": ["event_id"],
              "schema": {"type": "object", "properties": properties}, "metadata": selected}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "catalog.json").write_text(json.dumps({"streams": [stream]}))
    return [str(installed()), "--config", str(folder / "config.json"), "--properties", str(folder / "catalog.json")]


def records(messages: Path, columns: list[str]) -> pl.LazyFrame:
    """Read the RECORD messages that the tap wrote."""
    record = pl.Struct({name: pl.Int64() if name.endswith("_id") and "device" not in name and "a11y" not in name
                        else pl.String() for name in columns})  # fmt: skip
    lines = pl.scan_ndjson(messages, schema={"type": pl.String(), "record": record}, ignore_errors=False)
    return lines.filter(pl.col("type") == "RECORD").select("record").unnest("record")


if __name__ == "__main__":
    print(installed(), file=sys.stderr)
