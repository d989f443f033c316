"""Each planted fault is really there, where the list says it is, and nowhere in a company without faults."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import fastavro
import polars as pl
import pytest
from bucket_reader import manifests, path_of, rows, table

from heap_assets.demo import Company, Fault, grow, write_company

UNTIL = date(2026, 10, 20)


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Company:
    return write_company(tmp_path_factory.mktemp("faulty"), people=400, days=30, seed=5, until=UNTIL)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Company:
    return write_company(tmp_path_factory.mktemp("clean"), people=400, days=30, seed=5, until=UNTIL, faults=False)


def fault(company: Company, name: str) -> Fault:
    return next(planted for planted in company.faults if planted.name == name)


def manifest_of(company: Company, day: date | str) -> dict[str, Any]:
    dump_id = company.dump_ids[date.fromisoformat(str(day))]
    return next(manifest for manifest in manifests(company) if manifest["dump_id"] == dump_id)


def ask(company: Company, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(company.warehouse), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def both(company: Company, clean: Company, sql: str) -> tuple[Any, Any]:
    return ask(company, sql)[0][0], ask(clean, sql)[0][0]


def test_each_fault_names_its_place_and_the_check_that_finds_it(company: Company, clean: Company) -> None:
    assert clean.faults == []
    assert len({planted.name for planted in company.faults}) == len(company.faults) >= 9
    for planted in company.faults:
        assert company.first_day <= date.fromisoformat(planted.partition) <= company.until
        assert planted.found_by.isidentifier()
        assert planted.done.endswith(".")


def test_a_warehouse_table_is_stale(company: Company, clean: Company) -> None:
    stale, fresh = both(company, clean, "SELECT max(created_at)::DATE FROM support.tickets")
    assert stale <= UNTIL - timedelta(days=9)
    assert fresh > UNTIL - timedelta(days=9)


def test_an_event_table_is_stale_but_still_listed(company: Company, clean: Company) -> None:
    name = "_key_events__export_data_"
    assert all(table(manifest, name)["files"] == [] for manifest in manifests(company)[-3:])
    assert any(table(manifest, name)["files"] for manifest in manifests(clean)[-3:])


def test_some_people_have_two_identities_that_heap_has_not_merged(company: Company, clean: Company) -> None:
    def doubled(written: Company) -> set[str]:
        merged = {str(row["from_user_id"]) for row in rows(written, manifests(written)[-1], "user_migrations")}
        truth = pl.read_parquet(written.truth / "heap_identity.parquet")
        users = [row for manifest in manifests(written) for row in rows(written, manifest, "users") if row["identity"]]
        standing = {row["identity"] for row in users if str(row["user_id"]) not in merged}
        people = truth.filter(pl.col("heap_identity").is_in(list(standing)))["person"]
        return set(people.filter(people.is_duplicated()))

    assert not doubled(clean)
    share = len(doubled(company)) / ask(company, "SELECT count(*) FROM product.users")[0][0]
    assert 0 < share < 0.03
    planted = pl.read_parquet(company.truth / "persons.parquet").filter("two_identities")["person"]
    assert doubled(company) <= set(planted)


def test_an_email_column_is_broken_on_the_newest_day_only(company: Company, clean: Company) -> None:
    broken = "SELECT avg((email = '' OR email LIKE '%***%')::INT) FROM product.users"
    share, none = both(company, clean, broken)
    assert 0.3 < share < 0.6
    assert none == 0


def test_one_file_is_cut_off_and_no_other(company: Company) -> None:
    damaged = []
    for manifest in manifests(company):
        for entry in manifest["tables"]:
            for uri in entry["files"]:
                try:
                    with path_of(company, uri).open("rb") as file:
                        list(fastavro.reader(file))
                except (EOFError, ValueError, IndexError):
                    damaged.append((manifest["dump_id"], entry["name"]))
    planted = fault(company, "bad_avro_file")
    assert [(f"heap/events/{name}") for _, name in damaged] == [planted.asset]
    assert damaged[0][0] == company.dump_ids[date.fromisoformat(planted.partition)]


def test_some_rows_have_ids_or_times_that_cannot_be_read(company: Company, clean: Company) -> None:
    day = fault(company, "unreadable_rows").partition
    found = {row["event_id"] for row in rows(company, manifest_of(company, day), "checkout_complete")}
    assert {"", "9.007199254740993E15"} <= found
    assert all(row["event_id"].isdigit() for row in rows(clean, manifest_of(clean, day), "checkout_complete"))


def test_free_text_has_emails_and_numbers_that_nobody_declared(company: Company, clean: Company) -> None:
    def personal(written: Company) -> int:
        newest = rows(written, manifest_of(written, UNTIL), "invite_teammate")
        return sum("@" in (row["message"] or "") for row in newest)

    assert personal(company) > 0
    assert personal(clean) == 0


def test_keys_are_doubled_crossed_and_entered_twice(company: Company, clean: Company) -> None:
    twice = "SELECT count(*) - count(DISTINCT account_id) FROM product.accounts"
    assert both(company, clean, twice) == (2, 0)
    truth = pl.read_parquet(company.truth / "identifiers.parquet").filter(~pl.col("shared"))
    person = {(kind, value): owner for kind, value, owner in truth.select(pl.nth(0, 1, 2)).iter_rows()}
    linked = ask(company, "SELECT customer_id, crm_contact_id FROM billing.customers WHERE crm_contact_id IS NOT NULL")
    assert sum(person["billing_id", customer] != person["crm_id", contact] for customer, contact in linked) == 3
    contacts = [person["crm_id", key] for (key,) in ask(company, "SELECT contact_id FROM crm.contacts")]
    assert len(contacts) > len(set(contacts))


def test_one_person_migrates_in_a_circle(company: Company, clean: Company) -> None:
    def circles(written: Company) -> int:
        newest = rows(written, manifests(written)[-1], "user_migrations")
        to = {int(row["from_user_id"]): int(row["to_user_id"]) for row in newest}
        return sum(to.get(to[start]) == start for start in to)

    assert circles(company) == 2
    assert circles(clean) == 0


def test_a_day_lacks_most_of_its_rows(company: Company, clean: Company) -> None:
    day = fault(company, "volume_drop").partition
    few, usual = (len(rows(written, manifest_of(written, day), "feature_used")) for written in (company, clean))
    assert 0 < few < usual / 4


def test_faults_do_not_change_who_is_who(company: Company, clean: Company, tmp_path: Path) -> None:
    faulty, sound = (pl.read_parquet(written.truth / "device_id.parquet") for written in (company, clean))
    assert faulty.equals(sound)


def test_a_grown_company_is_still_stale_and_names_its_new_newest_day(tmp_path: Path) -> None:
    written = write_company(tmp_path, people=60, days=12, seed=2, until=UNTIL)
    grown = grow(tmp_path)
    assert fault(grown, "stale_event_table").partition == str(UNTIL + timedelta(days=1))
    assert fault(grown, "volume_drop").partition == fault(written, "volume_drop").partition
    assert table(manifests(grown)[-1], "_key_events__export_data_")["files"] == []
