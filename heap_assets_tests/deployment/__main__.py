"""`make image-steps`: the steps of deploy/Dockerfile in an empty folder, and what the containers of compose.yaml run.

There is no container here: paths of the image lie below a temporary folder, processes run as the image's user, who can
write to nothing that the image holds, and each command of compose.yaml is a process. The source is a sample company.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml

from heap_assets.demo import write_company
from heap_assets_tests.deployment.dockerfile import DEPLOY, stages
from heap_assets_tests.end_to_end.dagster_process import Dagster, free_port, until
from heap_assets_tests.sources.warehouse import servers

ROOT = DEPLOY.parent
_IMAGE_FOLDERS = re.compile(r"(?<![\w.$])(/opt/heap_assets|/opt/dagster|/settings|/src|/var/lib/dagster|/tmp)(?![\w-])")
UI_SECONDS = 180


def main() -> None:
    """Build what the image holds, and run its containers' commands until the UI shows the code location's assets."""
    if os.getuid() != 0:
        sys.exit("make image-steps needs root: it runs commands as the image's user")
    folder = Path(tempfile.mkdtemp(prefix="image-"))
    folder.chmod(0o755)
    try:
        user = build(folder)
        size = sum(path.stat().st_size for path in (folder / "opt/heap_assets").rglob("*") if path.is_file())
        print(f"/opt/heap_assets: {size / 1e6:,.0f} MB")
        with servers.postgres_cluster() as postgres:
            serve(folder, postgres, user)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def build(folder: Path) -> int:
    """Run the steps of both stages below a folder, and return the user that the image runs as."""
    first, image = stages()
    environment = {
        **os.environ,
        **inside(folder, first.environment),
        "PIP_QUIET": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
    }
    environment["PATH"] = f"{python_of_all(folder)}{os.pathsep}{environment['PATH']}"
    for name in ("PYTHONPATH", "NUMBA_CACHE_DIR", "PIP_NO_CACHE_DIR"):
        environment.pop(name, None)
    for name, arguments in first.instructions:
        began = time.monotonic()
        if name == "COPY":
            *sources, target = arguments.split()
            for source in sources:
                destination = folder / "src" / target / ("" if target != "./" else source)
                ignored = shutil.ignore_patterns("__pycache__")
                path = ROOT / source
                shutil.copytree(path, destination, ignore=ignored) if path.is_dir() else shutil.copy(path, destination)
        elif name == "WORKDIR":
            Path(moved(folder, arguments)).mkdir(parents=True)
        elif name == "RUN":
            subprocess.run(
                moved(folder, arguments), shell=True, check=True, cwd=folder / "src", env=environment
            )  # what the image's builder does
            print(f"{time.monotonic() - began:6.1f} s  RUN {arguments}", flush=True)
    for arguments in image.arguments("RUN"):
        subprocess.run(moved(folder, arguments), shell=True, check=True)
    shutil.rmtree(folder / "src")
    (folder / "tmp").mkdir()
    user = int(image.arguments("USER")[0].partition(":")[0])
    os.chown(folder / "tmp", user, user)
    return user


def python_of_all(folder: Path) -> Path:
    """Return a folder whose `python` is one that every user may run: the image's user is not the owner of ours."""
    found = shutil.which("python3", path="/usr/local/bin:/usr/bin:/bin")
    if found is None:
        sys.exit("make image-steps needs a Python outside of a user's home, with venv")
    (folder / "bin").mkdir()
    (folder / "bin" / "python").symlink_to(found)
    return folder / "bin"


def serve(folder: Path, postgres: str, user: int) -> None:
    """Run the commands of compose.yaml's containers as the image's user, and wait for the assets in the UI."""
    compose = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())
    shutil.copy(DEPLOY / "compose" / "dagster.yaml", folder / "opt/dagster")
    text = (folder / "opt/dagster/dagster.yaml").read_text()
    (folder / "opt/dagster/dagster.yaml").write_text(moved(folder, text))
    ports = {"3000": str(free_port()), "4000": str(free_port())}
    workspace = (DEPLOY / "compose" / "workspace.yaml").read_text()
    workspace = workspace.replace("host: heap_assets", "host: localhost").replace("4000", ports["4000"])
    (folder / "opt/dagster/workspace.yaml").write_text(workspace)
    write_settings(folder, user)
    environment = {
        **{name: value for name, value in os.environ.items() if name in ("LANG", "TZ")},
        **inside(folder, stages()[1].environment),
        "PATH": f"{folder}/opt/heap_assets/bin:/usr/bin:/bin",
        "TMPDIR": str(folder / "tmp"),
        "HOME": "/nonexistent",
        "DAGSTER_PG_URL": f"postgresql+psycopg2://{postgres}/postgres",
        "HEAP_APP_ID": "2463913201",
    }
    run = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    warm = subprocess.run(
        [*run, "heap-assets", "warm"], env=environment, cwd=folder / "tmp", capture_output=True, text=True, check=True
    )
    print(f"for the image's user: {warm.stdout.strip()}")
    with ExitStack() as stack:
        for name in ("heap_assets", "daemon", "webserver"):
            words = [ports.get(word, word) for word in compose["services"][name]["command"]]
            command = [*run, *(moved(folder, word) for word in words)]
            stack.enter_context(process(command, environment, folder / "tmp" / f"{name}.log"))
        began = time.monotonic()
        dagster = Dagster(f"http://localhost:{ports['3000']}", folder / "tmp" / "webserver.log")
        count = until(lambda: assets(dagster), UI_SECONDS, "assets of the code location in the UI")
        print(f"{time.monotonic() - began:6.1f} s  the UI shows {count} assets of the code location")
        until(lambda: materialized(dagster), UI_SECONDS, "a dump that was landed by a run")
        print(f"{time.monotonic() - began:6.1f} s  the daemon launched runs, and a dump has landed")


def write_settings(folder: Path, user: int) -> None:
    """Write a sample company and the settings of a deployment that reads it."""
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    company = write_company(folder / "company", people=20, days=3, seed=1, until=yesterday, faults=False)
    (folder / "lake").mkdir()
    os.chown(folder / "lake", user, user)
    settings = {
        "start_date": str(yesterday - timedelta(days=3)),
        "lake": str(folder / "lake"),
        "heap": {"app_id": "${HEAP_APP_ID}", "source": {"kind": "folder", "path": str(company.folder / "bucket")}},
        "identity": {"identifiers": [{"type": "heap_identity"}, {"type": "heap_user_id"}]},
    }
    (folder / "settings/heap_assets.yaml").write_text(yaml.safe_dump(settings))


def assets(dagster: Dagster) -> int | None:
    """Return how many assets the UI shows, None if it does not answer yet."""
    try:
        return len(dagster.ask("{ assetNodes { id } }")["assetNodes"]) or None
    except Exception:  # the server is starting: whatever it answers, it is asked again
        return None


def materialized(dagster: Dagster) -> bool | None:
    """Return whether a dump has landed."""
    return bool(dagster.counts("heap_connect/dumps")) or None


@contextmanager
def process(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Iterator[None]:
    """Run a command for the time of a `with` block; what it printed is shown if the block fails."""
    with log.open("w") as output:
        running = subprocess.Popen(command, env=dict(environment), stdout=output, stderr=output, cwd=log.parent)
    try:
        yield
    except BaseException:
        print(f"{' '.join(command)}\n{log.read_text()[-4000:]}")
        raise
    finally:
        running.terminate()
        running.wait(60)


def moved(folder: Path, text: str) -> str:
    """Return a text with the image's paths made those below a folder."""
    return _IMAGE_FOLDERS.sub(rf"{folder}\1", text)


def inside(folder: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """Return variables with the image's paths made those below a folder."""
    return {name: moved(folder, value) for name, value in variables.items()}


if __name__ == "__main__":
    main()
