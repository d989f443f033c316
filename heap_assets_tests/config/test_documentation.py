"""What the documentation shows of heap_assets.yaml is what the settings understand."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from heap_assets.activation import connectors
from heap_assets.config.models import Settings
from heap_assets.errors import SettingsError
from heap_assets.project import parse_settings

ROOT = Path(__file__).parent.parent.parent
VARIABLES = (
    "SEGMENT_WRITE_KEY",
    *("HEAP_APP_ID", "HEAP_EXTERNAL_ID", "WAREHOUSE_DSN", "CRM_DSN", "BIGQUERY_KEY", "PUBLISH_DSN"),
    *("ALERT_WEBHOOK_URL", "HIGHTOUCH_TOKEN", "CENSUS_TOKEN", "SALESFORCE_CLIENT_ID", "SALESFORCE_CLIENT_SECRET"),
    *("HUBSPOT_TOKEN", "ZENDESK_API_TOKEN", "CRM_TOKEN", "HEAP_ASSETS_PRIVACY_KEY"),
    *("SNOWFLAKE_KEY", "SYNAPSE_PASSWORD", "AZURE_STORAGE_KEY", "HEAP_QUERY_TOKEN", "HEAP_LABELS_TOKEN"),
    *("WEB_WRITE_KEY", "SEGMENT_SECRET", "SEGMENT_SECRET_OLD", "SHOP_SECRET"),
)


RUN_AS_A_WHOLE = ROOT / "docs" / "tutorial.md"
"""Its sections only make sense together: `heap_assets_tests/documentation` runs them."""

OF_KINDS = set((ROOT / "docs" / "reference" / "connectors").glob("*.md"))
"""Their examples are of one sync of a kind each."""
OTHER_FILES = ({"type", "attributes"}, {"concurrency", "run_monitoring"})
"""Keys of examples of defs.yaml and of dagster.yaml."""


def shown() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every YAML block of README and docs that is (part of) a settings file."""
    for path in sorted({ROOT / "README.md", *(ROOT / "docs").rglob("*.md")} - {RUN_AS_A_WHOLE, *OF_KINDS}):
        for number, match in enumerate(re.finditer(r"( *)```yaml\n(.*?)```", path.read_text(), re.DOTALL)):
            text = "\n".join(line.removeprefix(match[1]) for line in match[2].splitlines())
            block = yaml.safe_load(text)
            if isinstance(block, dict) and block.keys() not in OTHER_FILES:  # a list is a file of decisions
                yield f"{path.name}-{number}", block


@pytest.mark.parametrize("kind", [kind for kind, connector in connectors().items() if "```yaml" in connector.docs()])
def test_what_a_connector_shows_are_keys_of_its_kind(kind: str) -> None:
    for block in re.findall(r"```yaml\n(.*?)```", connectors()[kind].docs(), re.DOTALL):
        assert set(yaml.safe_load(block)) <= set(connectors()[kind].settings_model.model_fields)


def anchors(path: Path) -> set[str]:
    """Return the fragments that headings of a Markdown file are linked by."""
    titles = re.findall(r"^#+ +(.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda path: str(path.relative_to(ROOT))
)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, fragment = target.partition("#")
        file = path.parent / name if name else path
        assert file.exists(), target
        assert not fragment or fragment in anchors(file), target


def merged(base: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    for key, value in more.items():
        there = base.get(key)
        same = isinstance(value, dict) and isinstance(there, dict) and value.get("kind") in (None, there.get("kind"))
        base[key] = merged(there, value) if same and isinstance(there, dict) else value
    return base


@pytest.mark.parametrize("block", [pytest.param(block, id=name) for name, block in shown()])
def test_what_the_documentation_shows_has_only_keys_that_there_are(
    block: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("CRM_WEBHOOK_URL", "https://crm.example/hook")
    assert set(block) <= set(Settings.model_fields)
    text = yaml.safe_dump(merged(copy.deepcopy(yaml.safe_load((ROOT / "heap_assets.yaml").read_text())), block))
    said = mistake_in(text)
    # an example may name tables and traits of its own; its keys and their values must be right
    assert not said or re.search(r"there is no (table|trait)", said), said


def mistake_in(text: str) -> str:
    try:
        parse_settings(text, ROOT / "heap_assets.yaml")
    except SettingsError as error:
        return str(error)
    return ""
