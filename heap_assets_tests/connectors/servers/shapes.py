"""Shapes of messages: checks that tell the path of each field that is wrong, and what is wrong with it."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

Refusal = tuple[str, str]
"""Path of the field, and what is wrong with it."""
Check = Callable[[Any, str], Iterator[Refusal]]
SHA256 = re.compile("[0-9a-f]{64}")


def is_sha256(value: Any) -> bool:
    """Whether this is a digest in lower-case hexadecimal digits."""
    return isinstance(value, str) and SHA256.fullmatch(value) is not None


def text(value: Any, path: str) -> Iterator[Refusal]:
    if not isinstance(value, str) or not value:
        yield path, "Required field is not set or is no string."


def number(value: Any, path: str) -> Iterator[Refusal]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        yield path, "Invalid value: a number is expected."


def one_of(values: Sequence[str]) -> Check:
    def check(value: Any, path: str) -> Iterator[Refusal]:
        if value not in values:
            yield path, f"Invalid value: expected one of {', '.join(values)}."

    return check


def pattern(expression: str, what: str) -> Check:
    compiled = re.compile(expression)

    def check(value: Any, path: str) -> Iterator[Refusal]:
        if not isinstance(value, str) or not compiled.fullmatch(value):
            yield path, f"Invalid value: {what}."

    return check


def instant(value: Any, path: str) -> Iterator[Refusal]:
    """RFC 3339, with a zone."""
    try:
        zone = isinstance(value, str) and "T" in value and datetime.fromisoformat(value).tzinfo
    except ValueError:
        zone = None
    if not zone:
        yield path, "Invalid value: a time in RFC 3339 with a zone is expected."


def items(check: Check, least: int, most: int) -> Check:
    def each(value: Any, path: str) -> Iterator[Refusal]:
        if not isinstance(value, list) or not least <= len(value) <= most:
            yield path, f"Between {least} and {most} items are expected."
            return
        for index, item in enumerate(value):
            yield from check(item, f"{path}[{index}]")

    return each


def message(fields: Mapping[str, Check], required: Sequence[str] = (), exactly_one: Sequence[str] = ()) -> Check:
    """An object of these fields and no other; of `exactly_one` one is set."""

    def check(value: Any, path: str) -> Iterator[Refusal]:
        if not isinstance(value, dict):
            yield path, "Invalid value: an object is expected."
            return
        prefix = f"{path}." if path else ""
        for name in value:
            if name not in fields:
                yield path, f'Invalid JSON payload received. Unknown name "{name}": Cannot find field.'
        for name in required:
            if name not in value:
                yield prefix + name, "Required field is not set."
        if exactly_one and sum(name in value for name in exactly_one) != 1:
            yield path, f"Exactly one is expected of {', '.join(exactly_one)}."
        for name, inner in fields.items():
            if name in value:
                yield from inner(value[name], prefix + name)

    return check


def anything(value: Any, path: str) -> Iterator[Refusal]:
    """Whatever is documented elsewhere."""
    return iter(())


def flag(value: Any, path: str) -> Iterator[Refusal]:
    if not isinstance(value, bool):
        yield path, "Invalid value: true or false is expected."


def values(record: Any) -> Iterator[str]:
    """Return every text in a record, by which `bad_row` may name it."""
    if isinstance(record, Mapping):
        for inner in record.values():
            yield from values(inner)
    elif isinstance(record, list):
        for inner in record:
            yield from values(inner)
    elif isinstance(record, str):
        yield record


def cut(value: Any, most: int) -> Any:
    """Return the value with its texts cut to so many characters, as vendors do without a word."""
    if isinstance(value, dict):
        return {name: cut(inner, most) for name, inner in value.items()}
    if isinstance(value, list):
        return [cut(inner, most) for inner in value]
    return value[:most] if isinstance(value, str) else value


def depth(value: Any) -> int:
    """How deep objects and lists are nested."""
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


def basic(user: str, password: str) -> str:
    """Return the header of Basic authorisation."""
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


def fits(value: Any, template: Any) -> bool:
    """Whether JSON has the types of a template: `{name: …}` (of names that are there), `[…]`, a type, a union."""
    if isinstance(template, dict):
        return isinstance(value, dict) and all(fits(value[name], template[name]) for name in template if name in value)
    if isinstance(template, list):
        return isinstance(value, list) and all(fits(item, template[0]) for item in value)
    return isinstance(value, template)


def listed(value: Any) -> list[Any]:
    """Return a list as it is, nothing as an empty one, anything else as a list of one."""
    return value if isinstance(value, list) else [] if value is None else [value]


def counted(value: Any) -> float:
    """Return a number as it is, anything else as 0."""
    return value if isinstance(value, int | float) else 0


def names(text: str) -> frozenset[str]:
    """Return the names that blanks part."""
    return frozenset(text.split())
