"""A lake of a few rows by hand, two days of snapshots, with what a target publishes of it: quick to publish."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl

from heap_assets.identity import GRAPH as GRAPH_SCHEMA
from heap_assets.pipelines.publishing import due_days, make_views, open_publisher, publish_day, published_tables
from heap_assets.project import parse_settings
from heap_assets.project.project import Project
from heap_assets.sources.heap_connect import Catalogue
from heap_assets.storage import Lake
from heap_assets.tables import GRAPH, MIGRATIONS, PAGEVIEWS, PROFILES, SESSIONS, USERS

DAYS = (date(2026, 3, 1), date(2026, 3, 2))
ASSETS = f"{PAGEVIEWS}, {SESSIONS}, {USERS}, {MIGRATIONS}, {GRAPH}, {PROFILES}, warehouse/contacts, events"
PEOPLE = ("p" * 32, "q" * 32)
_SETTINGS = """
start_date: 2026-03-01
lake: {lake}
heap:
  app_id: "11"
  source: {{kind: folder, path: ./dumps}}
  identifiers:
    users: {{user_id: heap_user_id, identity: [heap_identity, email]}}
    events: {{user_id: heap_user_id}}
warehouse:
  kind: duckdb
  path: ./warehouse.duckdb
  tables:
    contacts: {{relation: crm.contacts, key: id, identifiers: {{email: email}}}}
identity:
  identifiers:
    - {{type: heap_identity, max_per_profile: 2}}
    - {{type: email, max_per_profile: 3, normalise: email}}
    - {{type: heap_user_id, shared_above: 1}}
profiles:
  traits:
    plan: {{from: [contacts.plan], description: 'What they "pay" for; <b>'}}
sync:
  crm_hook: {{kind: webhook, url: "http://127.0.0.1:9/x", source: profiles, key: email, properties: {{Plan: plan}}}}
publish:
{publish}
"""
_CATALOGUE = b"""
pageviews: {display_name: Pages viewed, columns: {path: {description: Path}}}
sessions: {display_name: Sessions, columns: {event_id: {}, landing_page: {description: First page, pii: true}}}
"""


def project_of(folder: Path, publish: str) -> Project:
    """Return a project whose tables are built, with a section `publish:`."""
    lake = folder / "lake"
    file = folder / "heap_assets.yaml"
    file.write_text(_SETTINGS.format(lake=lake, publish=publish))
    known = Catalogue.parse(_CATALOGUE, "heap_catalogue.yaml")
    known.save(folder / "heap_catalogue.yaml")
    project = Project(parse_settings(file.read_text(), file), known, Lake.open(str(lake)), file)
    _write(project.lake)
    return project


def publish_all(project: Project, target: str) -> None:
    """Publish every day that is built, and the views."""
    publisher = open_publisher(project, target)
    for table in published_tables(project, target):
        for day in due_days(project, publisher, table):
            publish_day(project, publisher, table, day)
    make_views(project, publisher, target)


def _write(lake: Lake) -> None:
    for number, day in enumerate(DAYS):
        at = datetime(day.year, day.month, day.day, 9, tzinfo=UTC)
        ids = {"user_id": [1, 1, 2], "session_id": [10 + number, 10 + number, 20 + number]}
        events = pl.DataFrame(
            {
                "event_id": [100 * number + i for i in range(3)],
                **ids,
                "time": [at + timedelta(minutes=i) for i in range(3)],
            }
        )
        lake.write(PAGEVIEWS, str(day), events.with_columns(pl.Series("path", ["/", "/a", '/"b"'])).lazy())
        sessions = events.unique("session_id", keep="first", maintain_order=True)
        lake.write(SESSIONS, str(day), sessions.with_columns(pl.lit("/").alias("landing_page")).lazy())
        users = {
            "user_id": [1, 2, 3], "identity": ["ann", None, "ann2"], "joindate": [at] * 3, "last_modified": [at] * 3,
            "email": ["ann@acme.example", None, "ann@acme.example"], "migrated_to": [None, 3, None],
        }  # fmt: skip
        lake.write(USERS, str(day), pl.DataFrame(users, schema_overrides={"migrated_to": pl.Int64}).lazy())
        moved = {"from_user_id": [2], "to_user_id": [3], "time": [at], "resolved_to": [3], "cycle": [False]}
        lake.write(MIGRATIONS, str(day), pl.DataFrame(moved).lazy())
        graph = [
            ("heap_user_id", str(user), PEOPLE[0] if user != 2 or number else PEOPLE[1], at, at, False)
            for user in (1, 2, 3)
        ]
        lake.write(GRAPH, str(day), pl.DataFrame(graph, schema=GRAPH_SCHEMA, orient="row").lazy())
        people = {"profile_id": list(PEOPLE), "plan": ["free", f"paid {number}"], "identifiers": [["x"], ["y"]]}
        lake.write(PROFILES, str(day), pl.DataFrame(people).lazy())
        contacts = {"id": ["c1", "c2"], "email": ["ann@acme.example", None], "plan": ["free", "paid"]}
        lake.write("warehouse/contacts", str(day), pl.DataFrame(contacts).lazy())
