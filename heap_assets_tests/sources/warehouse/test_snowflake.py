"""Snowflake's types both ways, its logins, and what its errors say; through the real driver to fakesnow."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import polars as pl
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from snowflake.connector.errors import ProgrammingError

from heap_assets.errors import SettingsError
from heap_assets.project import parse_settings
from heap_assets.sources.warehouse.base import AccessError, RelationMissingError, WarehouseError
from heap_assets.sources.warehouse.publish import Publication, PublishStatus
from heap_assets.sources.warehouse.publish_log import PublishLog
from heap_assets.sources.warehouse.snowflake.connection import SnowflakeAccount
from heap_assets.sources.warehouse.snowflake.errors import explained
from heap_assets.sources.warehouse.snowflake.publisher import SnowflakePublisher
from heap_assets.sources.warehouse.snowflake.reader import SnowflakeWarehouse
from heap_assets.storage import Store

MOMENT = datetime(2026, 11, 2, 10, 11, 12, 123456, UTC)
SETTINGS = """
start_date: 2026-01-01
lake: ./lake
heap: {{app_id: "1", source: {{kind: folder, path: ./bucket}}}}
identity: {{identifiers: [{{type: email, max_per_profile: 3}}]}}
warehouse: {{kind: snowflake, account: my-org_one, user: u, database: SALES, {login}, tables: {{}}}}
"""


@pytest.fixture
def account(snowflake_server: str) -> SnowflakeAccount:
    name = f"DB{uuid4().hex[:8].upper()}"
    account = SnowflakeAccount("fakesnow", "u", name, endpoint=snowflake_server, password="p-4711")
    with account.session("") as cursor:
        cursor.execute("CREATE SCHEMA CRM")
    return account


def test_types_are_read(account: SnowflakeAccount, tmp_path: Path) -> None:
    with account.session("") as cursor:
        cursor.execute(
            "CREATE TABLE CRM.T (N NUMBER(38,0), BIG NUMBER(38,0), D NUMBER(12,2), F FLOAT, S TEXT, B BOOLEAN, "
            "DAY DATE, TIM TIME(9), NTZ TIMESTAMP_NTZ(9), LTZ TIMESTAMP_LTZ(9), TZ TIMESTAMP_TZ(9), V VARIANT, "
            "X BINARY)"
        )
        cursor.execute(
            "INSERT INTO CRM.T SELECT 7, 9007199254740993, 1.25, 0.5, 'Größe x', TRUE, '2026-11-02', "
            "'10:11:12.123456', '2026-11-02 10:11:12.123456', '2026-11-02 11:11:12.123456+01:00', "
            "'2026-11-02 11:11:12.123456+01:00', PARSE_JSON('{\"a\":[1,null]}'), TO_BINARY('00FF', 'HEX')"
        )
        cursor.execute("INSERT INTO CRM.T (N) SELECT NULL")
        cursor.execute("CREATE VIEW CRM.V AS SELECT N FROM CRM.T")
    warehouse = SnowflakeWarehouse(account)
    assert [table.name for table in warehouse.tables()] == ["CRM.T", "CRM.V"]
    assert warehouse.resolve("crm.t") == "CRM.T"
    reading = warehouse.read("crm.t", None, tmp_path / "t.parquet")
    first, empty = pl.read_parquet(tmp_path / "t.parquet").sort("N", nulls_last=True).rows(named=True)
    naive = MOMENT.replace(tzinfo=None)
    assert first == {
        "N": 7, "BIG": 9007199254740993, "D": Decimal("1.25"), "F": 0.5, "S": "Größe x", "B": True,
        "DAY": date(2026, 11, 2), "TIM": time(10, 11, 12, 123456), "NTZ": naive, "LTZ": MOMENT, "TZ": MOMENT,
        "V": '{"a":[1,null]}', "X": b"\x00\xff",
    }  # fmt: skip
    # fakesnow sends a null time as 1970
    assert {value for name, value in empty.items() if name not in ("NTZ", "LTZ", "TZ")} == {None}
    assert (reading.rows, reading.version) == (2, None), "this server keeps no time of the last change"
    empty_view = warehouse.read("CRM.V", ["n"], tmp_path / "v.parquet", limit=0)
    assert (empty_view.columns, pl.read_parquet_schema(tmp_path / "v.parquet")) == (("N",), {"N": pl.Int64})
    with pytest.raises(RelationMissingError, match=r"has no table 'crm\.contacts'"):
        warehouse.columns("crm.contacts")


def test_types_are_published(account: SnowflakeAccount, tmp_path: Path) -> None:
    publisher = SnowflakePublisher(account, "PUB", Store(str(tmp_path)))
    rows = pl.LazyFrame(
        {
            "whole": [2**62], "dec": [Decimal("1.50")], "f": [0.1], "text": ["it's \\ 'x'"], "day": [date(2026, 11, 2)],
            "tim": [time(23, 59, 59, 999999)], "utc": [MOMENT], "naive": [MOMENT.replace(tzinfo=None)],
            "list": [[1, 2]], "record": [{"a": "b", "c": None}], "raw": [b"\x00\xff"], "flag": [True], "j": ['{"k":1}'],
        },
        schema_overrides={"whole": pl.UInt64, "dec": pl.Decimal(10, 2)},
    )  # fmt: skip
    publication = Publication("t", by_day=False, json_columns=frozenset({"j"}), description="All types")
    assert publisher.publish(publication, None, rows, "v1").rows == 1
    with account.session("") as cursor:
        cursor.execute(
            "SELECT whole, dec, f, text, day, tim, utc, naive, TO_JSON(list), record:a::TEXT, raw, flag, j:k::NUMBER "
            "FROM pub.t"
        )
        [row] = cursor.fetchall()
        cursor.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'PUB'")
        tables = {name for (name,) in cursor.fetchall()}
    assert row[:6] == (2**62, Decimal("1.50"), 0.1, "it's \\ 'x'", date(2026, 11, 2), time(23, 59, 59, 999999))
    assert row[6:] == (MOMENT, MOMENT.replace(tzinfo=None), "[1,2]", "b", b"\x00\xff", True, 1)
    assert tables == {"T", "HEAP_ASSETS_LOADS"}, "what a load staged is gone"


def test_a_login_is_one_of_three() -> None:
    pem = generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    account = SnowflakeAccount("a", "u", "D", private_key=pem)
    assert isinstance(account._options()["private_key"], bytes)
    assert pem not in repr(account)
    with pytest.raises(SettingsError, match=r"crm\.private_key is no key in PEM form"):
        SnowflakeAccount("a", "u", "D", private_key="no key", section="crm")._options()


@pytest.mark.parametrize("login", ["role: R", "password: '${P}', token: '${P}'"])
def test_settings_name_one_login(login: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P", "p-4711-x")
    with pytest.raises(SettingsError, match="one of private_key, token and password"):
        parse_settings(SETTINGS.format(login=login), tmp_path / "heap_assets.yaml")


def test_the_account_is_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P", "p-4711-x")
    settings = parse_settings(SETTINGS.format(login="token: '${P}'"), tmp_path / "heap_assets.yaml")
    assert settings.warehouse is not None
    assert list(settings.warehouse.hosts()) == ["my-org-one.snowflakecomputing.com"]


def test_a_server_that_is_away_is_told(tmp_path: Path) -> None:
    account = SnowflakeAccount("fakesnow", "u", "D", endpoint="http://localhost:9", password="p-4711")
    [tried] = SnowflakeWarehouse(account).preflight()
    assert (tried.name, tried.passed) == ("connect", False)
    assert "p-4711" not in tried.detail


@pytest.mark.parametrize(
    ("text", "number", "expected"),
    [
        ("Numeric value 'zoe@x.example' is not recognized", 100038, WarehouseError),
        ("Insufficient privileges to operate on 'zoe'", 3001, AccessError),
        ("Incorrect username or password was specified.", 390100, AccessError),
    ],
)
def test_errors_quote_no_value(text: str, number: int, expected: type[WarehouseError]) -> None:
    ours = explained(ProgrammingError(text, errno=number), "Snowflake a D", "GRANT SELECT")
    assert type(ours) is expected
    assert "zoe" not in str(ours)


def test_a_schema_that_was_dropped_is_made_anew_though_a_load_of_it_never_ended(
    account: SnowflakeAccount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = SnowflakePublisher(account, "PUB", Store(str(tmp_path)))
    publication, rows = Publication("t", by_day=False), pl.LazyFrame({"id": [1]})
    publisher.publish(publication, None, rows, "v1")

    def dies(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as dying:
        dying.setattr(PublishLog, "end", dies)
        with pytest.raises(MemoryError):
            publisher.publish(publication, None, rows, "v2")
    with account.session("") as cursor:
        cursor.execute("DROP SCHEMA PUB CASCADE")
    assert publisher.publish(publication, None, rows, "v1").status is PublishStatus.LOADED
    assert publisher.publish(publication, None, rows, "v1").status is PublishStatus.UNCHANGED


def test_names_are_as_long_as_snowflake_takes_them(account: SnowflakeAccount, tmp_path: Path) -> None:
    publisher = SnowflakePublisher(account, "PUB", Store(str(tmp_path)))
    publisher.publish(Publication("t", by_day=False), None, pl.LazyFrame({"c" * 400: [1]}), "v1")
    with account.session("") as cursor:
        cursor.execute("SELECT column_name FROM information_schema.columns WHERE table_name = 'T'")
        [(name,)] = cursor.fetchall()
    assert len(name) == 255
