"""What becomes of a column whose name is one of ours: the one rule, for tables of the lake, views and published tables.

A property or a warehouse column may be called anything. Where a table or a view adds a column of its own
(`migrated_to`, `partition_key`, `profile_id` …), its own keeps the name, and the other is called `<name>__property`,
with further underscores if that is taken, too. Names that differ in case only are one name: warehouses and DuckDB hold
them for equal.

Columns added for the time of a computation begin with :data:`PRIVATE`, a character that no source has in names.
"""

from __future__ import annotations

from collections.abc import Iterable

SUFFIX = "__property"
PRIVATE = "\x1f"


def set_apart(columns: Iterable[str], own: Iterable[str]) -> dict[str, str]:
    """Return those of `columns` whose names a table's `own` columns have, each with the name that it goes under.

    >>> set_apart(["plan", "Profile_ID"], ["profile_id"])
    {'Profile_ID': 'Profile_ID__property'}
    """
    names = list(columns)
    reserved = {name.casefold() for name in own}
    taken = reserved | {name.casefold() for name in names}
    renamed = {}
    for name in names:
        if name.casefold() in reserved:
            free = name + SUFFIX
            while free.casefold() in taken:
                free += "_"
            taken.add(free.casefold())
            renamed[name] = free
    return renamed
