"""The proofs of erasures where they are kept: those of a run lie in one object, `_privacy/proofs/<batch>.json`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from heap_assets.errors import MissingInputError
from heap_assets.privacy import Request
from heap_assets.storage import Store, state_keys

ROOT: Final = f"{state_keys.PRIVACY}/proofs"

Proof = Mapping[str, Any]


def write_proofs(store: Store, batch: str, proofs: Iterable[Proof]) -> None:
    """Write proofs of requests of a batch beside, or in place of, those that it has."""
    new = {proof["request"]: proof for proof in proofs}

    def with_new(data: bytes | None) -> bytes:
        stored = json.loads(data) if data else {}
        return json.dumps({**stored, **new}, separators=(",", ":")).encode()

    if new:
        store.update(_key(batch), with_new)


def stored_proofs(store: Store, requests: Iterable[Request]) -> dict[str, dict[str, Any]]:
    """Return the proofs of requests by their ids; each batch is read once.

    Raises MissingInputError if no run has erased one of them yet.
    """
    by_batch: dict[str, dict[str, Any]] = {}
    proofs = {}
    for request in requests:
        if request.batch not in by_batch:
            by_batch[request.batch] = _read(store, request.batch) if request.batch else {}
        proof = by_batch[request.batch].get(request.id) or _read(store, request.id)  # alone, as they once were
        if not proof:
            raise MissingInputError(f"request {request.id} has no proof yet: `heap-assets erase run` erases")
        proofs[request.id] = proof
    return proofs


def _read(store: Store, name: str) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(store.read(_key(name)))
    except FileNotFoundError:
        return {}
    return document


def _key(name: str) -> str:
    return f"{ROOT}/{name}.json"
