"""The child process that runs users' JavaScript: a script of its own, which imports nothing of this package.

It reads frames from standard input and answers each on standard output. A frame is a length (4 bytes, big-endian) and
so many bytes of UTF-8. The first frame says the limits and has the code; each later pair (what to do, the rows) is a
batch, and is run in a context of its own.
"""

import json
import os
import re
import resource
import struct
import sys
import time

import _quickjs  # the package `quickjs` starts a thread

_LENGTH = struct.Struct(">I")
_HALVES = re.compile(r"(\\\\)|\\ud[0-9a-f]{3}")
_LINES = 10_000
"""Lines before the user's code, so that a line of a stack says whose it is (`bundle.FIRST_LINE`)."""


def main() -> None:
    """Serve batches until standard input ends."""
    settings = json.loads(_read())
    _limit(settings)
    while True:
        meta_text = _read()
        rows = _read()
        _write(_answer(settings, json.loads(meta_text), meta_text, rows))


def _limit(settings: dict) -> None:  # type: ignore[type-arg]
    """Lower what this process may do, for good; memory is what it has now, and four times what JavaScript may have."""
    with open("/proc/self/statm") if os.path.exists("/proc/self/statm") else open(os.devnull) as file:  # noqa: PTH110, PTH123
        pages = int((file.read().split() or ["0"])[0])
    space = pages * resource.getpagesize() + 4 * settings["memory_bytes"] + (64 << 20)
    for limit, value in (
        (resource.RLIMIT_AS, space),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 3),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))


def _answer(settings: dict, meta: dict, meta_text: str, rows: str) -> str:  # type: ignore[type-arg]
    """Return the results of a batch as JSON: `{"rows": …}`, or `{"failed": …}` for a batch that failed."""
    used = time.process_time()
    # in whole seconds, above what the engine itself interrupts: a native function that runs on ends the process
    seconds = meta["cpu_seconds"]
    resource.setrlimit(resource.RLIMIT_CPU, (int(used + seconds) + 2, resource.RLIM_INFINITY))
    phase = "load"
    try:
        context = _quickjs.Context()
        context.set_memory_limit(settings["memory_bytes"])
        context.set_max_stack_size(settings["stack_bytes"])
        context.set_time_limit(seconds)
        run = context.eval(settings["prelude"])
        user = context.eval("\n" * _LINES + settings["code"])
        run("check", user, "", meta_text)
        phase = "run"
        run("start", user, rows, meta_text)
        while context.execute_pending_job():
            if time.process_time() - used > seconds:
                return _failure("InternalError: interrupted", "", phase)
        result: str = run("finish")
        # looking for nested values in JavaScript takes half as long as all the rest: few results have brackets at all
        if result.count("{") + result.count("[") > run("brackets") + meta["depth"] - 2:
            result = run("check_depth", None, "", meta_text)
    except MemoryError:
        return _failure("InternalError: out of memory", "", phase)
    except Exception as error:  # whatever the engine raises
        message, _, stack = str(error).partition("\n")
        return _failure(message[:1000], stack[:4000], phase)
    # JSON.stringify writes half characters as \\udXXX, and nothing else so
    return _HALVES.sub(lambda match: match[1] or "\\ufffd", result) if "\\ud" in result else result


def _failure(message: str, stack: str, phase: str) -> str:
    return json.dumps({"failed": message, "at": stack, "phase": phase})


def _read() -> str:
    (length,) = _LENGTH.unpack(_exactly(_LENGTH.size))
    return _exactly(length).decode()


def _exactly(length: int) -> bytes:
    parts = []
    while length:
        part = os.read(0, min(length, 1 << 20))
        if not part:
            os._exit(0)  # the parent has ended
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def _write(text: str) -> None:
    data = text.encode("utf-8", "replace")
    view = memoryview(_LENGTH.pack(len(data)) + data)
    while view:
        view = view[os.write(1, view) :]


if __name__ == "__main__":
    sys.setswitchinterval(10)
    main()
