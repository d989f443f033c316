"""Which type of PostgreSQL holds the values of two."""

from __future__ import annotations

import re
from collections.abc import Mapping

_WIDER: Mapping[str, frozenset[str]] = {
    "smallint": frozenset({"integer", "bigint", "numeric", "real", "double precision"}),
    "integer": frozenset({"bigint", "numeric", "double precision"}),
    "bigint": frozenset({"numeric", "double precision"}),
    "real": frozenset({"double precision"}),
    "character varying": frozenset({"text"}),
    "character": frozenset({"text"}),
}
"""Changes of type that lose nothing: to doubles only of integers that they hold, which the publisher sees to."""
_SQL_NAMES = {"time": "time without time zone"}
"""PostgreSQL's names of types for which we use another one."""
_DIGITS = {"smallint": 5, "integer": 10, "bigint": 19}
_KIND = re.compile(r"(?P<base>[a-z ]+?)(?:\((?P<limits>[0-9,]+)\))?(?P<zone>[a-z ]*)(?P<array>(?:\[\])?)")


def becomes_double(old: str | None, new: str) -> bool:
    """Whether integers become floats, which do not hold all of them."""
    return old == "bigint" and new == "double precision"


def joined(old: str, new: str) -> str | None:
    """Return the type that holds the values of both; None if there is none."""
    new = _SQL_NAMES.get(new, new)
    (base, limits, array), (coming, limited, several) = _parts(old), _parts(new)
    if array != several:
        return None
    if base == coming:
        return _joined_numeric(limits, limited) + array if base == "numeric" else old if limits is None else new
    if {base, coming} <= {"numeric", *_DIGITS} and "numeric" in (base, coming):
        return _joined_numeric(*(limits if kind == "numeric" else (_DIGITS[kind], 0)
                                 for kind, limits in ((base, limits), (coming, limited)))) + array  # fmt: skip
    lossy = array and "bigint" in (base, coming) and "double precision" in (base, coming)
    if coming in _WIDER.get(base, ()) and not lossy:
        return new
    return old if (base in _WIDER.get(coming, ()) and not lossy) or base == "text" else None


def _parts(kind: str) -> tuple[str, tuple[int, ...] | None, str]:
    match = _KIND.fullmatch(kind)
    if match is None:
        return kind, None, ""
    limits = tuple(map(int, match["limits"].split(","))) if match["limits"] else None
    return match["base"] + match["zone"], limits, match["array"]


def _joined_numeric(first: tuple[int, ...] | None, second: tuple[int, ...] | None) -> str:
    """Return the `numeric` that has room for the digits of both, before the point and after it."""
    if first is None or second is None:
        return "numeric"
    (precision, scale), (coming, fraction) = ((*limits, 0)[:2] for limits in (first, second))
    decimals = max(scale, fraction)
    return f"numeric({max(precision - scale, coming - fraction) + decimals},{decimals})"
