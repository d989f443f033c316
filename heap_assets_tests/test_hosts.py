"""`allowed_hosts`: what is named besides lake and sources is refused at each door, and `check` says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from heap_assets.errors import HostNotAllowedError, SettingsError
from heap_assets.pipelines.publishing import open_publisher
from heap_assets.project import parse_settings
from heap_assets.project.allowed_hosts import allowed_hosts, refused_hosts
from heap_assets.project.project import Project
from heap_assets.sources.heap_connect import Catalogue
from heap_assets.sources.warehouse.postgres.dsn import Dsn
from heap_assets.storage import Lake

TEXT = """
start_date: 2026-01-01
lake: ./lake
heap: {app_id: "4711", source: {kind: s3, bucket: heap-rs3-acme, endpoint_url: "http://10.0.0.9:9000"}}
warehouse: {kind: postgres, dsn: "${DSN}"}
identity: {identifiers: [{type: heap_identity}, {type: email}]}
profiles: {traits: {plan: {from: [users.tier], choose: first_present}}}
sync:
  heap_user_properties: {properties: {Plan: plan}}
  hook: {kind: webhook, url: "${HOOK}", properties: {Plan: plan}}
publish:
  bi: {kind: postgres, dsn: "${BI}"}
alerts:
  - {kind: slack, url_env: SLACK}
  - {kind: email, host: mail.acme.example, recipients: [ops@acme.example]}
"""


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSN", "postgresql://ann:pass-word-1@warehouse.acme.example/crm")
    monkeypatch.setenv("BI", "host=bi1,bi2 port=5433 dbname=bi password=pass-word-2")
    monkeypatch.setenv("HOOK", "https://hooks.acme.example/in/7")
    monkeypatch.setenv("SLACK", "https://hooks.slack.com/services/T0/B0/xxxx1111")


def settings(tmp_path: Path, allowed: str) -> object:
    return parse_settings(TEXT + allowed, tmp_path / "heap_assets.yaml")


@pytest.mark.parametrize(
    ("dsn", "hosts"),
    [
        ("postgresql://u:p@h.example/db", ["h.example:5432"]),
        ("postgresql://u:p%40@a,b:6/db", ["a:5432", "b:6"]),
        ("postgresql:///db", ["localhost:5432"]),
        ("postgresql:///db?host=/run/postgresql", []),
        ("postgresql:///db?host=a&port=7", ["a:7"]),
        ("postgresql://u@[::1]:7/db", ["::1:7"]),
        ("host=a,b port=1,2 password='x y host=evil'", ["a:1", "b:2"]),
        ("host=/var/run dbname=x", []),
        ("dbname=x", ["localhost:5432"]),
        ("hostaddr=10.0.0.1 host=a", ["10.0.0.1:5432"]),
    ],
)
def test_every_host_of_a_connection_string_is_known(dsn: str, hosts: list[str]) -> None:
    assert Dsn.parse(dsn).hosts == hosts


def test_without_the_setting_nothing_is_refused(tmp_path: Path) -> None:
    read = settings(tmp_path, "")
    assert allowed_hosts(read).allows("anywhere.example")
    assert refused_hosts(read) == []


def test_an_empty_list_leaves_lake_and_sources(tmp_path: Path) -> None:
    read = settings(tmp_path, "allowed_hosts: []\n")
    assert allowed_hosts(read).allows("10.0.0.9", 9000)
    assert allowed_hosts(read).allows("warehouse.acme.example", 5432)
    assert not allowed_hosts(read).allows("10.0.0.9", 80)
    assert refused_hosts(read) == [
        "alerts[0]: hooks.slack.com:443",
        "alerts[1]: mail.acme.example:587",
        "publish.bi: bi1:5433",
        "publish.bi: bi2:5433",
        "sync.heap_user_properties: heapanalytics.com:443",
        "sync.hook: hooks.acme.example:443",
    ]


def test_what_is_listed_is_allowed(tmp_path: Path) -> None:
    listed = "allowed_hosts: [heapanalytics.com, '*.acme.example', 'bi1', 'bi2:5433', HOOKS.slack.com]\n"
    assert refused_hosts(settings(tmp_path, listed)) == []


def test_a_publish_target_on_another_host_is_not_opened(tmp_path: Path) -> None:
    read = settings(tmp_path, "allowed_hosts: [bi1]\n")
    project = Project(read, Catalogue(), Lake.open(str(tmp_path / "lake")))
    with pytest.raises(HostNotAllowedError, match="bi2"):
        open_publisher(project, "bi")


@pytest.mark.parametrize("wrong", ["https://a.example", "a.example/path", "a b", ""])
def test_an_address_instead_of_a_host_is_refused(wrong: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"allowed_hosts\[0\]"):
        settings(tmp_path, f"allowed_hosts: ['{wrong}']\n")
