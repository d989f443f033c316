"""What a sync needs in the project: its key, its list, and each mapped field, whose type is fixed for ever."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import polars as pl

from heap_assets.activation.connectors.iterable.project import IterableDestination
from heap_assets.activation.connectors.preflight import Fields, is_boolean, is_numeric, is_text, untried
from heap_assets.activation.engine.api import Api
from heap_assets.activation.engine.exchange import Request
from heap_assets.sources.warehouse import Permission

_MISSING = 404
_FIELDS = Fields(
    "field",
    "make it in Iterable, or set create_fields",
    {
        **dict.fromkeys(("number", "long", "double", "integer", "float"), is_numeric),
        "boolean": is_boolean,
        "string": is_text,
        "date": is_text,
    },
)


def tried(api: Api, project: IterableDestination, list_id: int | None) -> Iterator[Permission]:
    """Yield whether the key is let in, and of a sync that writes to a list whether that is there."""
    answer = api.call(Request(f"{project.url}/api/lists", method="GET", longest_answer=16 << 20))
    ids = {one.get("id") for one in answer.fields.get("lists") or ()}
    yield Permission(
        "login", answer.accepted, "lists can be read", "take a server-side key of a project in this region"
    )
    if list_id is not None:
        detail = "it is there" if list_id in ids else "Iterable has no list of list_id"
        yield Permission("list", list_id in ids, detail, "take the id of a static list")


def tried_fields(
    api: Api, project: IterableDestination, names: Iterable[str], columns: Mapping[str, pl.DataType], *, makes: bool
) -> Iterator[Permission]:
    """Yield what was tried of each mapped field. `makes`: whether fields that are missing are made."""
    address = f"{project.url}/api/users/getFields"
    answer = api.call(Request(address, method="GET", reads=frozenset({_MISSING}), longest_answer=16 << 20))
    kinds = answer.fields.get("fields")
    if not isinstance(kinds, dict):
        yield untried("fields", "this project does not list its fields")
        return
    expected = [name for name in names if name in kinds or not makes]
    yield from _FIELDS.tried(expected, {name: str(kind) for name, kind in kinds.items()}, columns)
    if new := sorted(set(names) - set(expected)):
        yield Permission("new fields", True, f"will be made: {', '.join(new)}")
