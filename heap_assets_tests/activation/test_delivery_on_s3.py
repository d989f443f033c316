"""Ledger, log and lease need nothing but an object store with create-if-absent."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import boto3
import delivery_kit as kit
import pytest

from heap_assets.activation import LeaseHeldError, Status
from heap_assets.activation.engine.lease import Holder
from heap_assets.demo.server_process import ServerProcess
from heap_assets.storage import Store
from heap_assets_tests.s3_server import s3_server


@pytest.fixture
def bucket() -> Iterator[Store]:
    with s3_server() as options, pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ALLOW_HTTP", "true")
        client = boto3.client(
            "s3",
            endpoint_url=options["aws_endpoint_url"],
            aws_access_key_id="test",
            aws_secret_access_key="test",
            region_name="us-east-1",
        )
        client.create_bucket(Bucket="lake")
        yield Store("s3://lake/here", options)


def test_a_sync_lives_on_s3(heap: ServerProcess, bucket: Store) -> None:
    assert kit.send(heap, bucket, kit.people(50), batch_rows=10).sent == 50
    assert kit.send(heap, bucket, kit.people(50)).requests == 0
    heap.fail({"status": 403, "skip": 1})
    stopped = kit.send(heap, bucket, kit.people(50, plan="new"), batch_rows=10, concurrency=1, confirmed=True)
    assert (stopped.status, stopped.sent) == (Status.STOPPED, 10)
    heap.fail()
    assert kit.send(heap, bucket, kit.people(50, plan="new"), confirmed=True).sent == 40
    kit.assert_ledger_is_the_log(bucket)
    bucket.write("_sync/users/lease/0000000099.json", Holder("far", "there", 1, "1", datetime.now(UTC), 60).to_json())
    with pytest.raises(LeaseHeldError, match="far"):
        kit.send(heap, bucket, kit.people(1))
