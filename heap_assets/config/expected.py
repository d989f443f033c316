"""What a key should have held, in the words of the settings file rather than of pydantic."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from pydantic_core import ErrorDetails

_TEXT, _SECTION, _NUMBER, _WHOLE = "text", "keys, each with its value", "a number", "a whole number"
_WORDS: Final[Mapping[str, str]] = {
    "string_type": _TEXT,
    "path_type": "a path",
    "list_type": "a list",
    "dict_type": _SECTION,
    "model_type": _SECTION,
    "model_attributes_type": _SECTION,
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_parsing_size": _WHOLE,
    "int_from_float": _WHOLE,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": "a number, not an infinite one",
    "date_type": "a day such as 2026-01-31",
    "string_unicode": "text without half characters",
}
_LONG: Final = re.compile(r"\S{120,}")


def expected(error: ErrorDetails) -> str:
    """Return what was expected instead of the value of an error, as the end of a sentence."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "union_tag_invalid":
        return f"one of {context['expected_tags']}"
    if kind in ("literal_error", "enum"):
        return str(context["expected"])
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return _WORDS.get(kind, message[:1].lower() + message[1:])


def alternatives(errors: Iterable[ErrorDetails]) -> str:
    """Return what was expected where a value may be of several kinds: each kind once."""
    return " or ".join(dict.fromkeys(map(expected, errors)))


def one_line(message: str) -> str:
    """Return a message as one line, with words that nobody would read to their end cut."""
    printable = "".join(character if character.isprintable() else " " for character in message)
    return _LONG.sub(lambda word: f"{word[0][:80]}…", " ".join(printable.split()))
