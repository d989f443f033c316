"""Definitions of audiences in files of their own: JSON as the guides of Heap have it, or YAML."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from heap_assets.errors import SettingsError
from heap_assets.yaml_core import read_yaml

_SUFFIXES = (".json", ".yaml", ".yml")


def with_audience_files(settings: Any, folder: Path) -> Any:
    """Return raw settings whose `profiles.audiences` has the definitions of `profiles.audience_files` too.

    A file holds `{"name": …, "definition": {…}}` or a list of those; of a folder all files are read, by name. The key
    of an audience is its name in lower case with `_` for what is no letter or digit.

    Raises SettingsError: a file is missing, is no JSON or YAML, or has an audience without a name or one that there is
    already.
    """
    profiles = settings.get("profiles") if isinstance(settings, dict) else None
    files = profiles.get("audience_files") if isinstance(profiles, dict) else None
    written = profiles.get("audiences") or {} if isinstance(profiles, dict) else {}
    if not isinstance(files, list) or not isinstance(written, dict) or not isinstance(profiles, dict):
        return settings  # none, or a mistake that the models tell
    audiences = dict(written)
    for index, path in enumerate(files):
        for file in _files(folder / str(path), f"profiles.audience_files[{index}]"):
            for key, definition in read_audiences(file):
                if key in audiences:
                    raise SettingsError(f"{file.name}: there is an audience {key!r} already; give it another name")
                audiences[key] = definition
    return {**settings, "profiles": {**profiles, "audiences": audiences}}


def read_audiences(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield key and definition of the audiences of a file; SettingsError names the file."""
    text = file.read_text(encoding="utf-8")
    try:
        value = json.loads(text) if file.suffix == ".json" else read_yaml(text, file.name)
    except json.JSONDecodeError as error:
        raise SettingsError(f"{file.name}, line {error.lineno}: no JSON: {error.msg}") from error
    for definition in value if isinstance(value, list) else [value]:
        name = definition.get("name") if isinstance(definition, dict) else None
        if not isinstance(name, str) or not (key := re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")):
            raise SettingsError(f'{file.name}: expected {{"name": …, "definition": {{…}}}}, or a list of those')
        yield key, definition


def _files(path: Path, where: str) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES)
    if not path.is_file():
        raise SettingsError(f"{where} is {path.name!r}, and there is no such file or folder beside the settings")
    return [path]
