"""The pages of docs/ that are made from code say what the code says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from heap_assets.activation import connectors
from heap_assets.cli.docs import generated_pages
from heap_assets.project import open_project

DOCS = Path(__file__).parent.parent.parent / "docs"


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return dict(generated_pages(open_project()))


def test_the_pages_in_the_repository_are_those_that_the_code_gives(pages: dict[str, str]) -> None:
    outdated = [name for name, text in pages.items() if (DOCS / name).read_text() != text]
    assert not outdated, "run `make docs`"


def test_every_key_of_the_settings_has_a_meaning(pages: dict[str, str]) -> None:
    texts = [text for name, text in pages.items() if name.startswith(("reference/settings", "reference/connectors"))]
    rows = [row for text in texts for row in _rows(text, columns=4)]
    assert len(rows) > 150
    assert not [row for row in rows if not row[3] and not row[1].startswith("`")], "a key without a description"
    assert not [row for row in rows if row[1] in ("", "any value")], "a key without a type"


def test_every_section_of_the_settings_file_is_described(pages: dict[str, str]) -> None:
    schema: dict[str, Any] = type(open_project().settings).model_json_schema(by_alias=True)
    text = "".join(text for name, text in pages.items() if name.startswith(("reference/settings", "reference/conn")))
    described = {cell for row in _rows(text, columns=4) for cell in [row[0].strip("`")]}
    models = {name: model for name, model in schema["$defs"].items() if "properties" in model}
    keys = {key for model in models.values() for key in model["properties"]} - {"kind", "mode"}
    assert keys <= described


def test_every_kind_of_sync_has_a_section(pages: dict[str, str]) -> None:
    texts = [text for name, text in pages.items() if name.startswith("reference/connectors/")]
    parts = [part.partition("\n") for text in texts for part in re.split(r"^## (?=\w)", text, flags=re.MULTILINE)[1:]]
    sections = {kind: part for kind, _, part in parts}
    assert sections.keys() == set(connectors())
    own = ("custom", "heap_", "javascript", "segment_", "webhook")
    told = ("to create there", "what is matched", "what can be refused", "never run")
    vendors = {kind: " ".join(part.lower().split()) for kind, part in sections.items() if not kind.startswith(own)}
    assert not {kind: missing for kind, part in vendors.items() if (missing := [t for t in told if t not in part])}


def test_every_check_says_what_mends_it(pages: dict[str, str]) -> None:
    checks = set(re.findall(r"\| (`\w+`) \| (?:ERROR|WARN)", pages["checks.md"]))
    page = pages["how_to/failed_checks.md"]
    entries = set(re.findall(r"^## (`[\w<>]+`)$", page, re.MULTILINE))
    assert {re.sub(r"(one_profile_per_)\w+(_key)", r"\1<table>\2", check) for check in checks} == entries
    assert not re.findall(r"To mend: *$", page, re.MULTILINE)


def test_every_column_that_is_listed_has_a_meaning(pages: dict[str, str]) -> None:
    rows = _rows(pages["reference/tables.md"], columns=3)
    assert {"`profile_id`", "`event_id`", "`identifier`"} <= {row[0] for row in rows}
    assert all(row[1] for row in rows)


def _rows(text: str, *, columns: int) -> list[list[str]]:
    """Return the cells of each row of the page's tables that have so many columns, heads left out."""
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in row] for row in rows if len(row) == columns]
