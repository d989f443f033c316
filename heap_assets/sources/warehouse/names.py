"""Names of published columns and tables: what every engine takes, by one rule (docs/warehouse.md).

A name of ASCII letters, digits and `_` that begins with no digit, is not too long and is not reserved stays as it is.
Any other loses its accents; each run of blanks, dots and other signs becomes `_`; a letter of another alphabet becomes
`u` and its code point; a leading digit gets `_` before it. A name that an engine or the platform reserves gets
`property_` before it. Of names that become equal (engines compare them without case) the one that needed no change
keeps it, the others get six hex digits of their original name's SHA-256.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping

LONGEST = 63
"""What every engine takes."""

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_RESERVED = re.compile(
    r"(tableoid|xmin|cmin|xmax|cmax|ctid)\Z"
    r"|_(table_|file_|partition|row_timestamp|change_|colidentifier|_root__)",
    re.IGNORECASE,
)
"""PostgreSQL's system columns, and the prefixes that BigQuery keeps for its own."""
_PREFIX = "property_"


def safe_name(name: str, longest: int = LONGEST) -> str:
    """Return a name as every engine takes it, see above; clashes are :func:`published_names`'s.

    >>> safe_name("cart value"), safe_name("Größe (cm)"), safe_name("цена"), safe_name("1st"), safe_name("_TABLE_x")
    ('cart_value', 'Grou00dfe_cm', 'u0446u0435u043du0430', '_1st', 'property__TABLE_x')
    """
    safe = name
    if not _PLAIN.match(name):
        letters = (c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
        ascii_text = "".join(c if c.isascii() or not c.isalnum() else f"u{ord(c):04x}" for c in letters)
        safe = re.sub(r"[^A-Za-z0-9_]+", "_", ascii_text).strip("_") or "_"
    if safe[0].isdigit():
        safe = f"_{safe}"
    if _RESERVED.match(safe):
        safe = _PREFIX + safe
    return safe if len(safe) <= longest else f"{safe[: longest - 7]}_{_digits(name)}"


def published_names(
    names: Iterable[str],
    *,
    reserved: Collection[str] = (),
    published: Mapping[str, str] | None = None,
    longest: int = LONGEST,
) -> dict[str, str]:
    """Return what each name is published as; no two are the same without case.

    Parameters
    ----------
    names
        Of one table's columns, or of tables of one target.
    reserved
        Names of columns that the platform adds; no other column may have them.
    published
        Name to what it was published as before; these stay.
    """
    names_in_order, published = list(dict.fromkeys(names)), published or {}
    result = {name: published[name] for name in names_in_order if name in published}
    used = {name.casefold() for name in (*reserved, *published.values())}
    safe = {
        name: _beside(safe_name(name, longest), reserved, longest) for name in names_in_order if name not in published
    }
    for name in sorted(safe, key=lambda name: safe[name] != name):  # those that need no change come first
        unique = safe[name]
        if unique.casefold() in used:
            unique = f"{unique[: longest - 7]}_{_digits(name)}"
        used.add(unique.casefold())
        result[name] = unique
    return {name: result[name] for name in names_in_order}


def _beside(name: str, reserved: Collection[str], longest: int) -> str:
    folded = {other.casefold() for other in reserved}
    return (_PREFIX + name)[:longest] if name.casefold() in folded else name


def _digits(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:6]
