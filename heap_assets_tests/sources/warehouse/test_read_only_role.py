"""A role that may read what is published, and nothing else; and the Python of docs/bi.md, run as that role."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from click.testing import CliRunner, Result
from small_lake import project_of, publish_all

from heap_assets.cli.main import _group as commands
from heap_assets.pipelines.publishing import make_views, open_publisher, publish_day, published_tables
from heap_assets.project.project import Project
from heap_assets.sources.warehouse import PublishError

_ASSETS = "heap/pageviews, heap/user_migrations, identity/graph, profiles"
PAGE = Path(__file__).parents[3] / "docs" / "bi.md"


@pytest.fixture
def project(postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    project = project_of(tmp_path, f"  bi: {{kind: postgres, dsn: '{postgres}', assets: [{_ASSETS}]}}")
    monkeypatch.setenv("HEAP_ASSETS_SETTINGS", str(project.file))
    return project


@pytest.fixture
def reader(postgres: str) -> Iterator[str]:
    """Give the address of the role; it is dropped, as roles are of all databases."""
    name = "reader_" + postgres.rpartition("/")[2]
    server = postgres.partition("@")[2]
    yield f"postgresql://{name}@{server}"
    with psycopg2.connect(postgres) as admin, admin.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,))
        if cursor.fetchall():
            cursor.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")
    admin.close()


def make(role: str, *more: str) -> Result:
    return CliRunner().invoke(commands, ["publish", "--read-only-role", role, *more])


def test_the_role_reads_what_is_published_and_later_and_may_do_nothing_else(
    project: Project, postgres: str, reader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    role, owner = (re.findall(r"//(\w+)@", address)[0] for address in (reader, postgres))
    early = make(role)
    assert isinstance(early.exception, PublishError)
    assert "heap_assets is not there yet: publish first" in str(early.exception)
    publish_all(project, "bi")

    printed = make(role)
    assert printed.exit_code == 0, printed.exception
    assert f'CREATE ROLE "{role}" LOGIN' in printed.output
    with pytest.raises(psycopg2.OperationalError, match="does not exist"):
        psycopg2.connect(reader)
    assert make(role, "--execute").exit_code == 0
    assert f'CREATE ROLE "{role}"' not in make(role, "--execute").output, "twice is once"

    monkeypatch.setenv("READER_DSN", reader)
    [example] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(example, str(PAGE), "exec"), names)
    assert names["rows"] == [("free", 3, 1)]

    with psycopg2.connect(reader) as connection, connection.cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = off")
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("SELECT rolsuper OR rolcreatedb OR rolcreaterole FROM pg_roles WHERE rolname = current_user")
        assert cursor.fetchall() == [(False,)]
        for statement in (
            "DELETE FROM heap_assets.profiles",
            "INSERT INTO heap_assets.profiles SELECT * FROM heap_assets.profiles",
            "DROP VIEW heap_resolved.heap_pageviews",
            "CREATE TABLE heap_assets.own (a int)",
            "CREATE SCHEMA own",
            "CREATE ROLE own",
            f"SET ROLE {owner}",
        ):
            cursor.execute("SET default_transaction_read_only = off")
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                cursor.execute(statement)
    connection.close()


def test_tables_that_are_made_anew_are_readable_too(project: Project, postgres: str, reader: str) -> None:
    publish_all(project, "bi")
    role = re.findall(r"//(\w+)@", reader)[0]
    assert make(role, "--execute").exit_code == 0
    with psycopg2.connect(postgres) as admin, admin.cursor() as cursor:
        cursor.execute("DROP TABLE heap_assets.heap_pageviews CASCADE")
    admin.close()
    publisher = open_publisher(project, "bi")
    [table] = [one for one in published_tables(project, "bi") if one.publication.table == "heap_pageviews"]
    for day in project.lake.partitions("heap/pageviews"):
        publish_day(project, publisher, table, date.fromisoformat(day))
    make_views(project, publisher, "bi")
    with psycopg2.connect(reader) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM heap_resolved.heap_pageviews")
        assert cursor.fetchall() == [(6,)]
    connection.close()


def test_a_role_that_may_do_more_is_refused(project: Project, postgres: str) -> None:
    publish_all(project, "bi")
    owner = re.findall(r"//(\w+)@", postgres)[0]
    refused = make(owner, "--execute")
    assert isinstance(refused.exception, PublishError)
    assert "may do more than read" in str(refused.exception)
    assert make("x", "--dry-run").exit_code == 2
    assert CliRunner().invoke(commands, ["publish", "--execute"]).exit_code == 2


def test_other_engines_say_that_there_are_no_such_roles(tmp_path: Path) -> None:
    project = project_of(tmp_path, "  b: {kind: bigquery, project: acme, dataset: d, assets: [profiles]}")
    with pytest.raises(PublishError, match="granted in its console"):
        open_publisher(project, "b").read_only_role("reader", None, execute=False)
