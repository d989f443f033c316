"""The rules of the house (docs/architecture.md): which room may import which, by what door, and what no file may be."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "heap_assets"

ROOMS = {
    "clock": "",
    "machine": "",
    "redaction": "",
    "siphash": "",
    "tables": "",
    "values": "",
    "errors": "redaction",
    "yaml_core": "errors",
    "versions": "yaml_core",
    "http_client": "errors",
    "mail": "errors http_client",
    "config": "clock errors redaction yaml_core tables",
    "heap_api": "config errors http_client yaml_core",
    "functions": "config errors machine redaction values versions",
    "storage": "errors values tables",
    "identity": "errors machine storage values tables yaml_core",
    "profiles": "errors identity tables values yaml_core",
    "signals": "errors profiles values yaml_core",
    "analytics": "errors profiles signals values yaml_core",
    "bi": "config",
    "sources.heap_connect": "errors redaction siphash storage values yaml_core tables",
    "sources.warehouse": "config errors redaction storage values",
    "sources.heap_bigquery": "errors redaction sources.heap_connect sources.warehouse storage values",
    "sources.inbox": "errors siphash storage tables values",
    "activation": "machine clock config errors functions http_client identity redaction siphash sources.heap_connect "
    "sources.warehouse storage tables values versions yaml_core",
    "privacy": "clock errors identity siphash storage tables values",
    "quality": "clock errors identity privacy profiles sources.heap_connect storage tables values",
    "alerts": "config errors http_client mail redaction storage",
    "report": "clock quality storage tables",
    "project": "activation analytics clock config errors http_client identity privacy profiles signals "
    "sources.heap_connect sources.inbox sources.warehouse storage tables versions",
    "pipelines": "activation analytics bi clock config errors functions heap_api identity mail privacy profiles "
    "project quality redaction signals sources.heap_bigquery sources.heap_connect sources.inbox sources.warehouse "
    "storage tables values versions",
    "live": "activation clock config errors pipelines project sources.inbox storage tables",
    "api": "activation analytics errors identity pipelines project storage tables",
    "orchestration": "machine activation alerts analytics clock config errors http_client identity pipelines privacy "
    "profiles project quality redaction report signals sources.heap_connect sources.warehouse storage tables versions",
    "definitions": "orchestration pipelines project",
    "history": "orchestration",
    "demo": "activation alerts clock config errors identity orchestration pipelines project quality "
    "sources.heap_connect tables yaml_core",
    "cli": "activation analytics bi clock config demo errors heap_api identity live orchestration pipelines privacy "
    "project quality redaction report signals sources.heap_connect sources.warehouse storage tables values versions "
    "yaml_core",
}
"""Every room with the rooms that it may import, in an order in which none imports a later one."""
DOORS = ("pipelines", "orchestration", "demo")
"""Rooms each of whose modules is a door of its own: one for a thing that people or Dagster ask for."""
DAGSTER = ("orchestration", "definitions")
THROUGH_ORCHESTRATION = ("cli", "demo", "history")
"""Rooms that reach Dagster, and only by way of `orchestration`."""


def test_rooms_are_listed_after_what_they_import() -> None:
    earlier: set[str] = set()
    for room, imported in ROOMS.items():
        assert set(imported.split()) <= earlier, f"{room} imports a room that is listed later: a circle"
        earlier.add(room)


def test_every_module_is_in_a_room() -> None:
    assert {_room(module) for module in _modules()} - {""} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_the_rooms_of_its_list(room: str) -> None:
    allowed = {room, "", *ROOMS[room].split()}
    wrong = [f"{m} imports {i}" for m in _modules() if _room(m) == room for i in _imports(m) if _room(i) not in allowed]
    assert not wrong


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_uses_others_by_their_public_interface(room: str) -> None:
    """`from heap_assets.<room> import …`, and nothing below the room."""
    used = {i for m in _modules() if _room(m) == room for i in _imports(m) if _room(i) not in ("", room, i, *DOORS)}
    assert not used, f"{room} reaches into {sorted(used)}: import from the room itself"


@pytest.mark.parametrize("room", [room for room in ROOMS if room not in (*DAGSTER, *THROUGH_ORCHESTRATION)])
def test_only_orchestration_reaches_dagster(room: str) -> None:
    """Imports are followed transitively, inside functions too."""
    reached = {m: _way_to_dagster(m) for m in _modules() if _room(m) == room}
    assert not {m: way for m, way in reached.items() if way}


@pytest.mark.parametrize("room", THROUGH_ORCHESTRATION)
def test_rooms_beside_orchestration_do_not_import_dagster_themselves(room: str) -> None:
    wrong = [m for m in _modules() if _room(m) == room and any(i.startswith("dagster") for i in _all_imports(m))]
    assert not wrong


def test_no_module_is_called_utils() -> None:
    assert not [p for p in PACKAGE.rglob("*.py") if p.stem in ("utils", "util", "helpers", "misc", "common")]


_SAY_NOTHING = re.compile(
    "_*(again|anew|asked|came|done|found|given|gone|here|kept|known|looked|made|mine|news|noted|nobody|others|ours|rest"
    "|said|seen|somebody|stands|stood|theirs|there|things|told|took|wanted|what|who|whole)_*",
    re.IGNORECASE,
)
"""Words that say nothing of what a name holds: a result is named for what it is."""


@pytest.mark.parametrize("room", ROOMS)
def test_names_say_what_they_hold(room: str) -> None:
    """Of functions, classes, parameters and variables; fields may be keys of a stored format."""
    files = {m: path for m, path in _modules().items() if _room(m) == room}
    wrong = {
        f"{module}: {name}"
        for module, path in files.items()
        for name in _defined_names(ast.parse(path.read_text()))
        if _SAY_NOTHING.fullmatch(name)
    }
    assert not wrong, f"the field has nouns for these: {sorted(wrong)}"


def _defined_names(tree: ast.Module) -> Iterator[str]:
    fields = {id(entry) for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for entry in _fields(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and id(node) not in fields:
            yield node.id


def _fields(node: ast.ClassDef) -> list[ast.AST]:
    assigned = [s for s in node.body if isinstance(s, ast.Assign | ast.AnnAssign)]
    return [target for s in assigned for target in (s.targets if isinstance(s, ast.Assign) else [s.target])]


def test_no_file_is_longer_than_450_lines() -> None:
    files = [path for folder in (PACKAGE, Path(__file__).parent) for path in folder.rglob("*.py")]
    lengths = {str(path): len(path.read_text().splitlines()) for path in files}
    assert not {path: lines for path, lines in lengths.items() if lines > 450}


def test_no_file_of_a_connector_is_longer_than_250_lines() -> None:
    room = PACKAGE / "activation" / "connectors"
    shared = {room / name for name in ("base.py", "rows.py", "tracking_plan.py")}  # of all kinds, or of no kind
    lengths = {str(path): len(path.read_text().splitlines()) for path in room.rglob("*.py") if path not in shared}
    assert not {path: lines for path, lines in lengths.items() if lines > 250}


_ADDRESSES = re.compile(
    r"\.ctypes\b|ctypes\.(?:c_|cast|POINTER|pointer|addressof|mem|string_at)|\bfrom_address\b|\.address\b"
    r"|\binttoptr\b|\bptrtoint\b|\bcarray\b|\bfarray\b|__array_interface__"
)


def test_no_module_handles_a_raw_memory_address() -> None:
    used = {module: found for module, path in _modules().items() if (found := _ADDRESSES.findall(path.read_text()))}
    assert not used, "pass arrays"


@cache
def _modules() -> dict[str, Path]:
    """Return every module of the package by its dotted name below `heap_assets`."""
    names = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
    return {name.removesuffix("__init__").removesuffix("."): path for name, path in names.items()}


def _room(module: str) -> str:
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "sources" and len(parts) > 1 else parts[0] if parts != ["sources"] else ""


@cache
def _all_imports(module: str) -> frozenset[str]:
    return frozenset(_written_imports(ast.parse(_modules()[module].read_text())))


def _written_imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            # `from heap_assets.storage import lake` names a module by the room's own door
            full = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (f"{name}#module" for name in full if name.removeprefix("heap_assets.") in _modules())


def _imports(module: str) -> list[str]:
    """Return the modules of the package that a module names in import statements."""
    own = (name for name in _all_imports(module) if name.startswith("heap_assets.") and not name.endswith("#module"))
    direct = (
        n.removesuffix("#module") for n in _all_imports(module) if n.startswith("heap_assets.") and n.count(".") == 1
    )
    return sorted({name.removeprefix("heap_assets.") for name in (*own, *direct)})


@cache
def _way_to_dagster(module: str) -> str:
    """Return the chain of imports from a module to Dagster, empty if there is none."""
    ways = {module: module}
    queue = [module]
    while queue:
        current = queue.pop()
        for name in _all_imports(current):
            target = name.removesuffix("#module").removeprefix("heap_assets.")
            if target.split(".")[0].startswith("dagster"):
                return f"{ways[current]} > {target}"
            if name.startswith("heap_assets.") and target in _modules() and target not in ways:
                ways[target] = f"{ways[current]} > {target}"
                queue.append(target)
    return ""


def test_folders_of_state_are_named_in_one_place() -> None:
    """Whoever erases, keeps or backs up asks `state_keys`: a folder spelled elsewhere would be forgotten."""
    from heap_assets.storage import state_keys

    spelled = re.compile(rf"[\"'](?:{'|'.join(state_keys.ALL)})(?:/|[\"'])")
    others = [path for path in PACKAGE.rglob("*.py") if path.name != "state_keys.py"]
    assert not {str(path): found for path in others if (found := spelled.findall(path.read_text()))}


def test_paths_of_assets_are_named_in_one_place() -> None:
    spelled = re.compile(
        r"(?<![\w/])f?[\"'](?:heap|warehouse|identity|sync)/(?:events/|users|user_migrations|graph|links)?[\"'{]"
    )
    others = [p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "tables.py" and "demo" not in p.parts]
    assert not {str(path): found for path in others if (found := spelled.findall(path.read_text()))}


def test_a_kind_of_sync_is_one_file_that_nobody_else_names() -> None:
    """Whoever asks which kind a sync is would have to be edited for the next kind."""
    from heap_assets.activation import connectors

    files = {kind: one.__module__.removeprefix("heap_assets.") for kind, one in connectors().items()}
    tops = {kind: file.removeprefix("activation.connectors.").partition(".")[0] for kind, file in files.items()}
    assert not {kind: top for kind, top in tops.items() if kind != top and not kind.startswith(f"{top}_")}
    assert not {m: named for m in _modules() if (named := set(_imports(m)) & set(files.values()))}
    spelled = re.compile(rf"(?<!sync/)[\"'](?:{'|'.join(set(files) - _WORDS)})[\"']")
    folders = {file.rpartition(".")[0] for file in files.values()} - {"activation.connectors"}
    own = {m for m in _modules() if m in files.values() or m.rpartition(".")[0] in folders}
    others = {m: path for m, path in _modules().items() if m not in own and _room(m) != "demo"}
    assert not {m: named for m, path in others.items() if (named := spelled.findall(path.read_text()))}


_WORDS = {"webhook", "custom", "heap_events"}
"""Kinds that are words for other things too: a channel of alerts, the default of a destination, a group of assets."""


def test_an_engine_of_warehouses_is_one_folder_that_nobody_else_names() -> None:
    """Whoever asks which engine a warehouse is would have to be edited for the next one."""
    room = PACKAGE / "sources" / "warehouse"
    engines = {
        folder.parent.name: {file.stem for file in folder.parent.glob("*.py")} for folder in room.glob("*/__init__.py")
    }
    assert {"bigquery", "duckdb", "postgres"} <= engines.keys()
    assert not {
        engine: files for engine, files in engines.items() if not {"settings", "reader", "types", "errors"} <= files
    }
    inside = {m for m in _modules() if m.startswith(tuple(f"sources.warehouse.{engine}" for engine in engines))}
    others = {m: path for m, path in _modules().items() if m not in inside and _room(m) != "demo"}
    assert not {m: named for m in others if (named := set(_imports(m)) & inside)}
    spelled = re.compile("|".join(engines.keys() - _SOURCES_OF_HEAP - _RUNS_THE_LAKE), re.IGNORECASE)
    trees = {m: ast.parse(path.read_text()) for m, path in others.items()}
    assert not {m: named for m, tree in trees.items() if (named := [w for w in _words_of(tree) if spelled.search(w)])}


def _words_of(tree: ast.Module) -> Iterator[str]:
    """Yield the names and texts of code; what is said of it, in comments, docstrings and descriptions, is not code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.arg | ast.Attribute | ast.FunctionDef | ast.ClassDef):
            name = next(getattr(node, field) for field in ("id", "arg", "attr", "name") if hasattr(node, field))
            yield str(name)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value:
            yield node.value


_SOURCES_OF_HEAP = {"bigquery"}
"""Where Heap exports to, besides dumps: `heap.source` is of that kind, too."""
_RUNS_THE_LAKE = {"duckdb"}
"""What `heap-assets sql` and analytics run in."""
