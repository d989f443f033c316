"""Forgetting somebody at Heap."""

from __future__ import annotations

import delivery_kit as kit
import pytest

from heap_assets.activation.connectors.heap import HeapApp
from heap_assets.activation.connectors.heap_deletion import HeapDeletion
from heap_assets.demo.server_process import ServerProcess
from heap_assets.errors import DeliveryError
from heap_assets.storage import Store


def test_users_are_deleted_by_identity(heap: ServerProcess, lake: Store) -> None:
    kit.send(heap, lake, kit.people(3))
    deletion = HeapDeletion(HeapApp(kit.APP, "eu", base_url=heap.base_url), "key")
    (request,) = deletion.delete(["u1@x.example"])
    assert deletion.status(request) == "complete"
    assert set(kit.properties(heap)) == {"u0@x.example", "u2@x.example"}
    deletion.close()


def test_an_expired_token_is_renewed_once(heap: ServerProcess) -> None:
    deletion = HeapDeletion(HeapApp(kit.APP, base_url=heap.base_url), "key")
    deletion.delete(["a"])
    heap.fail({"status": 401, "path": "/api/public/v0/user_deletion", "next": 1})
    assert deletion.delete(["b"])
    deletion.close()


def test_another_environment_may_not_ask_and_nothing_secret_is_told(heap: ServerProcess) -> None:
    deletion = HeapDeletion(HeapApp("99", base_url=heap.base_url), "planted-key")
    with pytest.raises(DeliveryError, match="Main Production") as refused:
        deletion.delete(["planted@x.example"])
    assert "planted" not in str(refused.value)
    deletion.close()


def test_ten_thousand_users_a_request(heap: ServerProcess) -> None:
    deletion = HeapDeletion(HeapApp(kit.APP, base_url=heap.base_url), "key")
    assert len(deletion.delete([f"u{n}" for n in range(10_001)])) == 2
    deletion.close()
