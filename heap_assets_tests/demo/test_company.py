"""The sample company as a stranger would read it: through manifests, Avro readers and SQL only."""

import hashlib
import io
import json
import re
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import fastavro
import polars as pl
import pytest
from bucket_reader import listed_files, manifests, path_of, rows, table

from heap_assets.demo import Company, DemoError, grow, read_company, show_warehouse, write_company

UNTIL = date(2026, 10, 20)
MANIFEST = re.compile(r"manifests/sync_\d+\.json$")
DATA_FILE = re.compile(r"s3://[^/]+/sync_\d+/\w+/(\d+_)?part-\d{5}-[0-9a-fA-F-]{36}(-c000)?\.avro$")


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Company:
    return write_company(tmp_path_factory.mktemp("company"), people=300, days=24, seed=7, until=UNTIL)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Company:
    return write_company(tmp_path_factory.mktemp("clean"), people=300, days=24, seed=7, until=UNTIL, faults=False)


def fingerprint(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        + str(path.stat().st_mtime if "bucket" in str(path) else "")
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".duckdb"
    }


def relations(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    with duckdb.connect(str(path), read_only=True) as connection:
        names = connection.execute(
            "SELECT table_schema || '.' || table_name FROM information_schema.tables ORDER BY 1"
        ).fetchall()
        return {name: connection.execute(f"SELECT * FROM {name} ORDER BY ALL").fetchall() for (name,) in names}


def test_the_bucket_is_laid_out_as_heap_connect_does(company: Company) -> None:
    keys = [str(path.relative_to(company.bucket)) for path in (company.bucket / "manifests").iterdir()]
    assert keys
    assert all(MANIFEST.match(key) for key in keys)
    for manifest in manifests(company):
        for entry in manifest["tables"]:
            assert entry.keys() == {"name", "files", "columns", "incremental"}
            assert all(DATA_FILE.match(uri) and path_of(company, uri).is_file() for uri in entry["files"])


def test_dump_ids_are_large_not_contiguous_and_cross_a_digit_boundary(company: Company) -> None:
    ids = [manifest["dump_id"] for manifest in manifests(company)]
    assert ids == list(company.dump_ids.values())
    assert {len(str(number)) for number in ids} == {9, 10}
    assert all(later - earlier > 1 for earlier, later in pairwise(ids))


def test_a_bucket_also_has_what_is_no_dump(company: Company) -> None:
    begun = {int(path.name[5:]) for path in company.bucket.glob("sync_*") if path.name[5:].isdigit()} - set(
        company.dump_ids.values()
    )
    assert len(begun) == 1, "one dump has been begun and has no manifest"
    assert list((company.bucket / "imported_manifests").iterdir())
    assert "_event_metadata" in {entry["name"] for entry in manifests(company)[-1]["tables"]}


def test_each_manifest_is_written_the_night_after_its_day(company: Company) -> None:
    for day, dump_id in company.dump_ids.items():
        written = datetime.fromtimestamp((company.bucket / f"manifests/sync_{dump_id}.json").stat().st_mtime, UTC)
        assert (written - timedelta(hours=12)).date() == day
        assert written.date() == day + timedelta(days=1)
        assert written.hour in (1, 2)


def test_every_file_is_readable_by_two_avro_readers(clean: Company) -> None:
    for path in listed_files(clean):
        content = path.read_bytes()
        with_fastavro = list(fastavro.reader(io.BytesIO(content)))
        assert pl.read_avro(io.BytesIO(content)).height == len(with_fastavro) > 0


def test_a_manifest_lists_exactly_the_columns_of_its_files(clean: Company) -> None:
    for manifest in manifests(clean):
        for entry in manifest["tables"]:
            for uri in entry["files"]:
                assert pl.read_avro(path_of(clean, uri)).columns == entry["columns"]


def test_types_and_codecs_are_as_mixed_as_in_real_exports(clean: Company) -> None:
    codecs, kinds, logical = set(), set(), set()
    for path in listed_files(clean):
        with path.open("rb") as file:
            reader: Any = fastavro.reader(file)
            codecs.add(reader.codec)
            fields = reader.writer_schema["fields"]
        for entry in fields:
            kinds.add("union" if isinstance(entry["type"], list) else "bare")
            logical |= set(re.findall(r"timestamp-\w+", json.dumps(entry)))
            if entry["name"] in ("event_id", "from_user_id"):
                kinds.add("text id" if "string" in json.dumps(entry["type"]) else "long id")
    assert codecs == {"snappy", "deflate", "null"}
    assert kinds == {"union", "bare", "text id", "long id"}
    assert {"timestamp-micros", "timestamp-millis"} <= logical


def test_migrations_lead_from_anonymous_users_to_identified_ones_and_are_always_whole(clean: Company) -> None:
    before: set[int] = set()
    for manifest in manifests(clean):
        assert table(manifest, "user_migrations")["incremental"] is False
        now = {int(row["from_user_id"]) for row in rows(clean, manifest, "user_migrations")}
        assert before <= now
        before = now
    truth = pl.read_parquet(clean.truth / "heap_user_id.parquet")
    person = dict(truth.select("heap_user_id", "person").iter_rows())
    last = rows(clean, manifests(clean)[-1], "user_migrations")
    assert all(person[str(row["from_user_id"])] == person[str(row["to_user_id"])] for row in last)


def test_one_table_is_resynced_whole_with_rows_gone_and_changed(clean: Company) -> None:
    series = manifests(clean)
    full = [
        number
        for number, manifest in enumerate(series)
        if number and not table(manifest, "feature_used")["incremental"]
    ]
    assert len(full) == 1
    earlier = {row["event_id"]: row for manifest in series[: full[0]] for row in rows(clean, manifest, "feature_used")}
    whole = {row["event_id"]: row for row in rows(clean, series[full[0]], "feature_used")}
    assert earlier.keys() - whole.keys()
    assert any(whole[key] != earlier[key] for key in earlier.keys() & whole.keys())


def test_late_rows_a_new_column_and_a_new_table_come_mid_series(clean: Company) -> None:
    series = manifests(clean)
    late = 0
    for day, manifest in list(zip(clean.dump_ids, series, strict=True))[1:]:
        late += sum(row["time"][:10] < str(day - timedelta(days=1)) for row in rows(clean, manifest, "pageviews"))
    assert late > 0
    with_column = ["deal_stage" in table(manifest, "users")["columns"] for manifest in series]
    with_table = ["ticket_opened" in [entry["name"] for entry in manifest["tables"]] for manifest in series]
    assert with_column[0] is with_table[0] is False
    assert with_column[-1] is with_table[-1] is True
    assert sum("invite_teammate" not in [entry["name"] for entry in manifest["tables"]] for manifest in series) == 1


def test_an_event_comes_again_in_the_next_dump_under_the_user_it_migrated_to(clean: Company) -> None:
    seen: dict[int, int] = {}
    again = moved = 0
    for manifest in manifests(clean):
        dump = {row["event_id"]: row["user_id"] for row in rows(clean, manifest, "pageviews")}
        again += len(dump.keys() & seen.keys())
        moved += sum(seen[key] != dump[key] for key in dump.keys() & seen.keys())
        seen |= dump
    assert again > moved > 0


def test_what_was_pushed_comes_back_and_events_we_sent_say_so(clean: Company) -> None:
    newest = manifests(clean)[-1]
    assert {"plan", "deal_stage", "_email"} <= set(table(newest, "users")["columns"])
    sent = [row["sent_by"] for manifest in manifests(clean)[-3:] for row in rows(clean, manifest, "ticket_opened")]
    assert sent == ["heap_assets"] * len(sent)
    assert sent


def test_every_user_id_identity_and_device_of_the_data_has_a_true_owner_or_is_shared(clean: Company) -> None:
    truth = pl.read_parquet(clean.truth / "identifiers.parquet")
    assert truth.select("identifier_type", "identifier").is_unique().all()
    known = {kind: set(part["identifier"]) for (kind,), part in truth.group_by("identifier_type")}
    for manifest in manifests(clean):
        for name in ("pageviews", "sessions", "sign_up", "checkout_complete", "plan_upgraded"):
            assert {str(row["user_id"]) for row in rows(clean, manifest, name)} <= known["heap_user_id"]
        views = rows(clean, manifest, "pageviews")
        zeros = "00000000-0000-0000-0000-000000000000"
        assert {row["device_id"] for row in views} - {None, zeros} <= known["device_id"]
        assert {row["product_user_id"] for row in views} - {None, "undefined"} <= known["product_id"]
        users = rows(clean, manifest, "users")
        assert {row["identity"] for row in users} - {None} <= known["heap_identity"]
        assert {row["email"].strip().lower() for row in users if row["email"]} <= known["email"]
    assert set(truth.filter("shared")["kind"]) == {"kiosk", "shared_laptop", "mailbox"}
    assert truth.filter("shared")["person"].null_count() == truth["shared"].sum()


def test_warehouse_tables_are_keyed_each_its_own_way_and_known_to_the_truth(clean: Company) -> None:
    truth = pl.read_parquet(clean.truth / "identifiers.parquet").filter(~pl.col("shared"))
    person = {
        (kind, value): owner
        for kind, value, owner in truth.select("identifier_type", "identifier", "person").iter_rows()
    }
    with duckdb.connect(str(clean.warehouse), read_only=True) as connection:
        contacts = connection.execute(
            "SELECT contact_id, lower(trim(email)) FROM crm.contacts WHERE email LIKE '%.example%'"
        ).fetchall()
        customers = connection.execute(
            "SELECT customer_id, crm_contact_id FROM billing.customers WHERE crm_contact_id IS NOT NULL"
        ).fetchall()
        users = connection.execute(
            "SELECT user_id, heap_identity FROM product.users WHERE heap_identity IS NOT NULL"
        ).fetchall()
        tickets = connection.execute(
            "SELECT product_user_id FROM support.tickets WHERE product_user_id IS NOT NULL"
        ).fetchall()
        (mrr,) = connection.execute("SELECT DISTINCT typeof(mrr) FROM billing.customers").fetchall()
    assert all(person["crm_id", key] == person["email", email] for key, email in contacts)
    assert all(person["billing_id", key] == person["crm_id", contact] for key, contact in customers)
    assert all(person["product_id", key] == person["heap_identity", identity] for key, identity in users)
    assert all(("product_id", key) in person for (key,) in tickets)
    assert mrr == ("DECIMAL(10,2)",)


def test_equal_arguments_write_equal_files(company: Company, tmp_path: Path) -> None:
    again = write_company(tmp_path, people=300, days=24, seed=7, until=UNTIL)
    assert fingerprint(again.folder) == fingerprint(company.folder)
    assert relations(again.warehouse) == relations(company.warehouse)
    other = write_company(tmp_path, people=300, days=24, seed=8, until=UNTIL)
    assert (
        not fingerprint(other.folder).items()
        & {key: value for key, value in fingerprint(company.folder).items() if "users" in key}.items()
    )


def test_a_company_lives_on_day_by_day_and_leaves_its_past_alone(company: Company, tmp_path: Path) -> None:
    first = write_company(tmp_path / "a", people=300, days=24, seed=7, until=UNTIL)
    before = fingerprint(first.bucket)
    grown = grow(first.folder, days=2)
    assert grown.until == UNTIL + timedelta(days=2)
    assert list(grown.dump_ids)[-2:] == [UNTIL + timedelta(days=1), UNTIL + timedelta(days=2)]
    after = fingerprint(first.bucket)
    assert before.items() <= after.items()
    new = manifests(grown)[-1]
    assert {row["time"][:10] for row in rows(grown, new, "pageviews")} >= {str(grown.until)}
    write_company(tmp_path / "b", people=300, days=24, seed=7, until=UNTIL)
    grow(tmp_path / "b")
    grow(tmp_path / "b")
    assert fingerprint(tmp_path / "b") == fingerprint(first.folder)
    assert read_company(tmp_path / "b").dump_ids == grown.dump_ids
    assert relations(tmp_path / "b" / "warehouse.duckdb") == relations(grown.warehouse)
    assert relations(grown.warehouse) != relations(company.warehouse)


def test_the_warehouse_can_be_shown_as_it_stood_on_an_earlier_day(tmp_path: Path) -> None:
    company = write_company(tmp_path, people=100, days=10, seed=3, until=UNTIL)
    now = relations(company.warehouse)
    show_warehouse(tmp_path, UNTIL - timedelta(days=5))
    then = relations(company.warehouse)
    assert len(then["crm.contacts"]) <= len(now["crm.contacts"])
    assert then != now
    show_warehouse(tmp_path, UNTIL)
    assert relations(company.warehouse) == now


@pytest.mark.parametrize(("people", "days"), [(20, 3), (25, 4), (40, 40)])
def test_small_and_long_companies_work_and_grow(tmp_path: Path, people: int, days: int) -> None:
    company = write_company(tmp_path, people=people, days=days, seed=people, until=UNTIL)
    grown = grow(tmp_path, days=2)
    assert len(grown.dump_ids) == len(company.dump_ids) + 2
    assert (company.days[0], company.days[-1]) == (UNTIL - timedelta(days=days - 1), UNTIL)


def test_a_day_that_is_not_over_is_refused(tmp_path: Path) -> None:
    noon = datetime(2026, 10, 20, 11, 0, tzinfo=UTC)
    with pytest.raises(DemoError, match="2026-10-20 cannot have a dump yet"):
        write_company(tmp_path, people=100, days=10, until=UNTIL, now=noon)
    with pytest.raises(DemoError, match="no sample company"):
        grow(tmp_path)
    with pytest.raises(DemoError, match="too small"):
        write_company(tmp_path, people=5, days=10, until=UNTIL)
    early = datetime(2026, 10, 21, 0, 40, tzinfo=UTC)
    company = write_company(tmp_path, people=100, days=10, until=UNTIL, now=early)
    newest = company.bucket / f"manifests/sync_{company.dump_ids[UNTIL]}.json"
    assert newest.stat().st_mtime <= early.timestamp()
