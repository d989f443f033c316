"""On PYTHONPATH of the end-to-end test: writes down every address that any Python process connects to or looks up."""

import os
import sys
from typing import Any


def _write_down(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect":
        address = arguments[1]
    elif event == "socket.getaddrinfo":
        address = arguments[:2]
    else:
        return
    with open(os.environ["NETWORK_WATCH_LOG"], "a") as log:  # noqa: PTH123  pathlib is not loaded this early
        log.write(f"{event} {address!r}\n")


if "NETWORK_WATCH_LOG" in os.environ:
    sys.addaudithook(_write_down)
