"""The sample company against its truth: who is who from its raw rows, by the rules of the documented example."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import duckdb
import polars as pl
import pytest

from heap_assets.demo import Company, write_company
from heap_assets.identity import (
    ColumnMapping,
    IdentifierRule,
    Quality,
    Resolution,
    Rules,
    SourceTable,
    extract,
    quality,
    resolve,
    user_migrations_table,
    users_table,
)
from heap_assets_tests.demo.bucket_reader import manifests, rows

RULES = Rules(
    (
        IdentifierRule("heap_identity", max_per_profile=2),
        IdentifierRule("crm_id", max_per_profile=1),
        IdentifierRule("product_id", max_per_profile=1, pattern=r"^usr_[0-9]+$"),
        IdentifierRule("billing_id", max_per_profile=1),
        IdentifierRule("email", max_per_profile=3),
        IdentifierRule("device_id", max_per_profile=20, shared_above=1),
        IdentifierRule("heap_user_id", shared_above=1),
    )
)
PLAIN = Rules(tuple(replace(rule, max_per_profile=None, shared_above="never") for rule in RULES.identifiers))
EVENTS = {
    "user_id": "heap_user_id", "device_id": "device_id", "product_user_id": "product_id", "email": "email",
    "customer_id": "billing_id",
}  # fmt: skip
WAREHOUSE = {
    "crm.contacts": {"contact_id": "crm_id", "email": "email"},
    "billing.customers": {"customer_id": "billing_id", "crm_contact_id": "crm_id", "email": "email"},
    "product.users": {
        "user_id": "product_id", "heap_identity": "heap_identity", "heap_user_id": "heap_user_id", "email": "email"
    },
    "support.tickets": {"product_user_id": "product_id", "requester_email": "email"},
}  # fmt: skip


@dataclass(frozen=True)
class Resolved:
    """The company resolved, and measured against its truth over the identifiers that its data shows."""

    links: pl.LazyFrame
    resolution: Resolution
    truth: pl.DataFrame
    measured: Quality
    plain: Quality


def mapped(table: str, columns: dict[str, str], found: list[str]) -> SourceTable:
    mappings = tuple(ColumnMapping(kind, (name,)) for name, kind in columns.items() if name in found)
    return SourceTable(table, "event", mappings)


def tables(company: Company) -> list[tuple[SourceTable, pl.LazyFrame]]:
    """Everything that names people, as rows: all dumps for events, the newest row for users."""
    dumps, found = manifests(company), []
    names = sorted({entry["name"] for dump in dumps for entry in dump["tables"]})
    for name in names:
        every = [
            row for dump in dumps if name in {t["name"] for t in dump["tables"]} for row in rows(company, dump, name)
        ]
        frame = pl.from_dicts(
            [{k: None if v is None else str(v) for k, v in row.items()} for row in every], infer_schema_length=None
        )
        if name == "user_migrations":
            found.append((replace(user_migrations_table(), time_column=None), frame.lazy()))
        elif name == "users":
            current = frame.with_row_index().sort("last_modified", "index").unique("user_id", keep="last")
            mappings = (
                ColumnMapping("heap_user_id", ("user_id",)), ColumnMapping("heap_identity", ("identity",)),
                ColumnMapping("product_id", ("identity",)), ColumnMapping("email", ("identity",)),
                ColumnMapping("email", ("email",)),
            )  # fmt: skip
            found.append((replace(users_table(mappings=mappings), time_column=None), current.lazy()))
        else:
            ours = frame.filter(pl.col("sent_by") != "heap_assets") if "sent_by" in frame.columns else frame
            found.append((mapped(name, EVENTS, frame.columns), ours.lazy()))
    with duckdb.connect(str(company.folder / "warehouse.duckdb"), read_only=True) as connection:
        for relation, columns in WAREHOUSE.items():
            stored = connection.sql(f"SELECT {', '.join(columns)} FROM {relation}").to_arrow_table()
            found.append((mapped(relation, columns, list(columns)), pl.DataFrame(stored).lazy()))
    return found


@pytest.fixture(scope="module")
def resolved(tmp_path_factory: pytest.TempPathFactory) -> Resolved:
    folder: Path = tmp_path_factory.mktemp("company")
    company = write_company(folder, people=400, days=20, seed=7, until=date(2026, 11, 1), faults=False)
    links = pl.concat([extract(frame, table, RULES).links for table, frame in tables(company)]).collect().lazy()
    result = resolve(links, RULES)
    known = result.graph.select("identifier_type", "identifier").collect().lazy()
    keys = ["identifier_type", "identifier"]
    truth = pl.scan_parquet(company.truth / "identifiers.parquet").join(known, on=keys, how="semi").collect()
    return Resolved(
        links,
        result,
        truth,
        quality(result.graph, truth.lazy()),
        quality(resolve(links, PLAIN).graph, truth.lazy()),
    )


def test_hardly_a_wrong_pair_and_hardly_a_pair_lost_to_limits(resolved: Resolved) -> None:
    assert resolved.measured.precision >= 0.998
    assert resolved.measured.recall >= resolved.plain.recall - 0.025
    assert resolved.measured.precision > resolved.plain.precision


def devices_of_several(links: pl.LazyFrame, truth: pl.DataFrame) -> pl.DataFrame:
    """Shared devices that the data shows with identifiers of two people: with fewer, nobody could tell."""
    people = (
        truth.lazy()
        .filter(pl.col("person").is_not_null())
        .select(type_a="identifier_type", value_a="identifier", person="person")
    )
    seen = links.filter(pl.col("type_b") == "device_id").join(people, on=["type_a", "value_a"])
    several = seen.group_by(identifier="value_b").agg(people=pl.col("person").n_unique()).filter(pl.col("people") > 1)
    return truth.filter(pl.col("shared")).join(several.collect(), on="identifier")


def test_every_kiosk_and_shared_laptop_is_found_and_nobodys_own_device(resolved: Resolved) -> None:
    found = resolved.resolution.shared.select("identifier_type", "identifier").collect()
    several = devices_of_several(resolved.links, resolved.truth)
    assert set(several["kind"]) == {"kiosk", "shared_laptop"}
    missed = several.join(found, on=["identifier_type", "identifier"], how="anti")
    own = resolved.truth.filter((pl.col("identifier_type") == "device_id") & ~pl.col("shared"))
    wrongly = own.join(found, on=["identifier_type", "identifier"], how="semi")
    assert (missed.height, wrongly.height) == (0, 0)
