"""One child process that runs JavaScript: started, spoken to by frames, and ended when it does not answer."""

from __future__ import annotations

import json
import os
import select
import struct
import subprocess
import sys
import time
from contextlib import suppress
from functools import cache
from importlib import resources
from importlib.util import find_spec
from typing import Any, Final

from heap_assets.errors import HeapAssetsError
from heap_assets.functions.bundle import Bundle
from heap_assets.functions.limits import Limits

_LENGTH: Final = struct.Struct(">I")
_PIECE: Final = 1 << 16
_PIPE: Final = 1 << 20


class FunctionFailedError(HeapAssetsError):
    """A function that cannot be run at all, or fails so often that its results would mean nothing."""


class BatchFailedError(Exception):
    """A batch without results; `at` is the engine's stack."""

    def __init__(self, reason: str, at: str = "") -> None:
        super().__init__(reason)
        self.reason, self.at = reason, at


class ChildDiedError(BatchFailedError):
    """The process ended by itself: the same batch may pass a second time."""


class ChildKilledError(ChildDiedError):
    """The process was killed from outside; nothing that a function does ends its process so."""


class ChildProcess:
    """A child process with one function's code; not for several threads at once."""

    def __init__(self, code: Bundle, limits: Limits) -> None:
        """Start the process.

        Raises
        ------
        FunctionFailedError
            The platform cannot limit processes, or the engine is not installed.
        """
        require_limits()
        self._limits = limits
        child = resources.files("heap_assets.functions") / "child.py"
        with resources.as_file(child) as script:
            self._process = subprocess.Popen(  # noqa: S603  (our own script by our own interpreter)
                [sys.executable, "-I", str(script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={"TZ": "UTC"},
                cwd="/",
                bufsize=0,
            )
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
            import fcntl  # not on every platform: `require_limits` has refused those

            for pipe in (self._in, self._out):
                if hasattr(fcntl, "F_SETPIPE_SZ"):
                    with suppress(OSError):  # more than the system lets this user have
                        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE)
            os.set_blocking(self._in, False)
            os.set_blocking(self._out, False)
            settings = {
                "prelude": _prelude(),
                "code": code.code,
                "memory_bytes": limits.memory_bytes,
                "stack_bytes": limits.stack_bytes,
            }
            try:
                self._send([json.dumps(settings)], time.monotonic() + limits.wall_seconds)
            except BatchFailedError:
                self.end()
                raise

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def run(self, meta: dict[str, Any], rows: str) -> bytes:
        """Return what the child answers to a batch: JSON of at most twice the limit of output.

        Raises
        ------
        BatchFailedError
            It did not answer in time (the process is ended), answered too much, or died.
        """
        deadline = time.monotonic() + meta["cpu_seconds"] + self._limits.wall_seconds
        try:
            self._send([json.dumps(meta), rows], deadline)
            (length,) = _LENGTH.unpack(self._receive(_LENGTH.size, deadline))
            # UTF-8 of a text takes up to three bytes a unit
            if length > 3 * self._limits.output_bytes + _PIECE:
                raise BatchFailedError("the results are too long")
            return self._receive(length, deadline)
        except BatchFailedError:
            self.end()
            raise

    def end(self) -> None:
        """End the process; never fails."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _send(self, texts: list[str], deadline: float) -> None:
        encoded = [text.encode() for text in texts]
        view = memoryview(b"".join(_LENGTH.pack(len(data)) + data for data in encoded))
        while view:
            self._wait(self._in, select.POLLOUT, deadline)
            try:
                view = view[os.write(self._in, view[:_PIPE]) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise self._death() from error

    def _receive(self, length: int, deadline: float) -> bytes:
        parts = []
        while length:
            self._wait(self._out, select.POLLIN, deadline)
            try:
                part = os.read(self._out, min(length, 1 << 20))
            except BlockingIOError:
                continue
            if not part:
                raise self._death()
            parts.append(part)
            length -= len(part)
        return b"".join(parts)

    def _wait(self, pipe: int, event: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(pipe, event)
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise BatchFailedError("it did not end in time, and its process was ended")

    def _death(self) -> ChildDiedError:
        try:
            status = self._process.wait(1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        if status == -_CPU_SIGNAL:
            return ChildDiedError("it used up its processor time")
        kind = ChildKilledError if status == -_KILL_SIGNAL else ChildDiedError
        return kind(f"its process ended ({'signal' if status < 0 else 'status'} {abs(status)})")


_CPU_SIGNAL: Final = 24
"""SIGXCPU, on Linux and on macOS."""
_KILL_SIGNAL: Final = 9


@cache
def _prelude() -> str:
    return (resources.files("heap_assets.functions") / "prelude.js").read_text(encoding="utf-8")


def require_limits() -> None:
    """Check that functions can be run here.

    Raises
    ------
    FunctionFailedError
        The platform cannot limit a process' memory and time, or the engine is not installed.
    """
    if find_spec("resource") is None:
        raise FunctionFailedError(
            f"functions cannot be run on {sys.platform}: it has no resource limits (rlimits), and without them a "
            "function could use up the machine. Run them on Linux, macOS or in a container"
        )
    if find_spec("_quickjs") is None:
        raise FunctionFailedError("functions need the package quickjs-ng: pip install quickjs-ng")
