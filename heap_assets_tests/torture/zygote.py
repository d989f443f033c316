"""A process that has imported everything and started nothing: each piece of work is a fork of it, which may be killed.

    python -m heap_assets_tests.torture.zygote

Reads one JSON object a line and answers each with one.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heap_assets import clock
from heap_assets_tests.torture import stages
from heap_assets_tests.torture.faults import Faults

_PATIENCE_SECONDS = 600
"""A machine that has much else to do makes a fork wait for minutes; one that waits for a lock waits for ever."""
SERVER_VARIABLE = "HEAP_ASSETS_TORTURE_SERVER"


@dataclass(frozen=True)
class Outcome:
    """How a piece of work ended: `finished`, `failed` (with its message), `killed`, or `hung`."""

    ended: str
    calls: int = 0
    seconds: float = 0.0
    said: Any = None


class Zygote:
    """The process, seen from outside. Use as a context manager.

    Parameters
    ----------
    server
        Address of the server that syncs go to.
    """

    def __init__(self, server: str = "") -> None:
        self._server = server

    def __enter__(self) -> Zygote:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "heap_assets_tests.torture.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, clock.VARIABLE: stages.NOW.isoformat(), SERVER_VARIABLE: self._server},
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=60)

    def ask(self, work: str, folder: Path, **more: Any) -> Outcome:
        """Do a piece of work in a fork.

        Parameters
        ----------
        work
            `company`, `world`, a stage, `settle` with `stage`, or `loops`: resolve, and keep for later forks what that
            compiles.
        more
            `kind` and `at` of a fault; `kill_after`: seconds after which the fork is killed.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"work": work, "folder": str(folder), **more}) + "\n")
        self._process.stdin.flush()
        return Outcome(**json.loads(self._process.stdout.readline()))


def _child(asked: dict[str, Any], answers: int) -> None:
    from heap_assets_tests.torture.work import calls, do

    os.dup2(2, 1)  # what is printed is no answer
    faults = Faults(asked.get("kind"), asked.get("at", 0))
    faults.install(calls(asked))
    ended, said = "finished", None
    try:
        said = do(asked)
    except BaseException as error:
        ended, said = "failed", f"{type(error).__name__}: {error}"[:500]
    os.write(answers, json.dumps({"ended": ended, "calls": faults.calls, "said": said}).encode())
    os._exit(0)


def _answer(asked: dict[str, Any]) -> dict[str, Any]:
    reader, writer = os.pipe()
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _child(asked, writer)
    os.close(writer)
    status = _waited(child, asked.get("kill_after"))
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read()
    seconds = time.monotonic() - began
    if said:
        return {**json.loads(said), "seconds": seconds}
    return {"ended": "hung" if status is None else "killed", "seconds": seconds}


def _waited(child: int, kill_after: float | None) -> int | None:
    """Return how a fork ended; None if it had to be killed because it did not."""
    began = time.monotonic()
    until = began + (_PATIENCE_SECONDS if kill_after is None else kill_after)
    while time.monotonic() < until:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    return None if kill_after is None else status


def _main() -> None:
    from heap_assets_tests.torture.work import import_all, load_loops

    import_all()
    for line in sys.stdin:
        asked = json.loads(line)
        answer = _answer(asked)
        if asked["work"] == "loops" and answer["ended"] == "finished":
            load_loops(answer["said"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _main()
