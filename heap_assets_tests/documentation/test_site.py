"""The documentation site builds without a warning (links and anchors included) and asks no other host for anything."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
LOADED = {"img": "src", "script": "src", "iframe": "src", "source": "src", "link": "href"}
"""Elements that a browser loads by itself, and the attribute that says from where."""


class Loads(HTMLParser):
    """Collects what a page makes a browser load."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        address = dict(attrs).get(LOADED.get(tag, ""))
        if address and dict(attrs).get("rel") not in ("author", "canonical"):
            self.addresses.append(address)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", str(folder / "cache")]
    done = subprocess.run(
        [*command, str(ROOT / "docs"), str(folder / "html")], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return folder / "html"


def test_the_site_has_every_page(site: Path) -> None:
    pages = {path.relative_to(ROOT / "docs").with_suffix("") for path in (ROOT / "docs").rglob("*.md")}
    built = {path.relative_to(site).with_suffix("") for path in site.rglob("*.html")}
    assert pages <= built


def test_the_first_page_links_every_page_of_the_navigation() -> None:
    text = (ROOT / "docs" / "index.md").read_text()
    listed = {page for block in re.findall(r"^```{toctree}\n.*?^```$", text, re.DOTALL | re.MULTILINE)
              for page in re.findall(r"^[\w/]+$", block, re.MULTILINE)}  # fmt: skip
    assert listed == set(re.findall(r"\]\(([\w/]+)\.md\)", text))


def test_a_page_of_the_site_loads_nothing_from_another_host(site: Path) -> None:
    for page in site.rglob("*.html"):
        loads = Loads()
        loads.feed(page.read_text())
        assert loads.addresses
        assert not [one for one in loads.addresses if urlsplit(one).netloc], page
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(\s*['\"]?(?:https?:)?//|@import\s+['\"](?:https?:)?//", style.read_text()), style
    for script in site.rglob("*.js"):
        assert not re.search(
            r"(?:fetch|import)\(\s*['\"`](?:https?:)?//|\.src\s*=\s*['\"`](?:https?:)?//", script.read_text()
        )


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_an_external_link_is_well_formed(page: Path) -> None:
    prose = re.sub(r"^```.*?^```$|`[^`]*`", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for address in re.findall(r"\]\((\w+://[^)\s]*)\)|<(https?://[^>\s]*)>", prose):
        parts = urlsplit("".join(address))
        assert parts.scheme in ("https", "http"), address
        assert parts.hostname, address
        assert parts.scheme == "https" or parts.hostname == "localhost", f"{address} is not encrypted"
