"""Which values of a deployment are secrets: those of its settings, and of the environment by a variable's name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, SecretStr

_SECRET_NAME = re.compile(
    r"secret|password|passwd|passphrase|(^|[_.\-])(token|credentials?|dsn|sas|pwd|signature|api_?key|key)($|[_.\-\d])",
    re.I,
)
_NO_SECRET = re.compile(r"^(old)?pwd$|key_id$|(^|_)(path|file|folder|dir|name)$", re.I)
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_PASSWORD = re.compile(r"(?i)\bpassword\s*=\s*('(?:[^'\\]|\\.)*'|\S+)")
_DATABASE_URL = re.compile(r"(?i)^[a-z][a-z0-9+.\-]*://[^/@]+@")
_SHORTEST_APP_ID = 5


def secrets_of_environment(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield the values of variables whose name says that they are secret, or that hold an address with a password."""
    for name, value in environ.items():
        if is_secret_name(name) or _DATABASE_URL.match(value):
            yield from _spellings(value)


def secrets_of(settings: BaseModel, environ: Mapping[str, str]) -> Iterator[str]:
    """Yield every secret that settings hold or name: secret fields, passwords in addresses, options, Heap's app id."""
    for key, value, is_option in _leaves("", settings):
        if isinstance(value, SecretStr):
            yield from _spellings(value.get_secret_value())
        elif key.endswith("_env") and key != "user_env":
            yield from _spellings(environ.get(value, ""))
        elif key == "app_id":
            yield from (text for text in (value,) if len(text) >= _SHORTEST_APP_ID)  # a short one is a number like any
        elif (is_option and is_secret_name(key)) or _DATABASE_URL.match(value):
            yield from _spellings(value)


def texts_of(settings: BaseModel) -> Iterator[str]:
    """Yield every text of settings, secrets among them: the machines that they name are in some of these."""
    for _, value, _ in _leaves("", settings):
        yield value.get_secret_value() if isinstance(value, SecretStr) else value


def is_secret_name(name: str) -> bool:
    """Tell whether a variable, an option or a parameter of this name holds a secret."""
    words = _HUMP.sub("_", name)
    return bool(_SECRET_NAME.search(words)) and not _NO_SECRET.search(words)


def _leaves(key: str, value: Any, *, is_option: bool = False) -> Iterator[tuple[str, Any, bool]]:
    """Yield the texts of a tree, each with its key and whether it is a free option: only those go by their names."""
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _leaves(name, getattr(value, name))
    elif isinstance(value, Mapping):
        for name, child in value.items():
            yield from _leaves(str(name), child, is_option=is_option or key.endswith("options"))
    elif isinstance(value, list | tuple):
        for child in value:
            yield from _leaves(key, child, is_option=is_option)
    elif isinstance(value, str | SecretStr):
        yield key, value, is_option


def _spellings(value: str) -> Iterator[str]:
    yield value
    for password in _PASSWORD.findall(value):
        yield re.sub(r"\\(.)", r"\1", password.strip("'"))
    if value.lstrip().startswith("{"):
        try:
            key_file = json.loads(value)
        except ValueError:
            return
        for name, part in key_file.items() if isinstance(key_file, dict) else ():
            if name in ("private_key", "private_key_id", "client_email", "refresh_token", "client_secret"):
                yield str(part)
