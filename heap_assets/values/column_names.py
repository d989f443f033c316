"""What becomes of a column whose name is one of ours: the one rule, for tables of the lake and for views over them.

A property or a warehouse column may be called anything. Where a table or a view has a column of its own
(`migrated_to`, `partition_key`, `profile_id` …), its own keeps the name, and the other gets `property_` before it; one
that is itself called `property_profile_id` gets another, so that no two become one. Names that differ in case only are
one name here, since warehouses and DuckDB hold them for equal.

Columns added for the time of a computation begin with :data:`PRIVATE`, a character that no source has in names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

PREFIX = "property_"
PRIVATE = "\x1f"


def apart(name: str, own: Collection[str]) -> str:
    """Return the name that a column goes under beside a table's `own` columns.

    >>> apart("plan", ["profile_id"]), apart("Profile_ID", ["profile_id"]), apart("property_profile_id", ["profile_id"])
    ('plan', 'property_Profile_ID', 'property_property_profile_id')
    """
    bare = name.casefold()
    while bare.startswith(PREFIX):
        bare = bare.removeprefix(PREFIX)
    return PREFIX + name if bare in {other.casefold() for other in own} else name


def set_apart(columns: Iterable[str], own: Collection[str]) -> dict[str, str]:
    """Return those of `columns` that go under another name beside a table's `own` columns, with that name."""
    return {name: under for name in columns if (under := apart(name, own)) != name}


def original(name: str, own: Collection[str]) -> str:
    """Return the column that :func:`apart` calls `name`."""
    bare = name.removeprefix(PREFIX)
    return bare if bare != name and apart(bare, own) == name else name
