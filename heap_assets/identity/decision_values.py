"""Values of decisions that a file names by keyed hashes only, so that the file holds no personal data.

The lake holds the key and the values, as it holds all others: a hash is `hash:` and 32 digits of HMAC-SHA256.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from heap_assets.errors import DamagedFileError
from heap_assets.identity.decisions import Decision, Pair, Unusable
from heap_assets.storage import Store, state_keys

TOMBSTONE: Final = "tombstone:"
"""Begins what stands in place of a value that was erased: it identifies nobody, and its decision stays."""
_KEY: Final = f"{state_keys.DECISIONS}/values.json"
_HASH: Final = re.compile("hash:[0-9a-f]{32}")
_KEY_BYTES: Final = 32


def is_hashed(value: str) -> bool:
    """Return whether a file's value stands for another one."""
    return _HASH.fullmatch(value) is not None


def stands_for_another(value: str) -> bool:
    """Return whether a value is a hash or a tombstone, which no rule spells."""
    return is_hashed(value) or value.startswith(TOMBSTONE)


def hashed_pairs(store: Store, pairs: Sequence[Pair]) -> list[Pair]:
    """Return type and hash of identifiers, whose values the lake then knows."""
    hashed: list[Pair] = []

    def with_pairs(before: bytes | None) -> bytes:
        content: dict[str, Any] = {"key": secrets.token_hex(_KEY_BYTES), "values": {}}
        if before:
            content = _parsed(store, before)
        hashed[:] = [(kind, value if is_hashed(value) else _hash(content["key"], kind, value)) for kind, value in pairs]
        content["values"] |= {
            ":".join(one): value for one, (_, value) in zip(hashed, pairs, strict=True) if not is_hashed(value)
        }
        return json.dumps(content, ensure_ascii=False, sort_keys=True).encode()

    store.update(_KEY, with_pairs)
    return hashed


def forget_values(store: Store, pairs: Iterable[Pair]) -> int:
    """Drop the values of identifiers; returns how many hashes stand for nobody now."""
    dropped = {(kind, value.casefold()) for kind, value in pairs}
    count = [0]

    def without(before: bytes | None) -> bytes | None:
        content = _parsed(store, before) if before else {"values": {}}
        remaining = {
            name: value
            for name, value in content["values"].items()
            if (name.partition(":")[0], value.casefold()) not in dropped
        }
        count[0] = len(content["values"]) - len(remaining)
        if not count[0]:
            return None
        return json.dumps({**content, "values": remaining}, ensure_ascii=False, sort_keys=True).encode()

    if store.exists(_KEY):
        store.update(_KEY, without)
    return count[0]


def with_values(store: Store, decisions: Iterable[Decision]) -> tuple[list[Decision], list[Unusable]]:
    """Return decisions with the values that their hashes stand for, and those that lack too many values to hold.

    A tombstone, and a hash that this lake knows no value of, stand for nobody: a `same` or `apart` of one identifier is
    none.
    """
    values: dict[str, str] | None = None
    held, lacking = [], []
    for decision in decisions:
        if not any(stands_for_another(value) for _, value in decision.identifiers):
            held.append(decision)
            continue
        if values is None:
            values = _values(store)
        read = {
            (kind, values.get(f"{kind}:{value}", "") if is_hashed(value) else value)
            for kind, value in decision.identifiers
        }
        usable = tuple(sorted(pair for pair in read if pair[1] and not pair[1].startswith(TOMBSTONE)))
        if len(usable) >= (2 if decision.joins_or_parts else 1):
            held.append(replace(decision, identifiers=usable))
            continue
        is_erased = any(value.startswith(TOMBSTONE) for _, value in decision.identifiers)
        problem = "its people were erased" if is_erased else "this lake knows no value of its hashes"
        lacking.append(Unusable(decision.id, decision.kind, problem))
    return held, lacking


def _values(store: Store) -> dict[str, str]:
    try:
        data = store.read(_KEY)
    except FileNotFoundError:
        return {}
    values: dict[str, str] = _parsed(store, data)["values"]
    return values


def _parsed(store: Store, data: bytes) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(data)
        bytes.fromhex(content["key"])
        dict(content["values"])
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedFileError(
            f"{store.uri(_KEY)} is damaged: restore it; without it the hashes of identity.decisions stand for nobody"
        ) from error
    return content


def _hash(key: str, kind: str, value: str) -> str:
    digest = hmac.new(bytes.fromhex(key), f"{kind}\x1f{value}".encode(), hashlib.sha256).hexdigest()
    return f"hash:{digest[:32]}"
