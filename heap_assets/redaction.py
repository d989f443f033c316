"""The one function that blanks secrets and personal data in text that came from outside: :func:`redact`.

Whatever a server, a driver or a file says is redacted before it is kept (sync log, changelog, Dagster's storage,
alerts) or shown (command line, logs). Secrets are those that the deployment knows: they are registered when its
settings are loaded, and are blanked as they are, in base64 at any offset, URL-encoded and JSON-escaped.
"""

from __future__ import annotations

import base64
import functools
import inspect
import ipaddress
import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ParamSpec, TypeVar, cast
from urllib.parse import quote, quote_plus, unquote, urlsplit

P = ParamSpec("P")
R = TypeVar("R")

MASK = "•••"
LONGEST = 300
"""Characters that are kept of a text from outside, unless a caller says otherwise."""
_SHORTEST_SECRET = 6
"""Shorter ones are parts of ordinary words."""
_SHORTEST_VALUE = 3
_WHOLE_WORD = 8
"""Secrets and values shorter than this are blanked only as words of their own."""

_ADDRESS = r"""[^\s@"'<>,;:{}\[\]()=&|\\/?#•]"""
_AT = r"(?:@|%40|\\u0040|&#64;|&#x40;)"
# the look-behind lets a match begin only where a run of such characters begins: linear in the length of the text
_EMAIL = re.compile(rf"(?<!{_ADDRESS}){_ADDRESS}+?{_AT}{_ADDRESS}+", re.IGNORECASE)
_PHONE = re.compile(
    r"""(?<![\w+.-])(?:
        (?:\+|00(?=[1-9]))\d(?:[\s().\-/]{0,2}\d){6,14}                # +49 151 2345678, 0049-151-2345678
      | \(\d{2,5}\)[\s.\-/]?\d{2,4}(?:[\s.\-/]?\d{2,4}){1,3}            # (555) 867-5309
      | \d{3}[\s.\-]\d{3}[\s.\-]\d{4}                                # 555-867-5309
      | 0\d{2,5}[\s/\-]\d{3,4}(?:[\s\-]?\d{2,4}){0,3}                  # 0151 23456789
    )(?![\w])""",
    re.VERBOSE,
)
_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
_IPV6 = re.compile(
    r"(?<![\w:.])(?=[0-9A-Fa-f:.]*:[0-9A-Fa-f.]*:)[0-9A-Fa-f:]{2,39}(?:(?:\d{1,3}\.){3}\d{1,3})?(?![\w:])"
)
_AUTHORIZATION = re.compile(
    r"""(?P<name>\b(?:proxy-)?authorization\b["']?\s*[:=,]\s*(?:b?["'])?)(?:(?:basic|bearer|digest|token|aws4-hmac-sha256)\s+)?[^\s"',;}]+"""
    r"""|(?P<scheme>\b(?:basic|bearer)\s+)[A-Za-z0-9._~+/=\-]{6,}""",
    re.IGNORECASE,
)
_NAMED_SECRET = re.compile(
    r"""(?P<name>(?:password|passwd|pwd|secret|token|api[-_]?key|apikey|access[-_]?key|write[-_]?key|writekey|private[-_]?key|signature|cookie)"""
    r"""(?:[-_](?:id|key|token))?\\?["']?\s*[:=]\s*(?:b?\\?["'])?)[^\s"',;&}\\]+""",
    re.IGNORECASE,
)
_USER_INFO = re.compile(r"(?P<name>(?<![a-z0-9+.\-])[a-z][a-z0-9+.\-]{0,30}://)[^\s/@\"'<>]+@", re.IGNORECASE)
_WEB_TOKEN = re.compile(r"\beyJ[A-Za-z0-9_\-]{5,}\.[A-Za-z0-9_\-]+(?:\.[A-Za-z0-9_\-]*)?")
_CONTROLS = {code: " " for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n\r"}
_QUOTED = re.compile(r"""(?s)"[^"]*"|'[^']*'|`[^`]*`|\[[^\]]*\]""")
_COLUMN = re.compile(r"""column '([^']*)'|column "([^"]*)"|for column `([^`]*)`|in column '([^']*)'""")

_PLAIN_MODULES = ("dagster", "dagster_shared", "click", "asyncio")
_PLAIN_ERRORS = (AttributeError, NameError, ImportError, TypeError, NotImplementedError, AssertionError, MemoryError)
"""Errors about code: what they quote are names."""


class _Secrets:
    """The secrets of this process in all their encodings; shared by all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._forms: frozenset[str] = frozenset()

    def add(self, values: Iterable[str]) -> None:
        new = frozenset(form for value in values if len(value) >= _SHORTEST_SECRET for form in _forms(value))
        with self._lock:
            self._forms |= new

    def blank(self, text: str) -> str:
        # one pattern of all forms takes half a second to compile where a secret is a private key
        forms = [form for form in self._forms if form in text]
        longest_first = sorted(forms, key=lambda form: (-len(form), form))
        return re.sub("|".join(map(_alone, longest_first)), MASK, text) if forms else text


_secrets = _Secrets()
_kept_addresses: set[str] = set()


def register_secrets(values: Iterable[str]) -> None:
    """Remember values that :func:`redact` blanks from now on, for the whole process.

    `values`: secrets as they are; ones shorter than six characters are parts of ordinary words and are left out. Of an
    address (`https://hooks.example/T0/abc?key=1`) its password, path and query are secrets too.
    """
    _secrets.add(part for value in values for part in (value, *_secret_parts(value)))


def keep_addresses(text: str) -> None:
    """Exempt the IP addresses in a text from redaction, for the whole process: those that the settings name."""
    for pattern in (_IPV4, _IPV6):
        _kept_addresses.update(match[0].lower() for match in pattern.finditer(text))


def redact(text: object, personal: Iterable[object] = (), *, longest: int | None = None) -> str:
    """Blank every known secret, authorization header, e-mail address, phone number and IP address of a text.

    Loopback addresses and those of the settings stay: they are no person's.

    Parameters
    ----------
    personal
        Further values to blank: those of the row that the text is about.
    longest
        Characters to keep; cut after everything is blanked, so that no half of a secret is left at the end.
    """
    # control characters and lone surrogates: terminals obey the ones, databases and files refuse the others
    printable = str(text).encode("utf-8", "replace").decode().translate(_CONTROLS)
    redacted = redact_secrets(_without_values(printable, personal))
    for pattern in (_EMAIL, _PHONE):
        redacted = pattern.sub(MASK, redacted)
    for pattern in (_IPV4, _IPV6):
        redacted = pattern.sub(_blank_address, redacted)
    return redacted[:longest]


def redact_secrets(text: str) -> str:
    """Blank known secrets, and whatever a text itself calls a password, a token or an authorization."""
    redacted = _USER_INFO.sub(rf"\g<name>{MASK}@", _secrets.blank(text))
    redacted = _AUTHORIZATION.sub(lambda match: (match["name"] or match["scheme"]) + MASK, redacted)
    redacted = _WEB_TOKEN.sub(MASK, redacted)
    return _NAMED_SECRET.sub(rf"\g<name>{MASK}", redacted)


def redact_error(error: BaseException) -> str:
    """Return the first line of a library's error without what it quotes or brackets, but for a column's name.

    Polars quotes cells: conversion from str to i64 failed in column 'n' for 1 out of 1 values: ["ann@example.com"].
    """
    line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    names = [next(filter(None, match.groups())) for match in _COLUMN.finditer(line)]
    shown = redact(_QUOTED.sub("…", line), longest=LONGEST)
    return f"{shown} (column {', '.join(dict.fromkeys(names))})" if names else shown


def redacted_exception(error: Exception) -> Exception:
    """Return what may be raised in an exception's place: the same place and name, without the values it quotes.

    An error of our own says all in its redacted message; what caused it is left out, as is what caused any other. Of a
    library's error the first line stays, without what it quotes.
    """
    error.__cause__, error.__context__ = None, None
    if getattr(error, "is_redacted", False):
        return error
    if type(error).__module__.partition(".")[0] in _PLAIN_MODULES:
        error.args = tuple(redact(part) if isinstance(part, str) else part for part in error.args)
        return error
    message = redact(error, longest=LONGEST) if isinstance(error, _PLAIN_ERRORS) else redact_error(error)
    # of the same name, which alerts and people go by; it holds nothing but the message
    original: Any = type(error)
    attributes = {"__module__": original.__module__, "is_redacted": True}
    stand_in: type[Exception] = type(original.__qualname__, (Exception,), attributes)
    return stand_in(message).with_traceback(error.__traceback__)


def redacting(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function or generator function so that it raises redacted exceptions only, as Dagster stores them."""

    # raised outside of the handler, or the exception would carry the original as its context
    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            safe = redacted_exception(error)
        raise safe

    @functools.wraps(function)
    def generated(*args: P.args, **kwargs: P.kwargs) -> Iterator[Any]:
        try:
            return (yield from cast("Iterator[Any]", function(*args, **kwargs)))
        except Exception as error:
            safe = redacted_exception(error)
        raise safe

    return cast("Callable[P, R]", generated) if inspect.isgeneratorfunction(function) else called


def _without_values(text: str, personal: Iterable[object]) -> str:
    forms: set[str] = set()
    for value in {str(value) for value in personal if value is not None}:
        if len(value) >= _SHORTEST_VALUE:
            forms.add(value)
            if not (value.isascii() and value.isalnum()):  # all encodings leave plain words, as most are, as they are
                forms |= {_json_escaped(value), quote(value, safe=""), quote_plus(value)}
    for form in sorted((form for form in forms if form in text), key=len, reverse=True):
        text = re.sub(_alone(form), MASK, text)
    return text


def _forms(secret: str) -> Iterator[str]:
    """Yield all that a secret may look like in an answer."""
    yield secret
    for encoded in (quote(secret, safe=""), quote(secret), quote_plus(secret)):
        yield encoded
        yield re.sub(r"%[0-9A-F]{2}", lambda match: match[0].lower(), encoded)
    yield _json_escaped(secret)
    yield _json_escaped(secret).replace("/", "\\/")
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    yield secret.encode().hex()
    for offset in range(3):
        yield from _base64_at(secret.encode(), offset)


def _base64_at(secret: bytes, offset: int) -> Iterator[str]:
    """Yield the part of a base64 text that a secret at this offset determines, whatever is before and after it."""
    before = b"\0" * offset
    certain_digits = len(before + secret) * 8 // 6
    first = -(-offset * 8 // 6)
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        encoded = encode(before + secret).decode()[first:certain_digits]
        if len(encoded) >= _SHORTEST_SECRET:
            yield encoded


def _json_escaped(text: str) -> str:
    return json.dumps(text)[1:-1]


def _secret_parts(value: str) -> Iterator[str]:
    """Yield what is secret about an address on its own; a server may repeat a part of it only."""
    if "://" not in value:
        return
    try:
        parts = urlsplit(value)
    except ValueError:
        return
    if parts.password:
        yield from {parts.password, unquote(parts.password)}
    if parts.scheme not in ("http", "https"):
        return
    path = parts.path.strip("/")
    yield from (text for text in (path, parts.query) if len(text) >= _WHOLE_WORD)
    for segment in path.split("/"):
        if len(segment) >= _WHOLE_WORD and any(letter.isdigit() for letter in segment):
            yield segment
    for pair in parts.query.split("&"):
        if len(word := pair.partition("=")[2]) >= _WHOLE_WORD:
            yield word


def _alone(text: str) -> str:
    """Return a pattern for a text; a short one must not be part of a longer word."""
    pattern = re.escape(text)
    if len(text) >= _WHOLE_WORD:
        return pattern
    return (r"(?<!\w)" if text[0].isalnum() else "") + pattern + (r"(?!\w)" if text[-1].isalnum() else "")


def _blank_address(match: re.Match[str]) -> str:
    try:
        address = ipaddress.ip_address(match[0])
    except ValueError:
        return match[0]
    is_harmless = address.is_loopback or address.is_unspecified or match[0].lower() in _kept_addresses
    return match[0] if is_harmless else MASK
