"""Secrets belong into the environment: what of the settings file may not stand in the file itself."""

from __future__ import annotations

import ipaddress
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
        what = "an address that may have a token in it" if key == "url" else "a secret"
        yield WrittenSecret(path, what, f"its value from the environment, as {_as(path)}")


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
        for match in (found for pattern in patterns for found in pattern.finditer(raw)):
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
