"""Connection strings in every form that libpq takes; no message shows a piece of a password."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heap_assets.sources.warehouse import AccessError
from heap_assets.sources.warehouse.postgres.dsn import Dsn
from heap_assets.sources.warehouse.postgres.publisher import PostgresPublisher
from heap_assets.sources.warehouse.postgres.reader import PostgresWarehouse
from heap_assets.storage import Store


def parts(postgres: str) -> tuple[str, str, str]:
    """Host, port and database of the test's server."""
    address, _, database = postgres.removeprefix("postgresql://heap@").partition("/")
    host, _, port = address.partition(":")
    return host, port, database


@pytest.mark.parametrize(
    "form",
    [
        "host={host} port={port} user=heap dbname={database}",
        "host = '{host}'  port={port} user='heap' password='it''s' dbname={database}".replace("''", "\\'"),
        "postgresql://heap:se#cr?et@{host}:{port}/{database}",
        "postgres://heap@{host}:1,{host}:{port}/{database}",
        "postgresql:///{database}?host={host}&port={port}&user=heap",
        "postgresql://heap@{host}:{port}/{database}?connect_timeout=3&application_name=mine",
        "postgresql://heap:%23%40@{host}:{port}/{database}?sslmode=disable",
    ],
)
def test_what_libpq_takes_is_taken(postgres: str, form: str, tmp_path: Path) -> None:
    host, port, database = parts(postgres)
    uri = form.format(host=host, port=port, database=database)
    assert PostgresWarehouse(uri).tables() == []
    publisher = PostgresPublisher(uri, "pub", Store(str(tmp_path)))
    assert all(permission.passed for permission in publisher.preflight())
    assert f"{port}-{database}-pub" in publisher.target


def test_a_socket_folder_in_the_query_is_a_host(postgres: str) -> None:
    _, port, database = parts(postgres)
    for uri in (f"postgresql:///{database}?host=/tmp/x&port={port}", f"postgresql://%2Ftmp%2Fx:{port}/{database}"):
        assert Dsn.parse(uri).server == f"/tmp/x:{port}/{database}"
        with pytest.raises(AccessError, match=r"/tmp/x:\d+/\w+ cannot be reached: .*No such file or directory"):
            PostgresWarehouse(uri).tables()


PASSWORDS = st.text(st.sampled_from("sSeEcCrRtT#@:/?% '\\=&,[]"), min_size=4, max_size=12).map("pw".__add__)


@given(
    password=PASSWORDS, form=st.sampled_from(["postgresql://u:{}@127.0.0.1:1/db", "host=127.0.0.1 port=1 password={}"])
)
def test_no_message_shows_a_piece_of_a_password_however_it_is_quoted(password: str, form: str) -> None:
    warehouse = PostgresWarehouse(form.format(password), connect_timeout=2)
    with pytest.raises(AccessError) as caught:
        warehouse.tables()
    assert caught.value.__cause__ is None
    told = str(caught.value)
    assert "pw" not in told
    for piece in password.replace("'", " ").replace("\\", " ").split():
        assert len(piece) < 4 or piece not in told


@pytest.mark.parametrize(
    "text",
    [
        "postgresql+psycopg2://u:secret@h/db",
        "jdbc:postgresql://h/db?password=secret",
        "postgresql://u:se/cret@h/db",
        "postgresql://u:se@cret@h/db",
        "postgresql://u:%zz@h/db",
        "postgresql://h:secret/db",
        "postgresql://u@h/db?secret",
        "host=h password=se cret",
        "host=h password='secret",
        "host=h secret=1",
        "secret",
    ],
)
def test_what_libpq_would_misread_is_refused_by_one_message_without_any_of_it(text: str) -> None:
    with pytest.raises(AccessError, match=r"the dsn .*: write a URI that begins with") as caught:
        Dsn.parse(text)
    assert "cret" not in str(caught.value)


def test_what_messages_call_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGPORT", "PGDATABASE", "PGUSER"):
        monkeypatch.delenv(name, raising=False)
    assert Dsn.parse("postgresql://u:p@a,b:7/d").server == "a:5432,b:7/d"
    assert Dsn.parse("postgresql://u@[::1]:7/d").server == "[::1]:7/d"
    assert Dsn.parse("service=prod").server == "service prod"
    monkeypatch.setenv("PGHOST", "elsewhere")
    assert Dsn.parse("dbname=d").server == "elsewhere:5432/d"
