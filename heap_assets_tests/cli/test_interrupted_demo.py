"""Ctrl-C in the middle of the demo, as a terminal sends it: to the whole process group."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from heap_assets_tests.end_to_end.dagster_process import ROOT, free_port, until

_PATIENCE_SECONDS = 90


def _group_is_gone(group: int, process: subprocess.Popen[bytes]) -> bool | None:
    process.poll()
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return None


@pytest.mark.parametrize("moment", ["Wrote a company", "landed"])
def test_ctrl_c_ends_the_demo_and_its_servers(tmp_path: Path, moment: str) -> None:
    for name in ("heap_assets.yaml", "heap_catalogue.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    log = tmp_path / "demo.log"
    addresses = {f"{kind}_BASE_URL": f"http://127.0.0.1:{free_port()}" for kind in ("HEAP", "SEGMENT")}
    environment = {**os.environ, **addresses, "HEAP_ASSETS_DEMO": str(tmp_path / "demo")}
    environment |= {"DAGSTER_HOME": str(tmp_path / "home"), "PYTHONUNBUFFERED": "1"}
    environment.pop("HEAP_ASSETS_SETTINGS", None)
    command = [sys.executable, "-m", "heap_assets.cli", "demo", "--people", "30", "--days", "4"]
    with log.open("wb") as output:
        demo = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        until(lambda: moment in log.read_text() or None, _PATIENCE_SECONDS, moment)
        os.killpg(demo.pid, signal.SIGINT)
        until(lambda: _group_is_gone(demo.pid, demo), _PATIENCE_SECONDS, "the end of the demo and its servers")
    finally:
        if _group_is_gone(demo.pid, demo) is None:
            os.killpg(demo.pid, signal.SIGKILL)
            demo.wait()
    told = log.read_text()
    assert demo.returncode == 1
    assert "Aborted!" in told
    nights = [line for line in told.splitlines() if "sent what changed" in line]
    assert not nights, "it goes on with nothing"
