"""A bucket behaves as a folder does; access is explained when it fails."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from dump_builders import BUCKET, Bucket, Clock, event, land_all, landing_in, migration, user
from moto.server import ThreadedMotoServer

from heap_assets.errors import SettingsError, SourceError
from heap_assets.sources.heap_connect import (
    S3Access,
    S3Source,
    build_event_day,
    build_users,
    caller_of,
    check_bucket,
    preflight,
    read_policy,
    role_arn,
    s3_client,
    trust_policy,
)

MARCH_1 = date(2026, 3, 1)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def access(endpoint: str) -> S3Access:
    return S3Access(endpoint_url=endpoint, access_key_id="test", secret_access_key="test")


@pytest.fixture
def client(access: S3Access) -> Iterator[Any]:
    client = s3_client(access)
    client.create_bucket(Bucket=BUCKET)
    yield client
    for item in client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        client.delete_object(Bucket=BUCKET, Key=item["Key"])
    client.delete_bucket(Bucket=BUCKET)


def upload(client: Any, bucket: Bucket) -> None:
    for path in bucket.path.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), BUCKET, path.relative_to(bucket.path).as_posix())


def small_bucket(path: Path) -> Bucket:
    bucket = Bucket(path)
    bucket.dump(
        1,
        "2026-03-02T02:00:00",
        signup=[[event(1, "2026-03-01 10:00:00", plan="x")], [event(2, "2026-03-01 11:00:00", plan="y")]],
        users=[user(1, email="a")],
        user_migrations=[migration(2, 1)],
    )
    return bucket


class Counting:
    """A client that counts what is asked of it."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        self.asked.append(name)
        return getattr(self.client, name)


def test_a_bucket_gives_the_rows_that_a_folder_gives(tmp_path: Path, client: Any) -> None:
    bucket = small_bucket(tmp_path / "bucket")
    upload(client, bucket)
    source = S3Source(client, BUCKET)
    clock = Clock()
    from_folder, from_s3 = (
        landing_in(tmp_path / "folder-lake"),
        landing_in(tmp_path / "s3-lake", clock=clock, start=date(2020, 1, 1)),
    )
    land_all(from_folder, bucket)
    for manifest in source.manifests():
        assert from_s3.land(source, manifest).failed == []
    one, other = (build_event_day(landing, "signup", MARCH_1) for landing in (from_folder, from_s3))
    assert one.frame.collect().equals(other.frame.collect())
    today = source.manifests()[0].last_modified.date()
    assert build_users(from_s3, today).frame.collect().height == 1


def test_an_unchanged_bucket_is_listed_and_not_read(tmp_path: Path, client: Any) -> None:
    upload(client, small_bucket(tmp_path / "bucket"))
    landing = landing_in(tmp_path / "lake", start=date(2020, 1, 1))
    source = S3Source(client, BUCKET)
    assert [landing.land(source, m).failed for m in landing.pending(source)] == [[]]
    counting = Counting(client)
    assert landing.pending(S3Source(counting, BUCKET)) == []
    assert set(counting.asked) == {"get_paginator"}


def test_a_file_that_changes_after_the_listing_is_not_read(tmp_path: Path, client: Any) -> None:
    bucket = small_bucket(tmp_path / "bucket")
    upload(client, bucket)
    source = S3Source(client, BUCKET)
    uri = f"s3://{BUCKET}/sync_1/users/part-00000-c000.avro"
    etag = source.stat(uri).etag
    client.put_object(Bucket=BUCKET, Key="sync_1/users/part-00000-c000.avro", Body=b"other")
    with pytest.raises(SourceError, match="has changed since"):
        source.fetch(uri, tmp_path / "file", etag)


def test_a_missing_file_is_named(client: Any) -> None:
    with pytest.raises(SourceError, match=r"sync_9/x\.avro.* does not exist"):
        S3Source(client, BUCKET).read("sync_9/x.avro")


def test_a_role_is_assumed_with_its_external_id(client: Any, access: S3Access) -> None:
    arn = role_arn("1234-5678-9012", "heap-reader")
    assert arn == "arn:aws:iam::123456789012:role/heap-reader"
    assumed = S3Access(
        endpoint_url=access.endpoint_url,
        access_key_id="test",
        secret_access_key="test",
        role_arn=arn,
        external_id="11-22",
    )
    assert "assumed-role/heap-reader" in caller_of(assumed)
    assert S3Source(s3_client(assumed), BUCKET).manifests() == []


def test_secrets_are_not_shown() -> None:
    assert "hush" not in repr(S3Access(secret_access_key="hush", session_token="hush"))


def test_exactly_two_actions_are_enough(endpoint: str, tmp_path: Path, client: Any) -> None:
    policy = read_policy(BUCKET)
    actions = [action for statement in policy["Statement"] for action in statement["Action"]]
    assert sorted(actions) == ["s3:GetObject", "s3:ListBucket"]
    upload(client, small_bucket(tmp_path / "bucket"))
    counting = Counting(client)
    landing = landing_in(tmp_path / "lake", start=date(2020, 1, 1))
    source = S3Source(counting, BUCKET)
    for manifest in landing.pending(source):
        landing.land(source, manifest)
    allowed = {"get_paginator", "get_object", "head_object"}  # ListBucket, GetObject, GetObject
    assert set(counting.asked) <= allowed


def test_the_trust_policy_asks_for_the_external_id() -> None:
    statement = trust_policy("arn:aws:iam::123456789012:role/dagster", "abc")["Statement"][0]
    assert statement["Condition"] == {"StringEquals": {"sts:ExternalId": "abc"}}
    with pytest.raises(SettingsError, match="external id"):
        trust_policy("arn:aws:iam::123456789012:role/dagster", " ")


@pytest.mark.parametrize(
    "wrong",
    [
        "s3://heap-rs3-acme",
        "https://heap-rs3-acme.s3.amazonaws.com/",
        "https://s3.eu-west-1.amazonaws.com/heap-rs3-acme/manifests",
        "arn:aws:s3:::heap-rs3-acme",
        "heap-rs3-acme/manifests",
    ],
)
def test_a_bucket_is_a_name_and_the_right_form_is_shown(wrong: str) -> None:
    with pytest.raises(SettingsError, match="Did you mean 'heap-rs3-acme'"):
        check_bucket(wrong)


def test_bucket_names() -> None:
    assert check_bucket("heap-rs3-acme") == "heap-rs3-acme"
    for wrong in ("", "ab", "Heap-RS3", "10.0.0.1", "a..b"):
        with pytest.raises(SettingsError, match="not a bucket name"):
            check_bucket(wrong)


def test_preflight_says_what_stands_in_the_way(tmp_path: Path, client: Any, access: S3Access) -> None:
    upload(client, small_bucket(tmp_path / "bucket"))
    source = S3Source(client, BUCKET)
    steps = preflight(source, lambda: caller_of(access))
    assert [(v.step, v.passed) for v in steps] == [
        ("credentials", True),
        ("listing", True),
        ("newest manifest", True),
        ("file header", True),
    ]
    client.delete_object(Bucket=BUCKET, Key="sync_1/signup/part-00000-c000.avro")
    assert [v.step for v in preflight(source) if not v.passed] == ["file header"]
    gone = S3Source(
        boto3.client(
            "s3",
            endpoint_url=access.endpoint_url,
            region_name="us-east-1",
            aws_access_key_id="x",
            aws_secret_access_key="y",
        ),
        "heap-rs3-other",
    )
    assert [(v.step, v.passed) for v in preflight(gone)] == [("listing", False)]


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine on which AWS finds no credentials."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))


@pytest.mark.parametrize("role", [None, "arn:aws:iam::123456789012:role/heap-reader"])
@pytest.mark.usefixtures("nobody")
def test_missing_credentials_are_said_to_be_missing(endpoint: str, role: str | None) -> None:
    access = S3Access(endpoint_url=endpoint, role_arn=role)
    source = S3Source(s3_client(access), BUCKET)
    with pytest.raises(SourceError, match="no AWS credentials were found: set AWS_PROFILE"):
        source.manifests()
    [credentials] = preflight(source, lambda: caller_of(access))
    assert (credentials.step, credentials.passed) == ("credentials", False)
    assert "no AWS credentials were found" in credentials.detail


@pytest.mark.usefixtures("nobody")
def test_an_unknown_profile_is_a_mistake_in_the_settings() -> None:
    with pytest.raises(SettingsError, match=r"heap\.source\.profile is 'acme'"):
        s3_client(S3Access(profile="acme"))


def test_a_bucket_that_does_not_exist_is_said_so(client: Any) -> None:
    with pytest.raises(SourceError, match=r"no such bucket: check heap\.source\.bucket"):
        S3Source(client, "heap-rs3-nowhere").manifests()


class _Denying(BaseHTTPRequestHandler):
    """Answers as AWS does when a trust policy does not name who asks."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = (
            b"<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>not authorized</Message>"
            b"</Error></ErrorResponse>"
        )
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_role_that_may_not_be_assumed_is_told_from_a_bucket_that_may_not_be_read() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Denying) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        access = S3Access(
            endpoint_url=f"http://127.0.0.1:{server.server_address[1]}",
            access_key_id="test",
            secret_access_key="test",
            role_arn="arn:aws:iam::123456789012:role/heap-reader",
            external_id="11-22",
        )
        with pytest.raises(SourceError, match=r"role_arn may not be assumed.*trust policy.*external_id"):
            S3Source(s3_client(access), BUCKET).manifests()
        server.shutdown()
