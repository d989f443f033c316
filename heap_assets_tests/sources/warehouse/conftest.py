"""Real servers for the warehouse tests; where one cannot run, the skip says loudly what was not tested."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import servers

from heap_assets_tests.s3_server import s3_server
from heap_assets_tests.sources.warehouse.bigquery_rules import refusals
from heap_assets_tests.sources.warehouse.publish_target import Target, published_to
from heap_assets_tests.sources.warehouse.strict_redshift import Redshift, strict_redshift


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[str]:
    """Give `user@host:port` of a PostgreSQL of its own."""
    try:
        with servers.postgres_cluster() as address:
            yield address
    except servers.UnavailableError as missing:
        pytest.skip(f"{missing}: the PostgreSQL code was NOT tested")


@pytest.fixture
def postgres(postgres_cluster: str) -> Iterator[str]:
    """Give the URI of an empty database."""
    from adbc_driver_postgresql import dbapi

    name = f"t{os.urandom(4).hex()}"
    with dbapi.connect(f"postgresql://{postgres_cluster}/postgres", autocommit=True) as admin, admin.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
        yield f"postgresql://{postgres_cluster}/{name}"
        cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def bigquery_emulator() -> Iterator[servers.Emulator]:
    """Give a running bqemulator; at the end every query that it was asked is held to what BigQuery refuses."""
    try:
        with servers.bigquery_emulator() as emulator:
            yield emulator
            refused = {query: why for query in servers.queries_of(emulator) if (why := refusals(query))}
            assert not refused, refused
    except servers.UnavailableError as missing:
        pytest.skip(f"{missing}: the BigQuery code was NOT tested")


@pytest.fixture(scope="session")
def snowflake_server() -> Iterator[str]:
    """Give the address of a running fakesnow."""
    try:
        with servers.snowflake_server() as address:
            yield address
    except servers.UnavailableError as missing:
        pytest.skip(f"{missing}: the Snowflake code was NOT tested")


@pytest.fixture(scope="session")
def redshift_gateway(postgres_cluster: str) -> Iterator[Callable[[str], Redshift]]:
    """Give what makes a database of PostgreSQL take what Redshift takes, with S3 to load from."""
    with s3_server() as options:
        url = httpx.URL(options["aws_endpoint_url"]).join("/staging")
        httpx.put(url, trust_env=False).raise_for_status()
        with strict_redshift(postgres_cluster, options) as prepared:
            yield prepared


@pytest.fixture
def redshift(postgres: str, redshift_gateway: Callable[[str], Redshift]) -> Redshift:
    """Give an empty database behind the gateway."""
    return redshift_gateway(postgres)


@pytest.fixture(params=["bigquery", "postgres", "redshift", "snowflake"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
    """Give an empty dataset or schema of each engine, with its publisher."""
    yield from published_to(request, tmp_path)
