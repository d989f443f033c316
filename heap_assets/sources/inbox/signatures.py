"""Signatures of what is posted: an HMAC over the bytes of the body (heap.md 5, destinations_b.md 4.1)."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import Final

_BLANKS: Final = b" \t\r\n"
_SHORTEST: Final = 40


def is_signed(body: bytes, signature: str, secrets: Sequence[bytes], algorithm: str) -> bool:
    """Return whether a signature is the HMAC of a body under one of the secrets; the time taken tells nothing.

    `signature`: hexadecimal of either case; what stands before a `=` names the algorithm and is not looked at.
    """
    digest = signature.strip().rpartition("=")[2].lower()
    if len(digest) < _SHORTEST or not digest.isascii():
        return False
    matches = [
        hmac.compare_digest(hmac.new(secret, body, algorithm).hexdigest().encode(), digest.encode())
        for secret in secrets
    ]
    return any(matches)


def first_element(body: bytes) -> bytes | None:
    """Return the bytes of the first element of a JSON list, as they stand in the body; None if it is no list.

    Segment signs a batch by its first message only, and JSON that is written anew need not have the same bytes.
    """
    start = _after_blanks(body, 0)
    if body[start : start + 1] != b"[":
        return None
    start = _after_blanks(body, start + 1)
    if body[start : start + 1] != b"{":
        return None
    depth, in_text, position = 0, False, start
    while position < len(body):
        byte = body[position]
        if in_text:
            if byte == 0x5C:  # a backslash
                position += 1
            elif byte == 0x22:
                in_text = False
        elif byte == 0x22:
            in_text = True
        elif byte in b"{[":
            depth += 1
        elif byte in b"}]":
            depth -= 1
            if depth == 0:
                return body[start : position + 1]
        position += 1
    return None


def _after_blanks(body: bytes, position: int) -> int:
    while position < len(body) and body[position] in _BLANKS:
        position += 1
    return position
