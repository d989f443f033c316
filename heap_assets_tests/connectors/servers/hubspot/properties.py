"""Properties and what they take; paths of the old and of the dated versions."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from heap_assets_tests.connectors.servers.core import route

STAGES = ("subscriber", "lead", "marketingqualifiedlead", "salesqualifiedlead", "opportunity", "customer", "evangelist")
VERSIONS = ("2026-03", "2026-09")


@dataclass(frozen=True)
class Property:
    """`type` is string, number, bool, date, datetime or enumeration; `many` takes several options, joined by `;`."""

    type: str = "string"
    unique: bool = False
    read_only: bool = False
    options: tuple[str, ...] = ()
    many: bool = False

    def problem(self, value: str) -> str | None:
        """Return the code by which a text is refused; None if it is good, as `""`, which clears, always is."""
        if self.read_only:
            return "READ_ONLY_VALUE"
        if value == "":
            return None
        good = {
            "number": lambda: re.fullmatch(r"-?\d+(\.\d+)?", value) is not None,
            "bool": lambda: value in ("true", "false"),
            "enumeration": lambda: set(value.split(";") if self.many else [value]) <= set(self.options),
            "date": lambda: (at := moment(value)) is not None and at % 86_400 == 0,
            "datetime": lambda: moment(value) is not None,
        }.get(self.type, lambda: True)
        codes = {"number": "INVALID_INTEGER", "date": "INVALID_DATE", "datetime": "INVALID_DATE"}
        return None if good() else codes.get(self.type, "INVALID_OPTION")


def moment(value: str) -> float | None:
    if re.fullmatch(r"-?\d+", value):
        return int(value) / 1000
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        return None
    return at.replace(tzinfo=at.tzinfo or UTC).timestamp()


def objects_path(method: str, rest: str, kind: Any = None, *, shape: Any = None) -> Callable[[Any], Any]:
    """Route the path of the old and of the dated versions."""

    def mark(function: Any) -> Any:
        return route(method, "/crm/v3/objects/{of}" + rest, kind, shape=shape)(
            route(method, "/crm/objects/{version}/{of}" + rest, kind, shape=shape)(function)
        )

    return mark
