"""What make installs with: uv by pip's own configuration, and pip where uv cannot be had."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

ROOT = Path(__file__).parent.parent
BACKEND = """
import zipfile
def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "acme-1.0-py3-none-any.whl"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        wheel.writestr("acme.pth", "")
        wheel.writestr("acme-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: acme\\nVersion: 1.0\\n"
                       "Requires-Dist: acme-part\\nProvides-Extra: dev\\n")
        wheel.writestr("acme-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("acme-1.0.dist-info/RECORD", "")
    return name
"""
"""Builds a project that needs `acme-part`, without a tool of anybody else's."""


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An index of packages over HTTP that has `acme-part` only."""
    folder = tmp_path_factory.mktemp("index")
    part = folder / "simple" / "acme-part"
    part.mkdir(parents=True)
    name = "acme_part-1.0-py3-none-any.whl"
    with zipfile.ZipFile(part / name, "w") as wheel:
        wheel.writestr("acme_part.py", "")
        wheel.writestr("acme_part-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: acme-part\nVersion: 1.0\n")
        wheel.writestr(
            "acme_part-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("acme_part-1.0.dist-info/RECORD", "")
    (part / "index.html").write_text(f'<a href="{name}">{name}</a>')
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Silent, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/simple"
    server.shutdown()
    server.server_close()


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        del format, args


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    return folder


@pytest.fixture
def project(tmp_path: Path, environment: Path) -> Path:
    shutil.copytree(environment, tmp_path / ".venv", symlinks=True)
    (tmp_path / "backend.py").write_text(BACKEND)
    (tmp_path / "constraints.txt").touch()
    (tmp_path / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "acme"\nversion = "1.0"\ndependencies = ["acme-part"]\n'
        "[project.optional-dependencies]\ndev = []\n"
    )
    return tmp_path


def install(project: Path, index: str, *extras: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Install with a configuration of pip that has this index, and nothing of this machine's."""
    (project / "pip.conf").write_text(f"[global]\nindex-url = {index}\n")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
    environment = {**kept, "PIP_CONFIG_FILE": str(project / "pip.conf"), **variables}
    command = [str(project / ".venv/bin/python"), str(ROOT / "install.py"), *extras]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)


def installed(project: Path) -> set[str]:
    packages = next((project / ".venv" / "lib").glob("python*/site-packages"))
    return {path.name.partition("-")[0] for path in packages.glob("*.dist-info")}


def test_pip_installs_where_uv_cannot_be_had(project: Path, index: str) -> None:
    done = install(project, index)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"uv cannot be had here: ERROR: .*\buv\b", done.stdout)
    assert "Installing into .venv with pip" in done.stdout
    assert {"acme", "acme_part"} <= installed(project)


def test_uv_installs_from_the_index_that_pip_is_configured_to(project: Path, index: str) -> None:
    fetched = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:",
         "--dest", str(project / "wheels"), "uv"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if fetched.returncode:
        pytest.skip("NOT TESTED, no index here has uv: that uv installs from pip's index")
    done = install(project, index, "dev", PIP_FIND_LINKS=str(project / "wheels"), UV_CACHE_DIR=str(project / "cache"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.partition(":")[0] for line in done.stdout.splitlines()[:2]] == [
        "Fetching uv into .venv ...",
        "Installing into .venv with uv",
    ]
    assert "pip" not in done.stdout
    assert {"acme", "acme_part", "uv"} <= installed(project)


def test_what_cannot_be_installed_ends_with_pips_message_and_status(project: Path, index: str) -> None:
    (project / "constraints.txt").write_text("acme-part==2.0\n")
    done = install(project, index)
    assert done.returncode == 1
    assert "ERROR: Cannot install acme==1.0" in done.stderr
    assert "Installed" not in done.stdout


def test_pips_options_are_those_of_uv(tmp_path: Path) -> None:
    config = tmp_path / "pip.conf"
    config.write_text(
        "[global]\nindex-url = https://pip.example/simple\nextra-index-url = https://a.example\n    https://b.example\n"
        "timeout = 90\n[install]\ntrusted-host = pip.example\nno-index = false\n"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    code = "import install, json, sys; print(json.dumps(install.uv_environment(install.pip_options(sys.stdin.read()))))"
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        env={**kept, "PIP_CONFIG_FILE": str(config), "PIP_INDEX_URL": "https://env.example/simple",
             "PIP_FIND_LINKS": "/wheels /more"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, input=listed.stdout, capture_output=True, text=True, check=True
    )
    options = json.loads(done.stdout)
    assert options == options | {
        "UV_DEFAULT_INDEX": "https://env.example/simple",
        "UV_INDEX": "https://a.example https://b.example",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": "/wheels,/more",
        "UV_HTTP_TIMEOUT": "90",
        "UV_INSECURE_HOST": "pip.example",
        "UV_NO_INDEX": "false",
    }
