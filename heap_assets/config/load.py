"""Read heap_assets.yaml: fill in ${VARIABLES}, validate, and turn every mistake into one clear message."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from heap_assets.config.audience_files import with_audience_files
from heap_assets.config.base import alternatives, one_line
from heap_assets.config.derived import models_of_folder
from heap_assets.config.kinds import Kinds, settings_model
from heap_assets.config.models import Settings
from heap_assets.config.secrets import secrets_of, secrets_of_environment, texts_of, written_secret
from heap_assets.errors import SettingsError, did_you_mean
from heap_assets.redaction import keep_addresses, register_secrets
from heap_assets.yaml_core import Unquoted, line_of, read_yaml, unquoted

Checks = Sequence[Callable[[Settings], object]]
"""Each raises SettingsError, with a message that begins with the key, if it does not accept a value."""

FILE_NAME = "heap_assets.yaml"
PATH_VARIABLE = "HEAP_ASSETS_SETTINGS"
_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(:-(?P<default>[^}]*))?\}")


def settings_path() -> Path:
    """Return the settings file in use: `$HEAP_ASSETS_SETTINGS`, else heap_assets.yaml of the current folder."""
    return Path(os.environ.get(PATH_VARIABLE, FILE_NAME)).absolute()


def load_settings(kinds: Kinds, checks: Checks, path: Path | None = None) -> Settings:
    """Read and validate the settings file.

    Relative paths in it are relative to the file, not to the current folder.

    Parameters
    ----------
    kinds
        Of which its sections may be.
    checks
        What is asked of settings whose form is right, by those who know what the values mean.

    Raises
    ------
    SettingsError
        One message naming the key, its value and what was expected.
    """
    path = path or settings_path()
    if not path.is_file():
        raise SettingsError(f"{path} does not exist: `heap-assets init` writes one to start from")
    return parse_settings(path.read_text(), path, kinds, checks)


def parse_settings(text: str, path: Path, kinds: Kinds, checks: Checks) -> Settings:
    """Validate the text of a settings file that lies (or would lie) at `path`."""
    raw = read_yaml(text, path.name)
    if not isinstance(raw, dict):
        raise SettingsError(f"{path.name} is empty: `heap-assets init` writes one to start from")
    register_secrets(secrets_of_environment(os.environ))
    file = _File(path.name, text, raw, settings_model(kinds))
    filled = _with_models(with_audience_files(_fill(raw, file, ()), path.parent), path.parent)
    try:
        settings = file.model.model_validate(filled)
    except ValidationError as error:
        raise SettingsError(one_line(_describe(file, error.errors(), filled))) from None
    for check in checks:
        try:
            check(settings)
        except SettingsError as error:
            message = str(error)
            raise SettingsError(one_line(f"{file.at(_path_in(message, filled))}: {message}")) from error
    register_secrets(secrets_of(settings, os.environ))
    keep_addresses("\n".join(texts_of(settings)))
    if secret := written_secret(settings, raw):
        raise SettingsError(
            f"{file.at(secret.path)}: {path_text(secret.path)} holds {secret.what}; expected: {secret.expected}"
        )
    return _anchored(settings, path.parent)


def _with_models(filled: Any, folder: Path) -> Any:
    """Return raw settings that have the models of `models_folder` among `models`, and files by their whole paths."""
    if not isinstance(filled, dict):
        return filled
    models, named = filled.get("models") or {}, filled.get("models_folder")
    if isinstance(named, str) and isinstance(models, dict):
        try:
            models = {**models_of_folder(folder / named), **models}
        except (OSError, ValueError) as error:
            raise SettingsError(f"models_folder: {error}") from error
    if not isinstance(models, dict):
        return filled
    anchored = {
        key: {**model, "file": str(folder / model["file"])}
        if isinstance(model, dict) and isinstance(model.get("file"), str)
        else model
        for key, model in models.items()
    }
    return {**filled, "models": anchored} if anchored else filled


@dataclass(frozen=True)
class _File:
    """The file that a message is about."""

    name: str
    text: str
    raw: Any
    model: type[Settings]

    def at(self, path: Sequence[str | int]) -> str:
        """Return the name of the file, and the line of the last part of `path` that stands in it."""
        line = line_of(self.text, path)
        return f"{self.name}, line {line}" if line else self.name


def path_text(path: Sequence[str | int]) -> str:
    """Format a path for messages: `identity.identifiers[2].normalise`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def _fill(value: Any, file: _File, path: tuple[str | int, ...]) -> Any:
    if isinstance(value, dict):
        return {key: _fill(entry, file, (*path, key)) for key, entry in value.items()}
    if isinstance(value, list):
        return [_fill(entry, file, (*path, index)) for index, entry in enumerate(value)]
    if not isinstance(value, str) or "${" not in value:
        return value

    def replace(match: re.Match[str]) -> str:
        content = os.environ.get(match["name"], match["default"])
        if content is None:
            raise SettingsError(
                f"{file.at(path)}: {path_text(path)} needs the environment variable {match['name']}, which is not set "
                f"(write ${{{match['name']}:-value}} for a default)"
            )
        return content

    return unquoted(_VARIABLE.sub(replace, value))


def _describe(file: _File, errors: Sequence[ErrorDetails], raw: dict[str, Any]) -> str:
    # a misspelt key is also a missing one: naming the misspelling helps more
    error = min(errors, key=lambda e: e["type"] != "extra_forbidden")
    path = _path_of(error, raw)
    where, kind = path_text(path), error["type"]
    at = file.at(path)
    if kind == "extra_forbidden":
        keys = _keys_of(file.model, error["loc"])
        hint = did_you_mean(str(error["loc"][-1]), keys)
        return f"{at}: {where} is not a known key. Known: {', '.join(keys)}.{hint}"
    if kind in ("missing", "union_tag_not_found"):
        return f"{at}: {where} is missing"
    message = error["msg"].removeprefix("Value error, ")
    if kind == "value_error" and isinstance(error["input"], dict):
        # said by a section as a whole: what is wrong, not what a value should be
        named = _path_in(message, raw)
        if not where or named[: len(path)] == path:
            return f"{file.at(named)}: {message}"
        return f"{at}: {where}: {message}"
    if kind == "string_type" and path[-1:] == ("credentials",):
        return f"{at}: {where} holds a key; expected: the path of a key file, or its JSON from the environment"
    return _describe_value(file, errors, path, raw)


def _describe_value(
    file: _File, errors: Sequence[ErrorDetails], path: tuple[str | int, ...], raw: dict[str, Any]
) -> str:
    """Say what stands at the innermost place at or below `path` that is wrong, and what each alternative expects."""
    below = [(_path_of(error, raw), error) for error in errors]
    path = max((inner for inner, _ in below if inner[: len(path)] == path), key=len)
    errors_at_path = [error for inner, error in below if inner == path]
    value = errors_at_path[0]["input"]
    if errors_at_path[0]["type"] == "union_tag_invalid":
        value = errors_at_path[0]["ctx"]["tag"]
    plain = isinstance(value, str | int | float) and not _is_secret(path)
    shown = f" is {value if isinstance(value, Unquoted) else repr(value)}" if plain else ""
    return f"{file.at(path)}: {path_text(path)}{shown}; expected: {alternatives(errors_at_path)}"


def _is_secret(path: Sequence[int | str]) -> bool:
    # an address may have a password or a token in it, and so may anything below options and headers
    words = ("secret", "key", "password", "dsn", "credentials", "url", "external_id")
    return any(word in str(path[-1:]) for word in words) or bool({"options", "headers"} & {*path})


def _path_of(error: ErrorDetails, raw: Any) -> tuple[str | int, ...]:
    """Return the place of an error as the user wrote it: what pydantic adds for unions and keys is not in the file."""
    path: list[str | int] = []
    value: Any = raw
    for part in error["loc"]:
        in_list = isinstance(value, list) and isinstance(part, int) and part < len(value)
        if in_list or (isinstance(value, dict) and part in value):
            path.append(part)
            value = value[part]
    if error["type"] in ("missing", "extra_forbidden") and path[-1:] != [error["loc"][-1]]:
        path.append(error["loc"][-1])
    if error["type"].startswith("union_tag_"):
        path.append(error["ctx"]["discriminator"].strip("'"))
    return tuple(path)


def _path_in(message: str, raw: Any) -> tuple[str | int, ...]:
    """Return the path that a message begins with, as far as the file has it."""
    path: list[str | int] = []
    remaining, value = message, raw
    while True:
        step = re.match(r"\[([0-9]{1,9})\]", remaining)
        if isinstance(value, list) and step and int(step[1]) < len(value):
            path.append(int(step[1]))
            value, remaining = value[int(step[1])], remaining[step.end() :]
        elif isinstance(value, dict) and (keys := [k for k in value if _begins(remaining.removeprefix("."), k)]):
            key = max(keys, key=len)
            path.append(key)
            value, remaining = value[key], remaining.removeprefix(".")[len(key) :]
        else:
            return tuple(path)


def _begins(text: str, key: str) -> bool:
    return text.startswith(key) and not re.match(r"\w", text[len(key) :])


def _keys_of(settings: type[Settings], loc: tuple[int | str, ...]) -> list[str]:
    model: Any = settings
    for part in loc[:-1]:
        model = _descend(model, part)
        if model is None:
            return []
    models = list(_models(model))
    if len(models) != 1:
        return []
    model = models[0]
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
        kinds = [candidate.model_fields[tag] for tag in ("kind", "cluster") if tag in candidate.model_fields]
        if part == candidate.__name__ or any(part in get_args(kind.annotation) for kind in kinds):
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
    if source.kind in ("folder", "files") and source.path is not None:
        changes["heap"] = settings.heap.model_copy(
            update={"source": source.model_copy(update={"path": folder / source.path})}
        )
    if settings.models_folder is not None:
        changes["models_folder"] = str(folder / settings.models_folder)
    if settings.labels is not None:
        changes["labels"] = settings.labels.model_copy(update={"file": str(folder / settings.labels.file)})
    changes["reports"] = {name: report.anchored(folder) for name, report in settings.reports.items()}
    functions = settings.functions
    changes["functions"] = functions.model_copy(update={"folder": folder / functions.folder})
    changes["warehouse"] = settings.warehouse.anchored(folder) if settings.warehouse else None
    changes["sources"] = {name: source.anchored(folder) for name, source in settings.sources.items()}
    changes["sync"] = {name: sync.anchored(folder) for name, sync in settings.sync.items()}
    if settings.inbox is not None and settings.inbox.spool is not None:
        changes["inbox"] = settings.inbox.model_copy(update={"spool": folder / settings.inbox.spool})
    if settings.privacy.pseudonyms is not None:
        pseudonyms = str(folder / settings.privacy.pseudonyms)
        changes["privacy"] = settings.privacy.model_copy(update={"pseudonyms": pseudonyms})
    files = {name: getattr(settings.identity, name) for name in ("suppressed", "decisions")}
    named: dict[str, Any] = {name: str(folder / file) for name, file in files.items() if file}
    engine = settings.identity.engine
    if not isinstance(engine, str) and engine.spark.cluster == "local" and engine.spark.work:
        spark = engine.spark.model_copy(update={"work": str(folder / engine.spark.work)})
        named["engine"] = engine.model_copy(update={"spark": spark})
    if named:
        changes["identity"] = settings.identity.model_copy(update=named)
    return settings.model_copy(update=changes)
