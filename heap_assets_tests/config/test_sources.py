"""Several systems beside one another: `sources:` has what `warehouse:` has, and other sections name its tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from heap_assets.config import Settings
from heap_assets.errors import SettingsError
from heap_assets.project import parse_settings, refused_hosts
from heap_assets.sources.warehouse.postgres.settings import PostgresSettings
from heap_assets.tables import (
    AUDIT,
    DUMPS,
    LANDED,
    PROFILES,
    RESERVED_SOURCES,
    RESOLVED,
    USERS,
    heap_asset,
    is_warehouse_table,
    publish_asset,
    sync_asset,
    warehouse_asset,
    warehouse_table,
)
from heap_assets_tests.config.test_settings import GOOD

PEOPLE = "{relation: crm.people, key: person_id, identifiers: {email: email}}"
SOURCES = f"""
sources:
  crm: {{kind: postgres, dsn: "postgresql://crm.example/db", schedule: "0 4 * * *", tables: {{people: {PEOPLE}}}}}
  support: {{kind: duckdb, path: ./support.duckdb, tables: {{crm_contacts: {{relation: s.tickets, key: id}}}}}}
"""
PLAN, CRM_PLAN = "from: [crm_contacts.plan]", "from: [crm_contacts.plan, crm/people.plan]"


def parse(text: str) -> Settings:
    return parse_settings(text, Path("/somewhere/heap_assets.yaml"))


def test_tables_of_all_sources_have_names_of_their_own() -> None:
    settings = parse(GOOD.replace(PLAN, CRM_PLAN) + SOURCES)
    assert list(settings.all_sources) == ["warehouse", "crm", "support"]
    assert list(map(warehouse_asset, settings.source_tables)) == [
        "warehouse/crm_contacts", "crm/people", "support/crm_contacts",
    ]  # fmt: skip
    assert [warehouse_table(warehouse_asset(name)) for name in settings.source_tables] == list(settings.source_tables)
    assert settings.source_tables["crm/people"].relation == "crm.people"
    assert isinstance(settings.sources["crm"], PostgresSettings)
    assert settings.sources["support"].model_dump()["path"] == Path("/somewhere/support.duckdb")
    assert [settings.read_schedule(source) for source in settings.all_sources] == [
        "30 2 * * *", "0 4 * * *", "30 2 * * *",
    ]  # fmt: skip


def test_a_file_without_sources_has_the_tables_of_its_warehouse() -> None:
    settings = parse(GOOD)
    assert settings.warehouse is not None
    assert settings.source_tables == settings.warehouse.tables
    assert [warehouse_asset(name) for name in settings.source_tables] == ["warehouse/crm_contacts"]


def test_our_own_assets_are_of_no_source() -> None:
    own = [DUMPS, LANDED, USERS, heap_asset("signup"), heap_asset("pageviews"), *RESOLVED, PROFILES, AUDIT]
    own += [sync_asset("hook"), publish_asset("there", "profiles")]
    assert not [asset for asset in own if is_warehouse_table(asset)]
    assert not [name for name in RESERVED_SOURCES - {"warehouse"} if is_warehouse_table(f"{name}/t")]
    assert is_warehouse_table("warehouse/t")
    assert is_warehouse_table("crm/t")


@pytest.mark.parametrize(
    "name",
    [
        "heap",
        "identity",
        "profiles",
        "sync",
        "heap_connect",
        "warehouse",
        "latest",
        "Crm",
        "1st",
        "a-b",
        "publish__there",
    ],
)
def test_a_name_that_is_ours_or_none_is_refused(name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(GOOD + f"sources:\n  {name}: {{kind: duckdb, path: ./x.duckdb}}\n")
    assert f"sources.{name} is '{name}'; expected: a name of lower-case letters" in str(caught.value)
    assert "line 24" in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("kind: postgres", "kind: oracle", "crm.kind is 'oracle'; expected: one of 'bigquery', 'duckdb', 'postgres'"),
        ("kind: postgres, ", "", "sources.crm.kind is missing"),
        ("dsn:", "dns:", "sources.crm.dns is not a known key"),
        ("crm.people", "people", "sources.crm.tables.people.relation is 'people'; expected: schema.table"),
        ("kind: postgres", "kind: postgres, datasets: [hr]", "but crm is not among sources.crm.datasets: hr"),
        ("people: {", "a/b: {", "sources.crm.tables.a/b: a table's name here is of letters"),
        *(("people: {", f"'{name}': {{", f"tables.{name}: a table's name") for name in ("a b", "größe", "..", "a.b")),
        ("people: {", f"{'x' * 101}: {{", "at most 100 long"),
        ("email: email", "email: emial", "sources.crm.tables.people.identifiers.email is 'emial'"),
        ("0 4 * * *", "daily", "sources.crm.schedule is 'daily'; expected: a cron expression"),
        ("postgresql://crm", "postgresql://u:hunter2@crm", "sources.crm.dsn holds a password"),
        ("crm/people.plan", "crm/peoples.plan", "no table 'crm/peoples'. Tables: users, crm_contacts, crm/people"),
        ("crm/people.plan", "people.plan", "there is no table 'people'"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_message_that_names_the_key(old: str, new: str, message: str) -> None:
    text = GOOD.replace(PLAN, CRM_PLAN) + SOURCES
    assert old in text
    with pytest.raises(SettingsError) as caught:
        parse(new.join(text.rsplit(old, 1)))
    assert message in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("warehouse", "crm__people"), ("crm", "people")),
        (("crm", "eu__people"), ("crm__eu", "people")),
        (("crm", "_people"), ("crm_", "people")),
        (("warehouse", "crm__people"), ("warehouse__crm", "people")),
    ],
)
def test_tables_that_would_share_a_name_in_dagster_are_both_named(one: tuple[str, str], other: tuple[str, str]) -> None:
    def parsed(*tables: tuple[str, str]) -> Settings:
        text = GOOD
        for source, table in tables:
            line = f"{table}: {{relation: s.t, key: id}}"
            if source == "warehouse":
                text = text.replace("  tables:\n", f"  tables:\n    {line}\n")
            else:
                text += "" if "\nsources:" in text else "sources:\n"
                text += f"  {source}: {{kind: duckdb, path: ./x.duckdb, tables: {{{line}}}}}\n"
        return parse(text)

    assert parsed(one)
    assert parsed(other)
    with pytest.raises(SettingsError) as caught:
        parsed(one, other)
    for source, table in (one, other):
        section = source if source == "warehouse" else f"sources.{source}"
        assert f"{section}.tables.{table}" in str(caught.value)


def test_a_sync_reads_a_table_of_a_source() -> None:
    hook = "  hook: {kind: webhook, url: 'http://localhost', source: crm/people, key: person_id, properties: {a: b}}\n"
    settings = parse(GOOD.replace("sync:\n", f"sync:\n{hook}") + SOURCES)
    assert settings.columns_of_syncs("crm/people") == {"person_id", "b"}
    assert settings.columns_of_syncs("crm_contacts") == set()
    with pytest.raises(SettingsError, match=r"sync\.hook\.source is 'crm/person', which is no.*crm/people"):
        parse(GOOD.replace("sync:\n", f"sync:\n{hook}".replace("crm/people", "crm/person")) + SOURCES)


def test_hosts_of_sources_are_allowed_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", "http://crm.example:5432")
    text = GOOD + SOURCES + "allowed_hosts: []\n"
    hook = "  hook: {kind: webhook, url: '${HOOK}', key: email, properties: {a: plan}}\n"
    assert "sync.hook: crm.example:5432" not in refused_hosts(parse(text.replace("sync:\n", f"sync:\n{hook}")))
    elsewhere = text.replace("crm.example", "other.example").replace("sync:\n", f"sync:\n{hook}")
    assert "sync.hook: crm.example:5432" in refused_hosts(parse(elsewhere))
