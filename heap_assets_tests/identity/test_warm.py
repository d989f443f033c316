"""Compiled loops of the engine where the package folder is read-only, as in a container image."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from heap_assets_tests.torture.read_only import PACKAGE, read_only_package

BESIDE = PACKAGE / "identity" / "engine" / "native" / "__pycache__"
RESOLVE = """
import json, sys
from pathlib import Path

import polars as pl

import heap_assets
from heap_assets.identity import IdentifierRule, Rules, resolve
from heap_assets.identity.engine.native.cache import choose_cache

try:
    (Path(heap_assets.__file__).parent / "identity" / "__pycache__" / "written").touch()
    written = True
except OSError:
    written = False
links = pl.LazyFrame({"type_a": ["email"], "value_a": ["ann@acme.io"], "type_b": ["device"], "value_b": ["d1"]})
resolution = resolve(links, Rules((IdentifierRule("email", 1),  IdentifierRule("device", 3))))
resolution.write_graph(Path.home() / "graph.parquet")
cache = choose_cache()
names = [] if cache is None else sorted(path.name for path in cache.glob("*.nbc"))
said = {"written": written, "profiles": resolution.profiles, "cache": str(cache), "names": names}
print(json.dumps({**said, "pandas": "pandas" in sys.modules}))
"""
NOT_COMPILED = """
import json, pkgutil
from importlib import import_module

from numba.core.dispatcher import Dispatcher

from heap_assets.identity import compile_engine
from heap_assets.identity.engine import native

compile_engine()
modules = [import_module(f"{native.__name__}.{module.name}") for module in pkgutil.iter_modules(native.__path__)]
loops = {value for module in modules for value in vars(module).values() if isinstance(value, Dispatcher)}
inner = {name for loop in loops for name in loop.py_func.__code__.co_names}  # compiled with those that call them
missing = [loop.__name__ for loop in loops if not loop.signatures and loop.__name__ not in inner]
print(json.dumps({"all": len(loops), "not compiled": missing}))
"""


def run(code: str, within: Sequence[str] = (), **variables: str) -> Mapping[str, Any]:
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), **variables}
    done = subprocess.run(
        [*within, sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    said: Mapping[str, Any] = json.loads(done.stdout)
    return said


@pytest.fixture
def of_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith(("NUMBA_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.usefixtures("of_nobody")
def test_a_read_only_package_runs_what_was_compiled_beside_it(tmp_path: Path) -> None:
    ahead = run(RESOLVE)
    assert (ahead["cache"], ahead["profiles"]) == (str(BESIDE), 1)
    later = run(RESOLVE, read_only_package())
    assert (later["written"], later["profiles"]) == (False, 1)
    assert Path(later["cache"]).is_relative_to(tmp_path / ".cache" / "heap_assets")
    assert later["names"] == ahead["names"], "copied, and nothing was compiled once more"
    assert not ahead["pandas"], "a resolution takes none of the half second that importing pandas takes"


@pytest.mark.usefixtures("of_nobody")
def test_a_home_that_cannot_be_written_is_no_obstacle(tmp_path: Path) -> None:
    code = (
        "import json; from heap_assets.identity.engine.native.cache import choose_cache\n"
        "print(json.dumps(str(choose_cache())))"
    )
    (tmp_path / "file").touch()
    (tmp_path / "temporary").mkdir()
    places = {"HOME": str(tmp_path / "file"), "TMPDIR": str(tmp_path / "temporary")}
    assert Path(str(run(code, read_only_package(), **places))).is_relative_to(tmp_path / "temporary")
    places["NUMBA_CACHE_DIR"] = str(tmp_path / "file" / "cache")
    assert Path(str(run(code, read_only_package(), **places))).is_relative_to(tmp_path / "temporary")
    places["NUMBA_CACHE_DIR"] = str(tmp_path / "given")
    assert Path(str(run(code, read_only_package(), **places))).is_relative_to(tmp_path / "given")


def test_warming_compiles_every_loop() -> None:
    loops = run(NOT_COMPILED)
    assert loops["not compiled"] == []
    assert loops["all"] > 25
