"""The rules of the house (docs/house.md): who may import whom, and what no file may be called."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "heap_assets"
DOMAIN = ("lake", "heap_connect", "identity", "profiles", "destinations", "warehouse", "demo", "settings")


def _modules(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (PACKAGE / folder).rglob("*.py"))


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("path", _modules(*DOMAIN), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_domain_code_does_not_know_dagster(path: Path) -> None:
    guilty = [name for name in _imports(path) if name.split(".")[0].startswith("dagster")]
    assert not guilty, f"{path} imports {guilty}: domain packages are usable without Dagster"


@pytest.mark.parametrize("path", _modules(*DOMAIN), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_domain_packages_use_each_other_only_by_the_front_door(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0]
    guilty = [
        name
        for name in _imports(path)
        if name.startswith("heap_assets.")
        and (parts := name.split("."))[1] in DOMAIN
        and parts[1] != own
        and len(parts) > 2
        and own not in ("demo",)
    ]
    assert not guilty, f"{path} reaches into {guilty}: import from the package instead"


def test_no_module_is_called_utils() -> None:
    assert not [p for p in PACKAGE.rglob("*.py") if p.stem in ("utils", "util", "helpers", "misc", "common")]


_ADDRESSES = re.compile(
    r"\.ctypes\b|ctypes\.(?:c_|cast|POINTER|pointer|addressof|mem|string_at)|\bfrom_address\b|\.address\b"
    r"|\binttoptr\b|\bptrtoint\b|\bcarray\b|\bfarray\b|__array_interface__"
)


@pytest.mark.parametrize("path", _modules("."), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_module_handles_a_raw_memory_address(path: Path) -> None:
    used = _ADDRESSES.findall(path.read_text())
    assert not used, f"{path} uses {used}: pass arrays"


def test_folders_of_state_are_named_in_one_place() -> None:
    """Whoever erases, keeps or backs up asks `state_keys`: a folder spelled elsewhere would be forgotten."""
    from heap_assets.lake import state_keys

    spelled = re.compile(rf"[\"'](?:{'|'.join(state_keys.ALL)})(?:/|[\"'])")
    others = [path for path in PACKAGE.rglob("*.py") if path.name != "state_keys.py"]
    assert not {str(path): found for path in others if (found := spelled.findall(path.read_text()))}
