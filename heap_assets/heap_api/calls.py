"""One call with JSON both ways, and what lies at a path of an answer."""

from __future__ import annotations

import json
from typing import Any

from heap_assets.errors import SourceError
from heap_assets.http_client import AllowedHosts, HttpClient, NoAnswer

_LONGEST_ANSWER = 1 << 28
"""Bytes of an answer that are read."""
_UNVERIFIED = "addresses and members of this API are settings that nobody has verified"


class JsonApi:
    """Calls to one API; use as a context manager. `section` is the key of the settings in messages."""

    def __init__(self, section: str, authorization: str, allowed: AllowedHosts, seconds: float = 60.0) -> None:
        self._section, self._seconds = section, seconds
        self._headers = {"Authorization": authorization, "Accept": "application/json"}
        self._client = HttpClient(allowed=allowed)

    def __enter__(self) -> JsonApi:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def call(self, method: str, url: str, body: Any = None) -> Any:
        """Return the document that a call answers with; None for an empty answer.

        Raises
        ------
        SourceError
            If there is no answer, another status than 2xx, or no JSON. The text has status and setting, no body.
        """
        content = b"" if body is None else json.dumps(body).encode()
        headers = self._headers | ({"Content-Type": "application/json"} if content else {})
        answer = self._client.exchange(method, url, content, headers, self._seconds, _LONGEST_ANSWER)
        if isinstance(answer, NoAnswer):
            raise SourceError(f"{self._section} could not be reached: {answer.reason}")
        if not 200 <= answer.status < 300:
            raise SourceError(f"{self._section} answered HTTP {answer.status} to {method}: {_UNVERIFIED}")
        if answer.unreadable:
            raise SourceError(f"{self._section} answered what cannot be read: {answer.unreadable}")
        try:
            return json.loads(answer.body) if answer.body.strip() else None
        except (ValueError, RecursionError):
            raise SourceError(f"{self._section} did not answer with JSON: {_UNVERIFIED}") from None


def member(document: Any, path: str, where: str) -> Any:
    """Return what lies at a dotted path of a document; the document for an empty path.

    Raises SourceError, naming the setting `where` that the path comes from.

    >>> member({"data": {"rows": [1]}}, "data.rows", "heap_query.rows")
    [1]
    """
    for part in path.split(".") if path else ():
        if not isinstance(document, dict) or part not in document:
            raise SourceError(f"{where} is {path!r}, and the answer has no {part!r} there: {_UNVERIFIED}")
        document = document[part]
    return document
