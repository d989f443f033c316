"""Synapse and Fabric by a recording stand-in: which statements, in which order, each parsed in its dialect.

No server of either runs outside Azure; what the statements do there was never seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import obstore
import polars as pl
import pyarrow as pa
import pytest
import sqlglot
from obstore.store import MemoryStore
from sqlglot import exp

from heap_assets.errors import SettingsError
from heap_assets.project import parse_settings
from heap_assets.sources.warehouse.base import AccessError, Newer, WarehouseBusyError, WarehouseError
from heap_assets.sources.warehouse.publish import Preview, Publication, PublishError, PublishStatus
from heap_assets.sources.warehouse.resolved_views import ResolvedOn
from heap_assets.sources.warehouse.synapse.connection import SynapseServer
from heap_assets.sources.warehouse.synapse.errors import explained
from heap_assets.sources.warehouse.synapse.publisher import AzureFiles, FabricPublisher, SynapsePublisher
from heap_assets.sources.warehouse.synapse.reader import SynapseWarehouse
from heap_assets.storage import Store
from heap_assets_tests.sources.warehouse.publish_target import MONDAY, PEOPLE, TUESDAY, people

URL = "https://acme.blob.core.windows.net/loads/heap"
_NOT_PARSED = re.compile(r"COPY INTO|IF SCHEMA_ID|IF @@TRANCOUNT|ALTER VIEW")


class DriverError(Exception):
    """As the driver's are: of its own module."""


class Recorder:
    """Stands in for a server: keeps what tables have been made of, and answers what statements ask of that."""

    def __init__(self, dialect: str, refused: str = "nothing is") -> None:
        self.dialect, self.refused = dialect, refused
        self.statements: list[str] = []
        self.tables: dict[str, dict[str, str]] = {}
        self.rows = pa.table({})
        self._answer: list[tuple[Any, ...]] = []
        self.files = MemoryStore()
        self.staged: list[pl.DataFrame] = []

    def __call__(self, text: str) -> Recorder:
        self.login = text
        return self

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @contextmanager
    def cursor(self) -> Iterator[Recorder]:
        yield self

    def execute(self, statement: str) -> None:
        self.statements.append(statement)
        if re.search(self.refused, statement):
            raise DriverError("a value 'zoe@x.example' is too long")
        if not _NOT_PARSED.match(statement):
            tree = sqlglot.parse_one(statement, dialect=self.dialect)
            assert not isinstance(tree, exp.Command), statement
        self._answer = self._answered(statement)

    def fetchall(self) -> list[tuple[Any, ...]]:
        return self._answer

    @contextmanager
    def arrow_reader(self, rows: int) -> Iterator[list[pa.RecordBatch]]:
        yield self.rows.to_batches(rows)

    def _answered(self, statement: str) -> list[tuple[Any, ...]]:
        if made := re.match(r'CREATE TABLE "\w+"\."(\w+)" \((.*?)\)(?: WITH .*)?$', statement):
            self.tables[made[1]] = dict(re.findall(r'"(\w+)" ([A-Z0-9]+(?:\([\d,]+\))?)', made[2]))
        if added := re.match(r'ALTER TABLE "\w+"\."(\w+)" (?:ADD|ALTER COLUMN) "(\w+)" (\S+) NULL', statement):
            self.tables[added[1]][added[2]] = added[3]
        if copied := re.match(r"COPY INTO \S+ FROM '[^']+/([^'/]+)'", statement):
            self.staged.append(pl.read_parquet(bytes(obstore.get(self.files, copied[1]).bytes())))
        if named := re.search(r"COLUMNS WHERE TABLE_SCHEMA = N'(?:pub|dbo)' AND TABLE_NAME = N'(\w+)'", statement):
            return [_described(name, kind) for name, kind in self.tables.get(named[1], {}).items()]
        if "is_read_committed_snapshot_on" in statement:
            return [(False,)]
        if "INFORMATION_SCHEMA.TABLES" in statement:
            return [(f"dbo.{name}", "BASE TABLE") for name in self.tables]
        if "SUM(CASE" in statement:
            return [(0,)]
        if "SHA2_256" in statement:
            return [(2, "4711")]
        return [(1,)] if "SELECT COUNT(*)" in statement and "heap_assets_loads" in statement else []

    def kinds_of(self) -> list[str]:
        words = (re.match(r"(IF SCHEMA_ID|[A-Z]+(?: (?:TABLE|INTO|TRANSACTION|VIEW))?)", s) for s in self.statements)
        return [word[1] for word in words if word and word[1] not in ("SELECT", "SELECT INTO")]


def _described(name: str, kind: str) -> tuple[Any, ...]:
    base, *room = re.findall(r"[A-Z0-9]+", kind)
    numbers = [int(number) for number in room]
    if base == "DECIMAL":
        return (name, base.lower(), None, *numbers, None, "YES")
    if base in ("DATETIME2", "TIME"):
        return (name, base.lower(), None, None, None, numbers[0], "YES")
    return (name, base.lower(), numbers[0] if numbers else None, None, None, None, "YES")


def publisher_of(recorder: Recorder, folder: Path) -> SynapsePublisher:
    kind = FabricPublisher if recorder.dialect == "fabric" else SynapsePublisher
    server = SynapseServer("pool.example", "dw", "service_principal", "id", "s}cret", connect=recorder)
    credential = "" if recorder.dialect == "fabric" else "IDENTITY = 'Managed Identity'"
    return kind(server, "pub", Store(str(folder / "lake")), AzureFiles(recorder.files, URL, credential))


@pytest.fixture(params=["tsql", "fabric"])
def recorder(request: pytest.FixtureRequest) -> Recorder:
    return Recorder(request.param)


def test_a_day_is_staged_outside_and_replaced_inside_one_transaction(recorder: Recorder, tmp_path: Path) -> None:
    publisher = publisher_of(recorder, tmp_path)
    published = publisher.publish(PEOPLE, MONDAY, people(1, 2), "v1")
    assert (published.status, published.rows) == (PublishStatus.LOADED, 2)
    assert recorder.kinds_of() == [
        "IF SCHEMA_ID", "CREATE TABLE", "CREATE TABLE", "INSERT INTO", "CREATE TABLE", "COPY INTO", "BEGIN TRANSACTION",
        "DELETE", "INSERT INTO", "UPDATE", "COMMIT TRANSACTION", "DROP TABLE",
    ]  # fmt: skip
    [deleted] = [s for s in recorder.statements if s.startswith("DELETE")]
    assert deleted == 'DELETE FROM "pub"."people" WHERE "partition_day" = CAST(\'2026-11-02\' AS DATE)'
    [copied] = [s for s in recorder.statements if s.startswith("COPY")]
    assert (f"FROM '{URL}/heap_assets_load_" in copied, "Managed Identity" in copied) == (
        True,
        recorder.dialect == "tsql",
    )
    assert recorder.staged[0].rows() == [(MONDAY, 1), (MONDAY, 2)]
    assert obstore.list(recorder.files).collect() == [], "the file goes afterwards"
    assert "PWD={s}}cret}" in recorder.login
    assert "s}cret" not in repr(publisher._server)


def test_a_load_that_fails_leaves_the_old_day(tmp_path: Path) -> None:
    recorder = Recorder("tsql", refused=r'INSERT INTO "pub"\."people"')
    with pytest.raises(PublishError, match="a value '…' is too long"):
        publisher_of(recorder, tmp_path).publish(PEOPLE, MONDAY, people(1), "v1")
    assert recorder.kinds_of()[-3:] == ["INSERT INTO", "IF", "DROP TABLE"]
    assert "IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION" in recorder.statements
    assert "COMMIT TRANSACTION" not in recorder.statements
    assert obstore.list(recorder.files).collect() == []


def test_columns_are_added_and_types_widen_where_the_engine_can(recorder: Recorder, tmp_path: Path) -> None:
    publisher = publisher_of(recorder, tmp_path)
    publisher.publish(PEOPLE, MONDAY, people(1, plan=7), "v1")
    assert publisher.publish(PEOPLE, TUESDAY, people(2, city="Berlin"), "v1").added_columns == ("city",)
    with pytest.raises(PublishError, match=r"'plan'.*can only be widened"):
        publisher.publish(PEOPLE, MONDAY, people(1, plan="pro"), "v2")
    if recorder.dialect == "fabric":
        with pytest.raises(PublishError, match="Fabric changes no column's type"):
            publisher.publish(PEOPLE, MONDAY, people(1, plan=2.5), "v2")
        return
    assert publisher.preview(PEOPLE, people(1, plan=2.5), MONDAY) == Preview(False, (), ("plan",))
    publisher.publish(PEOPLE, MONDAY, people(1, plan=2.5), "v2")
    assert 'ALTER TABLE "pub"."people" ALTER COLUMN "plan" FLOAT NULL' in recorder.statements


def test_values_are_staged_as_copy_takes_them(recorder: Recorder, tmp_path: Path) -> None:
    at = datetime(2026, 11, 2, 10, 0, 0, 123456, UTC)
    rows = pl.LazyFrame(
        {
            "utc": [at],
            "tim": [time(1, 2, 3)],
            "dec": [Decimal("1.50")],
            "tags": [["a"]],
            "long": ["x" * 8_001],
            "b": [True],
        },
        schema_overrides={"dec": pl.Decimal(10, 2)},
    )  # fmt: skip
    published = publisher_of(recorder, tmp_path).publish(Publication("t", by_day=False), None, rows, "v1")
    assert published.lost == {"long": 1}
    assert recorder.staged[0].drop("long").rows() == [
        ("2026-11-02T10:00:00.123456", "01:02:03.000000", Decimal("1.50"), '["a"]', True)
    ]
    assert recorder.tables["t"]["utc"] == "DATETIME2(6)"
    [inserted] = [s for s in recorder.statements if s.startswith('INSERT INTO "pub"."t"')]
    assert 'CAST("utc" AS DATETIME2(6)), CAST("tim" AS TIME(6)), "dec", "tags", "long", "b"' in inserted


def test_views_take_todays_user(recorder: Recorder, tmp_path: Path) -> None:
    publisher = publisher_of(recorder, tmp_path)
    publisher.publish(Publication("t"), MONDAY, pl.LazyFrame({"user_id": [1]}), "v1")
    assert publisher.resolve_views(["t"], into="resolved", on=ResolvedOn(MONDAY, MONDAY)) == ["resolved.t"]
    [view] = [s for s in recorder.statements if s.startswith("CREATE VIEW")]
    assert "WHERE partition_day = CAST('2026-11-02' AS DATE)" in view


def test_preflight_of_a_pool_says_whether_readers_see_a_day_whole(recorder: Recorder, tmp_path: Path) -> None:
    failed = [tried for tried in publisher_of(recorder, tmp_path).preflight() if not tried.passed]
    assert [tried.name for tried in failed] == (["isolation"] if recorder.dialect == "tsql" else [])


def test_rows_are_read_in_the_types_of_the_lake(recorder: Recorder, tmp_path: Path) -> None:
    recorder.tables["contacts"] = {
        "id": "BIGINT", "at": "DATETIME2(7)", "amount": "DECIMAL(12,2)", "t": "TIME(7)", "name": "NVARCHAR(40)",
        "f": "FLOAT",
    }  # fmt: skip
    at = datetime(2026, 11, 2, 10)
    recorder.rows = pa.table(
        {"id": [1], "at": pa.array([at], pa.timestamp("us")), "amount": [Decimal("1.50")], "t": ["01:02:03.5"],
         "name": ["ü"], "f": [0.5]}
    )  # fmt: skip
    warehouse = SynapseWarehouse(SynapseServer("pool.example", "dw", connect=recorder))
    path = tmp_path / "rows.parquet"
    newer = Newer("at", datetime(2026, 11, 1, tzinfo=UTC), equals=("name", "ü"))
    reading = warehouse.read("contacts", None, path, newer=newer, limit=5)
    assert (reading.relation, reading.rows) == ("dbo.contacts", 1)
    assert pl.read_parquet(path).rows() == [(1, at, Decimal("1.50"), time(1, 2, 3, 500000), "ü", 0.5)]
    selected = recorder.statements[-1]
    assert "\"at\" >= CAST('2026-11-01T00:00:00.000000' AS DATETIME2(6)) AND \"name\" = 'ü'" in selected
    assert "FETCH NEXT 5 ROWS ONLY" in selected
    assert "CONVERT" not in selected
    tally = warehouse.tally("contacts", "f")
    assert tally is not None
    assert (tally.rows, tally.checksum) == (2, "4711")
    assert all(tried.passed for tried in warehouse.preflight())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Login failed for user 'zoe'.", AccessError),
        ("The SELECT permission was denied on the object 'zoe'", AccessError),
        ("Snapshot isolation transaction aborted due to update conflict (24556)", WarehouseBusyError),
        ("Conversion failed when converting the value 'zoe@x.example'", WarehouseError),
    ],
)
def test_errors_quote_no_value(text: str, expected: type[WarehouseError]) -> None:
    ours = explained(DriverError(text), "dw", "GRANT SELECT")
    assert type(ours) is expected
    assert "zoe" not in str(ours)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("kind: synapse, server: s, database: d", "login: service_principal needs user and password"),
        ("kind: fabric, server: s, database: d, login: default, password: '${P}'", "login: default has no password"),
    ],
)
def test_a_mistake_in_the_settings_is_told(
    section: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("P", "p-4711-x")
    with pytest.raises(SettingsError, match=message):
        parse_settings(settings_with(f"warehouse: {{{section}, tables: {{}}}}"), tmp_path / "heap_assets.yaml")


def test_the_driver_is_an_extra_and_a_target_is_opened_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P", "p-4711-x")
    login = "server: s.example, database: d, user: u, password: '${P}'"
    monkeypatch.setenv("KEY", "a2V5a2V5a2V5")
    staging = f"staging: '{URL}', staging_options: {{azure_storage_account_key: '${{KEY}}'}}, staging_sas: '${{P}}'"
    text = settings_with(
        f"publish: {{a: {{kind: synapse, {login}, {staging}}}, b: {{kind: fabric, {login}, {staging}}}}}"
    )
    publish = parse_settings(text, tmp_path / "heap_assets.yaml").publish
    store = Store(str(tmp_path / "lake"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"publish\.a\.kind is synapse.*pip install 'heap_assets\[synapse\]'"):
        publish["a"].open(store, "publish.a")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    kinds = {name: type(target.open(store, f"publish.{name}")) for name, target in publish.items()}
    assert kinds == {"a": SynapsePublisher, "b": FabricPublisher}
    files = publish["a"].open(store, "publish.a")._files
    assert files.credential == "IDENTITY = 'Shared Access Signature', SECRET = 'p-4711-x'"
    assert "p-4711-x" not in repr(files)
    with pytest.raises(SettingsError, match="staging"):
        parse_settings(text.replace(URL, "s3://bucket/x"), tmp_path / "heap_assets.yaml")


def settings_with(section: str) -> str:
    return f"""
start_date: 2026-01-01
lake: ./lake
heap: {{app_id: "1", source: {{kind: folder, path: ./bucket}}}}
identity: {{identifiers: [{{type: email, max_per_profile: 3}}]}}
{section}
"""
