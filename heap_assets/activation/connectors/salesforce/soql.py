"""Queries: the records of keys, as few calls as their addresses have room for."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import orjson

from heap_assets.activation.engine.exchange import Request
from heap_assets.activation.engine.verdict import Response
from heap_assets.errors import DeliveryError

_LONGEST_ADDRESS = 12_000
"""Characters of keys in an address, which may have 16,384 bytes."""
_QUERIES = 5
"""Queries of one call."""
_LONGEST_PAGE = 32 << 20
_OK = 200


class RefusedQueryError(DeliveryError):
    """A query was not answered; the message says why."""


@dataclass(frozen=True)
class Hit:
    """A record that a key was looked up to."""

    id: str
    key: str
    converted: bool = False
    contact: str | None = None
    """Of a converted lead: the contact that it became."""


def hit_of(record: Mapping[str, Any], field: str) -> Hit:
    """Return a record of an answer."""
    converted = bool(record.get("IsConverted"))
    return Hit(str(record["Id"]), str(record[field]), converted, record.get("ConvertedContactId"))


def look_up(
    base: str, object: str, field: str, keys: Sequence[str], *, in_address: bool = False, more: Sequence[str] = ()
) -> Generator[Request, Response, list[Mapping[str, Any]]]:
    """Ask for the records of an object that have one of the keys in a field; `more`: further fields to read.

    `in_address`: as calls whose address holds the keys, instead of one whose body has several queries.

    Raises RefusedQueryError.
    """
    fields = dict.fromkeys(["Id", field, *(("IsConverted", "ConvertedContactId") if object == "Lead" else ()), *more])
    select, records = f"SELECT {', '.join(fields)} FROM {object} WHERE {field} IN", []
    queries = [f"{select} ({','.join(some)})" for some in _chunks(literal(key) for key in keys)]
    addresses = [f"{base}/query?q={quote(query, safe='')}" for query in queries]
    for start in range(0, len(addresses), 1 if in_address else _QUERIES):
        some = addresses[start : start + (1 if in_address else _QUERIES)]
        answer = yield _page(some[0]) if in_address else _together(base, some)
        pages = [(answer.status, answer.json)] if in_address or not answer.accepted else _parts(answer)
        for page in pages:
            records += yield from _all_pages(*page, f"{object} by {field}")
    return records


def _page(address: str) -> Request:
    return Request(address, method="GET", longest_answer=_LONGEST_PAGE)


def _together(base: str, addresses: Sequence[str]) -> Request:
    parts = [{"method": "GET", "url": url, "referenceId": f"q{n}"} for n, url in enumerate(addresses)]
    body = orjson.dumps({"allOrNone": False, "compositeRequest": parts})
    return Request(f"{base}/composite", body, repeatable=True, rows=0, longest_answer=_LONGEST_PAGE)


def _parts(answer: Response) -> list[tuple[int, Any]]:
    return [(part["httpStatusCode"], part["body"]) for part in answer.fields["compositeResponse"]]


def _all_pages(status: int, page: Any, subject: str) -> Generator[Request, Response, list[Mapping[str, Any]]]:
    records: list[Mapping[str, Any]] = []
    while True:
        if status != _OK:
            code = page[0].get("errorCode") if isinstance(page, list) and page else ""
            raise RefusedQueryError(f"{subject} cannot be looked up: HTTP {status} {code}".rstrip())
        records += page["records"]
        if page.get("done", True):
            return records
        answer = yield _page(page["nextRecordsUrl"])
        status, page = answer.status, answer.json


def literal(text: str) -> str:
    """Write a text as SOQL has it."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return "'" + escaped.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t") + "'"


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    some: list[str] = []
    size = 0
    for text in texts:
        longer = len(quote(text, safe="")) + 3
        if some and size + longer > _LONGEST_ADDRESS:
            yield some
            some, size = [], 0
        some.append(text)
        size += longer
    if some:
        yield some
