"""What all sections share: unknown keys are mistakes, values do not change once loaded, a mistake is one line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from functools import cache
from typing import Annotated, Final
from zoneinfo import available_timezones

from croniter import CroniterError, croniter  # type: ignore[import-untyped]
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict
from pydantic_core import ErrorDetails

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}\Z")
_CRON_FIELDS = 5
_OWNER = re.compile(r"team:[^\s:]+|[^\s@]+@[^\s@]+\.[^\s@]+")


class Section(BaseModel):
    """One section of heap_assets.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def _day(value: object) -> object:
    """Take a day as it is written; pydantic alone reads 20260101 as seconds since 1970."""
    if not isinstance(value, str):
        return value
    if not _DAY.match(value):
        raise ValueError("a day such as 2026-01-31")
    try:
        return date.fromisoformat(value)
    except ValueError as error:
        raise ValueError(f"a day such as 2026-01-31; there is no such date: {error}") from error


def _cron(value: str) -> str:
    if value.startswith("@"):
        fits = croniter.is_valid(value)
    else:
        fits = len(value.split()) == _CRON_FIELDS and croniter.is_valid(value)
    try:
        if fits:
            croniter(value, datetime(2026, 1, 1)).get_next()
    except CroniterError:
        fits = False
    if not fits:
        raise ValueError(
            'a cron expression of five fields in UTC (minute, hour, day, month, weekday) such as "30 2 * * *", '
            "or @hourly, @daily, @weekly, @monthly"
        )
    return value


Day = Annotated[date, BeforeValidator(_day)]
"""A day as YYYY-MM-DD."""

Cron = Annotated[str, AfterValidator(_cron)]
"""A schedule that Dagster can keep."""


_zones = cache(available_timezones)
"""Their names, which are read from many files."""


def _time_zone(value: str) -> str:
    if value not in _zones():
        raise ValueError("a name of the time zone database, such as UTC or America/New_York")
    return value


TimeZone = Annotated[str, AfterValidator(_time_zone)]
"""A time zone by its name."""


def _owner(value: str) -> str:
    if not _OWNER.fullmatch(value):
        raise ValueError("an email address, or team:name")
    return value


Owner = Annotated[str, AfterValidator(_owner)]
"""An email address, or `team:name`."""

Owners = Annotated[list[Owner], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]
"""One owner or a list of them."""


_TEXT, _SECTION, _NUMBER, _INTEGER = "text", "keys, each with its value", "a number", "a whole number"
_WORDS: Final[Mapping[str, str]] = {
    "string_type": _TEXT,
    "path_type": "a path",
    "list_type": "a list",
    "dict_type": _SECTION,
    "model_type": _SECTION,
    "model_attributes_type": _SECTION,
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "int_type": _INTEGER,
    "int_parsing": _INTEGER,
    "int_parsing_size": _INTEGER,
    "int_from_float": _INTEGER,
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
    if kind in ("too_short", "too_long"):  # of a list or of keys
        bound, count = ("least", context["min_length"]) if kind == "too_short" else ("most", context["max_length"])
        return f"at {bound} {count} {'entry' if count == 1 else 'entries'}"
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return _WORDS.get(kind, message[:1].lower() + message[1:])


def alternatives(errors: Iterable[ErrorDetails]) -> str:
    """Return what was expected where a value may be of several kinds: each kind once."""
    return " or ".join(dict.fromkeys(map(expected, errors)))


def one_line(message: str) -> str:
    """Return a message as one line, with words that nobody would read to their end cut."""
    printable = "".join(character if character.isprintable() else " " for character in message)
    return _LONG.sub(lambda word: f"{word[0][:80]}…", " ".join(printable.split()))
