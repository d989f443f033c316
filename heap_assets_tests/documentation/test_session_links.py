"""The model of `docs/how_to/session_links.md` finds the session that a ticket was opened in."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb
import yaml

PAGE = Path(__file__).parents[2] / "docs" / "how_to" / "session_links.md"
_TABLES = """
CREATE SCHEMA support; CREATE SCHEMA identity; CREATE SCHEMA heap;
CREATE TABLE support.users AS FROM (VALUES (1, ' Ann@acme.io'), (2, 'bob@acme.io'), (3, NULL)) AS t(id, email);
CREATE TABLE support.tickets AS FROM (VALUES
  (71, 1, TIMESTAMPTZ '2026-11-01 12:00:00Z'), (72, 1, TIMESTAMPTZ '2026-11-02 12:00:00Z'),
  (73, 2, TIMESTAMPTZ '2026-11-01 12:00:00Z'), (74, 3, TIMESTAMPTZ '2026-11-01 12:00:00Z'))
  AS t(id, requester_id, created_at);
CREATE TABLE identity.graph AS FROM (VALUES
  ('email', 'ann@acme.io', 'a'), ('heap_user_id', '9007199254740995', 'a'), ('heap_user_id', '5', 'a'),
  ('email', 'bob@acme.io', 'b'), ('heap_user_id', '6', 'b')) AS t(identifier_type, identifier, profile_id);
CREATE TABLE heap.sessions AS FROM (VALUES
  (9007199254740995, 101, TIMESTAMPTZ '2026-11-01 11:35:00Z'), (5, 102, TIMESTAMPTZ '2026-11-01 11:58:00Z'),
  (5, 103, TIMESTAMPTZ '2026-11-01 12:04:00Z'), (5, 104, TIMESTAMPTZ '2026-11-02 12:06:00Z'),
  (5, 105, TIMESTAMPTZ '2026-11-02 11:31:00Z'), (6, 106, TIMESTAMPTZ '2026-11-01 11:00:00Z'))
  AS t(user_id, session_id, time);
"""


def test_a_ticket_gets_the_nearest_session_of_its_author_on_any_device() -> None:
    block = re.search(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert block is not None
    settings = yaml.safe_load(block[1])
    with duckdb.connect() as connection:
        connection.execute(_TABLES)
        connection.execute("CREATE MACRO replay_lives(started) AS (started >= TIMESTAMPTZ '2026-11-01 00:00:00Z')")
        rows = connection.execute(settings["models"]["session_links"]["sql"]).fetchall()
    links = {ticket: link.rpartition("/")[2] for ticket, link in rows}
    assert links == {71: "102", 72: "105"}, "73 had none within the window, and nobody knows who opened 74"
