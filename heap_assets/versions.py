"""Versions of choices: a digest of declared fields, the same with every release of the libraries that hold them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Set
from dataclasses import fields, is_dataclass
from datetime import date, datetime
from enum import Enum
from typing import Any

from heap_assets.yaml_core import Unquoted


def version_of(value: Any, length: int = 16) -> str:
    """Return `length` hex digits of the SHA-256 of a value's canonical JSON.

    Mappings and sets are taken in the order of their keys and members, dataclasses as their fields by name.

    Raises TypeError for a value of any other kind: what makes up a version is named, field by field.
    """
    text = json.dumps(_plain(value), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]


def _plain(value: Any) -> Any:
    if isinstance(value, Unquoted):
        return {"unquoted": str(value)}  # means another thing than the same text in quotes
    if isinstance(value, Enum):
        return _plain(value.value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, date | datetime):
        return value.isoformat()
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, Set):
        return sorted((_plain(entry) for entry in value), key=json.dumps)
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    raise TypeError(f"a {type(value).__name__} is no part of a version: name its fields")
