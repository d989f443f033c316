"""What lies outside of a folder: published tables have nothing of the person; old versions in a bucket are told of."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import boto3
import pytest
from adbc_driver_postgresql import dbapi

from heap_assets.pipelines import erasure
from heap_assets.project import open_project, parse_settings
from heap_assets.project.project import Project
from heap_assets.sources.warehouse.bigquery.client import BigQueryAccount
from heap_assets_tests.pipelines.delivery_world import World
from heap_assets_tests.privacy.canary import BOB, CANARIES, ZOE, copied, places_of
from heap_assets_tests.s3_server import s3_server
from heap_assets_tests.sources.warehouse import servers
from heap_assets_tests.sources.warehouse.small_lake import publish_all


def erased(project: Project) -> str:
    request = erasure.request_erasure(project, [("email", ZOE)])
    erasure.confirm(project, request.id, "dpo")
    assert erasure.run(project, "run").requests == {request.id: "complete"}
    return request.id


def test_published_tables_have_nothing_of_the_person(canary_base: World, tmp_path: Path, postgres: str) -> None:
    section = f"publish:\n  bi: {{kind: postgres, dsn: '{postgres}', schema: bi}}"
    world = copied(canary_base, tmp_path / "world", more=section)
    publish_all(world.project, "bi")
    published = text_of(postgres)
    assert ZOE in published
    request = erased(world.project)
    remaining = text_of(postgres)
    assert BOB in remaining
    assert not [canary for canary in CANARIES if canary in remaining]
    assert not [name for name in erasure.proof(world.project, request)["not_reached"] if name.startswith("publish")]


def test_published_tables_in_bigquery_have_nothing_of_the_person(
    canary_base: World, tmp_path: Path, bigquery_emulator: servers.Emulator
) -> None:
    dataset = f"erased_{uuid4().hex[:8]}"
    section = (
        f"publish:\n  bq: {{kind: bigquery, project: demo, dataset: {dataset}, endpoint: '{bigquery_emulator.rest}', "
        "resolved_views: null, assets: [heap/users, heap/events/signup, warehouse/contacts, identity/graph]}"
    )
    world = copied(canary_base, tmp_path / "world", more=section)
    with BigQueryAccount("demo", endpoint=bigquery_emulator.rest).client() as client:
        client.create_dataset(dataset)
        publish_all(world.project, "bq")

        def text() -> str:
            names = [table.table_id for table in client.list_tables(dataset)]
            rows = [row for name in names for row in client.query(f"SELECT * FROM `{dataset}.{name}`").result()]
            return "\n".join(str(row.values()) for row in rows).lower()

        published = text()
        assert ZOE in published
        request = erased(world.project)
        remaining = text()
    assert BOB in remaining
    assert not [canary for canary in CANARIES if canary in remaining]
    assert not [name for name in erasure.proof(world.project, request)["not_reached"] if name.startswith("publish")]


def text_of(uri: str) -> str:
    """Return every row of every table and view of a database."""
    with dbapi.connect(uri, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'bi'")
        rows = []
        for (name,) in cursor.fetchall():
            cursor.execute(f'SELECT CAST(t.* AS text) FROM bi."{name}" t')
            rows += [str(row[0]) for row in cursor.fetchall()]
    return "\n".join(rows).lower()


def test_in_a_bucket_with_versions_nothing_is_left_that_is_current_and_the_proof_tells_of_the_rest(
    canary_base: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = copied(canary_base, tmp_path / "world")
    with s3_server() as options:
        for name in ("access_key_id", "secret_access_key"):
            monkeypatch.setenv(f"AWS_{name.upper()}", "test")
        client = boto3.client("s3", endpoint_url=options["aws_endpoint_url"], region_name="us-east-1")
        bucket = f"lake-{uuid4().hex[:6]}"
        client.create_bucket(Bucket=bucket)
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        root = world.folder / "lake"
        for path in sorted(path for path in root.rglob("*") if path.is_file()):
            client.put_object(Bucket=bucket, Key=f"l/{path.relative_to(root)}", Body=path.read_bytes())
        text = (world.folder / "heap_assets.yaml").read_text()
        spelled = ", ".join(f"{name}: '{value}'" for name, value in options.items())
        text = text.replace("lake: ./lake", f"lake: {{url: 's3://{bucket}/l', options: {{{spelled}}}}}")
        project = open_project(parse_settings(text, world.folder / "heap_assets.yaml"))
        request = erased(project)
        current, old = tmp_path / "current", tmp_path / "old"
        for page in client.get_paginator("list_object_versions").paginate(Bucket=bucket):
            for one in page.get("Versions", []):
                target = (current if one["IsLatest"] else old) / one["Key"] / one["VersionId"]
                target.parent.mkdir(parents=True, exist_ok=True)
                body = client.get_object(Bucket=bucket, Key=one["Key"], VersionId=one["VersionId"])["Body"]
                target.write_bytes(body.read())
        assert places_of(current, *CANARIES) == {}
        assert set(places_of(old, *CANARIES)) == {canary for canary in CANARIES if places_of(root, canary)}
        assert "versions of objects" in " ".join(erasure.proof(project, request)["not_reached"])
