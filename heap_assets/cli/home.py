"""The folders of a deployment: the Dagster home beside the settings, and the demo's folder."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from heap_assets.config import settings_path

DEMO_VARIABLE = "HEAP_ASSETS_DEMO"
DEFAULT_DEMO_FOLDER = Path("data/demo")
DAGSTER_FILES = ("dagster.yaml", "workspace.yaml")
"""Instance settings and code location, shipped with the package; a copy beside the settings file takes their place."""


def use_demo_folder(folder: Path | None) -> Path:
    """Return the demo's folder, made known to the settings by `$HEAP_ASSETS_DEMO`."""
    chosen = folder or Path(os.environ.get(DEMO_VARIABLE, settings_path().parent / DEFAULT_DEMO_FOLDER))
    os.environ[DEMO_VARIABLE] = str(chosen.absolute())
    return chosen.absolute()


def dagster_home() -> Path | None:
    """Return `$DAGSTER_HOME`, or `.dagster` beside the settings, if it is there; nothing is made."""
    home = Path(os.environ.get("DAGSTER_HOME", settings_path().parent / ".dagster")).absolute()
    return home if home.is_dir() else None


def use_dagster_home() -> Path:
    """Return `$DAGSTER_HOME`, by default `.dagster` beside the settings, with the instance settings in it."""
    home = Path(os.environ.setdefault("DAGSTER_HOME", str(settings_path().parent / ".dagster"))).absolute()
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "dagster.yaml").exists():
        (home / "dagster.yaml").write_text(dagster_file("dagster.yaml"))
    os.environ["DAGSTER_DISABLE_TELEMETRY"] = "1"
    return home


def workspace_file(home: Path) -> Path:
    """Return the workspace file beside the settings; without one the package's own, written into the Dagster home."""
    own = settings_path().parent / "workspace.yaml"
    if own.is_file():
        return own
    path = home / "workspace.yaml"
    path.write_text(dagster_file("workspace.yaml"))
    return path


def dagster_file(name: str) -> str:
    """Return the text of one of :data:`DAGSTER_FILES`: the copy beside the settings, else the package's."""
    own = settings_path().parent / name
    return own.read_text() if own.is_file() else resources.files("heap_assets.config").joinpath(name).read_text()
