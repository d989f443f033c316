"""Alerts through the real daemon: its sensors, an own instance on disk, a real HTTP and a real SMTP receiver."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
from alert_receivers import Inbox, http_receiver, smtp_receiver
from alert_toys import Toy

from heap_assets.alerts.channels import signature

HERE = Path(__file__).parent
DAY = "2026-11-01"
PATIENCE_SECONDS = 90


@contextmanager
def daemon(home: Path, environment: dict[str, str]) -> Iterator[None]:
    """Run `dagster-daemon` in a process group of its own, and end the group."""
    log = (home / "daemon.log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "dagster._daemon", "run", "-w", str(home / "workspace.yaml")],
        env={**os.environ, **environment},
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
        log.close()


def wait_for(what: Callable[[], bool], home: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not what():
        assert time.monotonic() < deadline, (home / "daemon.log").read_text()[-3000:]
        time.sleep(0.5)


def told(inbox: Inbox, about: str, *, recovered: bool) -> int:
    return sum(
        alarm["about"] == about and alarm["recovered"] is recovered
        for message in inbox.json()
        for alarm in message["alarms"]  # type: ignore[attr-defined]
    )


@pytest.mark.slow
def test_the_daemon_tells_once_over_http_and_smtp_and_takes_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    (home / "workspace.yaml").write_text(
        f"load_from:\n  - python_file: {{relative_path: {HERE / 'alert_toys.py'}, working_directory: {HERE}}}\n"
    )
    with http_receiver() as hook, smtp_receiver() as mail:
        environment = {
            "DAGSTER_HOME": str(home),
            "TOY_FOLDER": str(tmp_path / "toy"),
            "TOY_LAKE": str(tmp_path / "lake"),
            "TOY_WEBHOOK": hook.url,
            "TOY_SECRET": "s3cret",
            "TOY_SMTP_PORT": str(mail.port),
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        toy = Toy(tmp_path / "toy")
        job = toy.definitions([], environment["TOY_LAKE"]).resolve_implicit_global_asset_job_def()
        with dg.DagsterInstance.get() as instance:
            toy.break_it("unique_keys", DAY)
            assert job.execute_in_process(instance=instance, partition_key=DAY).success
            with daemon(home, environment):
                wait_for(lambda: told(hook, "unique_keys", recovered=False) == 1 and bool(mail.bodies), home)
                toy.mend("unique_keys", DAY)
                assert job.execute_in_process(instance=instance, partition_key=DAY).success
                wait_for(lambda: told(hook, "unique_keys", recovered=True) == 1, home)
                wait_for(lambda: sum(b"RECOVERED" in body for body in mail.bodies) == 1, home)
        assert told(hook, "unique_keys", recovered=False) == 1
        assert b"No contact is there twice." in mail.bodies[0]
        for body, headers in zip(hook.bodies, hook.headers, strict=True):
            expected = signature("s3cret", headers["X-Heap-Assets-Timestamp"], body)
            assert headers["X-Heap-Assets-Signature"] == expected
