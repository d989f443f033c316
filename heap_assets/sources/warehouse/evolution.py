"""Schema evolution where each column has one type: columns added and types widened for the rows to be loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from heap_assets.sources.warehouse.publish import PublishError


@dataclass(frozen=True)
class Evolution:
    """The column changes that a table needs before rows are loaded.

    Attributes
    ----------
    kinds
        Column to its type afterwards, of those that the rows have.
    added
        Those of them that are new.
    widened
        Those that get another type.
    empty
        Those whose own type does not matter, since no row has a value in them.
    """

    kinds: Mapping[str, str]
    added: tuple[str, ...]
    widened: tuple[str, ...]
    empty: frozenset[str]


def evolved(
    table: str,
    existing: Mapping[str, str],
    loaded: Mapping[str, str],
    is_empty: Callable[[str], bool],
    joined: Callable[[str, str], str | None],
    engine: str,
) -> Evolution:
    """Compare a table with the rows to be loaded.

    A column may be wider than what comes, as after one that was widened by a newer day; a text column takes values of
    any type as the engine writes them.

    Parameters
    ----------
    is_empty
        Whether no row has a value in a column: then its type does not matter.
    joined
        Returns the type that holds the values of two, the table's and that of the rows; None if there is none.
    engine
        What messages call the warehouse.

    Raises
    ------
    PublishError
        If a type would narrow or become another one; names column and both types.
    """
    kinds: dict[str, str] = {}
    empty: set[str] = set()
    for name, kind in loaded.items():
        old = existing.get(name)
        wider = kind if old is None else joined(old, kind)
        if old is not None and wider != old and is_empty(name):
            wider = old
            empty.add(name)
        if wider is None:
            raise PublishError(
                f"{table}: column {name!r} is {old} in {engine} and would become {kind}: a type can only be widened. "
                "Rename the column, or drop the table to have it made anew"
            )
        kinds[name] = wider
    added = tuple(name for name in kinds if name not in existing)
    widened = tuple(name for name, kind in kinds.items() if name in existing and existing[name] != kind)
    return Evolution(kinds, added, widened, frozenset(empty))
