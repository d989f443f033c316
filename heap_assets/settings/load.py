"""Read heap_assets.yaml: fill in ${VARIABLES}, validate, and turn every mistake into one clear message."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from heap_assets.errors import SettingsError
from heap_assets.settings.models import Settings
from heap_assets.settings.publish import check_no_secrets

FILE_NAME = "heap_assets.yaml"
PATH_VARIABLE = "HEAP_ASSETS_SETTINGS"
_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(:-(?P<default>[^}]*))?\}")


def settings_path() -> Path:
    """Return the settings file in use: `$HEAP_ASSETS_SETTINGS`, else heap_assets.yaml of the current folder."""
    return Path(os.environ.get(PATH_VARIABLE, FILE_NAME)).absolute()


def load_settings(path: Path | None = None) -> Settings:
    """Read and validate the settings file.

    Relative paths in it are relative to the file, not to the current folder.

    Raises
    ------
    SettingsError
        One message naming the key, its value and what was expected.
    """
    path = path or settings_path()
    if not path.is_file():
        raise SettingsError(f"{path} does not exist: `heap-assets init` writes one to start from")
    return parse_settings(path.read_text(), path)


def parse_settings(text: str, path: Path) -> Settings:
    """Validate the text of a settings file that lies (or would lie) at `path`."""
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SettingsError(f"{path.name} is not YAML: {error}") from error
    except ValueError as error:  # YAML reads 2026-13-01 as a date
        raise SettingsError(f"{path.name} holds a date that does not exist: {error}") from error
    if not isinstance(raw, dict):
        raise SettingsError(f"{path.name} is empty: `heap-assets init` writes one to start from")
    check_no_secrets(raw, path.name)
    filled = _fill(raw, path.name, "")
    try:
        settings = Settings.model_validate(filled)
    except ValidationError as error:
        # a misspelt key is also a missing one: naming the misspelling helps more
        first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        raise SettingsError(_describe(path.name, first, filled)) from None
    return _anchored(settings, path.parent)


def _fill(value: Any, file: str, where: str) -> Any:
    if isinstance(value, dict):
        return {k: _fill(v, file, f"{where}.{k}".lstrip(".")) for k, v in value.items()}
    if isinstance(value, list):
        return [_fill(v, file, f"{where}[{i}]") for i, v in enumerate(value)]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        found = os.environ.get(match["name"], match["default"])
        if found is None:
            raise SettingsError(
                f"{file}: {where} needs the environment variable {match['name']}, which is not set "
                f"(write ${{{match['name']}:-value}} for a default)"
            )
        return found

    return _VARIABLE.sub(replace, value)


def _describe(file: str, error: ErrorDetails, raw: dict[str, Any]) -> str:
    where = _path_of(error["loc"], raw)
    kind = error["type"]
    if kind == "extra_forbidden":
        known = _known_keys(error["loc"], raw)
        close = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        return f"{file}: {where} is not a known key. Known: {', '.join(known)}.{hint}"
    if kind == "missing":
        return f"{file}: {where} is missing"
    message = error["msg"].removeprefix("Value error, ")
    if not where:
        return f"{file}: {message}"
    if kind == "value_error" and isinstance(
        error["input"], dict
    ):  # said by a section as a whole: what is wrong, not what a value should be
        return f"{file}: {message}" if message.startswith(where) else f"{file}: {where}: {message}"
    plain = isinstance(error["input"], str | int | float) and not _is_secret(error)
    shown = f" is {error['input']!r}" if plain else ""
    return f"{file}: {where}{shown}; expected: {message[:1].lower() + message[1:]}"


def _is_secret(error: ErrorDetails) -> bool:
    # an address may have a password or a token in it
    return any(word in str(error["loc"][-1:]) for word in ("secret", "key", "password", "dsn", "credentials", "url"))


def _path_of(loc: tuple[int | str, ...], raw: Any) -> str:
    """Spell a location as the user wrote it: union tags that pydantic adds are not keys of the file."""
    path, here = "", raw
    for index, part in enumerate(loc):
        if index and isinstance(here, dict) and part not in here and part == here.get("kind", loc[index - 1]):
            continue
        if isinstance(part, int):
            path, here = f"{path}[{part}]", here[part] if isinstance(here, list) and part < len(here) else None
        elif (isinstance(here, dict) and part in here) or index == len(loc) - 1:
            path, here = f"{path}.{part}".lstrip("."), here.get(part) if isinstance(here, dict) else None
    return path


def _known_keys(loc: tuple[int | str, ...], raw: Any) -> list[str]:
    model: Any = Settings
    for part in loc[:-1]:
        model = _descend(model, part)
        if model is None:
            return []
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return []
    return sorted(field.alias or name for name, field in model.model_fields.items())


def _descend(model: Any, part: int | str) -> Any:
    """Follow one step of a pydantic error location through models, lists, dictionaries and tagged unions."""
    if isinstance(model, type) and issubclass(model, BaseModel):
        field = model.model_fields.get(str(part))
        return field.annotation if field else None
    if get_origin(model) in (dict, list):
        return get_args(model)[-1]
    models = list(_models(model))
    for candidate in models:
        kind = candidate.model_fields.get("kind")
        if kind is not None and part in get_args(kind.annotation):
            return candidate
    return _descend(models[0], part) if len(models) == 1 else None


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models that an annotation names, through unions and `Annotated`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) not in (dict, list):
        for argument in get_args(annotation):
            yield from _models(argument)


def _anchored(settings: Settings, folder: Path) -> Settings:
    """Make the file's relative paths relative to the file."""
    changes: dict[str, Any] = {"catalogue": folder / settings.catalogue}
    if "://" not in settings.lake.url:
        changes["lake"] = settings.lake.model_copy(update={"url": str(folder / settings.lake.url)})
    source = settings.heap.source
    if source.kind == "folder":
        changes["heap"] = settings.heap.model_copy(
            update={"source": source.model_copy(update={"path": folder / source.path})}
        )
    if settings.warehouse is not None and settings.warehouse.kind == "duckdb":
        changes["warehouse"] = settings.warehouse.model_copy(update={"path": folder / settings.warehouse.path})
    changes["sync"] = {
        name: sync.model_copy(update={"tracking_plan": folder / sync.tracking_plan})
        if sync.kind == "segment_track" and sync.tracking_plan
        else sync
        for name, sync in settings.sync.items()
    }
    if settings.identity.suppressed:
        changes["identity"] = settings.identity.model_copy(
            update={"suppressed": str(folder / settings.identity.suppressed)}
        )
    return settings.model_copy(update=changes)
