"""Secrets belong into the environment: what of the settings file may not stand in the file itself."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, SecretStr

_VARIABLE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")
_USER_AND_PASSWORD = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/\s:@]*:(?P<password>[^/\s]*)@")
_KEYWORD_PASSWORD = re.compile(r"(?:\A|[\s?&])(?:ssl)?password\s*=\s*(?P<password>'[^']*'|[^\s&]+)", re.IGNORECASE)
_DSN_PASSWORD = re.compile(r"\A[A-Za-z][A-Za-z0-9+.-]*://[^/\s:@]*:(?P<password>[^\s]*)@")
_INCOMING_WEBHOOK = re.compile(r"hooks\.slack\.com/[a-z]+/(?P<password>\S+)")
_NAMES_A_SECRET = re.compile(r"secret|token|password|passwd|private|credential|api_?key|access_?key\Z|account_?key|sas",
                             re.IGNORECASE)  # fmt: skip
_ADDRESS = re.compile(r"https?://[^\s\"',}]+")
_ADDRESSES = ("url", "base_url")

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class WrittenSecret:
    """A secret that stands in the file: where, what it is, what should stand there. Never the secret itself."""

    path: Path
    what: str
    expected: str


def written_secret(settings: BaseModel, raw: Any) -> WrittenSecret | None:
    """Return the first secret that the file itself holds, or None.

    Held against the file before variables are filled in: every secret field, values of `headers` and `options` whose
    name says that they are secret, and passwords in any address. A default (`${NAME:-value}`) stands in the file, too.
    What is sent to a server on this machine (a local stand-in of a vendor) is no secret.

    Parameters
    ----------
    settings
        As validated, with variables filled in.
    raw
        The document, with variables as they are written.
    """
    return next(_of_model(settings, raw, ()), None) or next(_passwords(raw, ()), None)


def _of_model(model: BaseModel, raw: Any, path: Path) -> Iterator[WrittenSecret]:
    if not isinstance(raw, Mapping) or _is_local(model):
        return
    for name, field in type(model).model_fields.items():
        key = field.alias or name
        if key in raw:
            yield from _of_value(getattr(model, name), raw[key], (*path, key))


def _of_value(value: Any, raw: Any, path: Path) -> Iterator[WrittenSecret]:
    if isinstance(value, BaseModel):
        yield from _of_model(value, raw, path)
    elif isinstance(value, Mapping) and isinstance(raw, Mapping):
        texts = [entry for entry in value.values() if isinstance(entry, str)]
        if any(is_this_machine(address) for text in texts for address in _ADDRESS.findall(text)):
            return  # an object store's stand-in
        for key, entry in value.items():
            named = isinstance(entry, str) and _NAMES_A_SECRET.search(str(key))
            yield from _of_value(SecretStr(entry) if named else entry, raw.get(key), (*path, key))
    elif isinstance(value, list) and isinstance(raw, list):
        for index, (entry, written) in enumerate(zip(value, raw, strict=False)):
            yield from _of_value(entry, written, (*path, index))
    elif isinstance(value, SecretStr):
        yield from _of_secret(value.get_secret_value(), str(raw), path)


def _of_secret(value: str, written: str, path: Path) -> Iterator[WrittenSecret]:
    key = str(path[-1])
    if key == "credentials":
        # the path of a key file is no secret, and only a key is written with braces
        if written.lstrip().startswith("{") or _default_of(written).lstrip().startswith("{"):
            yield WrittenSecret(
                path, "a key", f"the path of a key file, or its JSON from the environment, as {_as(path)}"
            )
    elif key == "dsn":
        yield from _passwords(written, path)
    elif value and not _VARIABLE.search(written):
        description = "an address that may have a token in it" if key == "url" else "a secret"
        yield WrittenSecret(path, description, f"its value from the environment, as {_as(path)}")


def _passwords(raw: Any, path: Path) -> Iterator[WrittenSecret]:
    """Find passwords in addresses, wherever they stand."""
    if isinstance(raw, Mapping):
        for key, entry in raw.items():
            yield from _passwords(entry, (*path, key))
    elif isinstance(raw, list):
        for index, entry in enumerate(raw):
            yield from _passwords(entry, (*path, index))
    elif isinstance(raw, str) and path:
        dsn = (_DSN_PASSWORD, _KEYWORD_PASSWORD) if path[-1] == "dsn" else ()
        patterns = (*dsn, _USER_AND_PASSWORD, _INCOMING_WEBHOOK)
        for match in (m for pattern in patterns for m in pattern.finditer(raw)):
            if not dsn and is_this_machine(raw):
                continue
            if match["password"].strip("'") and not _VARIABLE.fullmatch(match["password"].strip("'")):
                yield WrittenSecret(
                    path, "a password", f"all of it, or the password, from the environment, as {_as(path)}"
                )


def _default_of(written: str) -> str:
    return written.partition(":-")[2] if written.startswith("${") else ""


def _as(path: Path) -> str:
    names = [str(part) for part in path if isinstance(part, str)]
    return "${" + re.sub(r"\W+", "_", "_".join(names[-2:])).upper() + "}"


def _is_local(model: BaseModel) -> bool:
    """Whether a section sends to a server on this machine."""
    for name in _ADDRESSES:
        address = getattr(model, name, None)
        text = address.get_secret_value() if isinstance(address, SecretStr) else address
        if isinstance(text, str) and text:
            return is_this_machine(text)
    return False


def is_this_machine(address: str) -> bool:
    """Say whether an address names a server on this machine: `localhost`, or a loopback number."""
    try:
        host = urlsplit(address).hostname or ""
        return host == "localhost" or host.endswith(".localhost") or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


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
        except (ValueError, RecursionError):
            return
        for name, part in key_file.items() if isinstance(key_file, dict) else ():
            if name in ("private_key", "private_key_id", "client_email", "refresh_token", "client_secret"):
                yield str(part)
