"""On PYTHONPATH of end-to-end tests: writes down every address that any Python process connects to or looks up.

With NETWORK_WATCH_REFUSES, addresses of other machines are refused besides.
"""

import os
import sys
from typing import Any

_WHOSE = {"socket.connect": 1, "socket.sendto": 1, "socket.sendmsg": 1}
_NAMES = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo")
_HERE = ("127.", "::1", "localhost", "/")


def _write_down(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _WHOSE:
        address = arguments[_WHOSE[event]]
    elif event in _NAMES:
        address = arguments[:2]
    else:
        return
    with open(os.environ["NETWORK_WATCH_LOG"], "a") as log:  # noqa: PTH123  pathlib is not loaded this early
        log.write(f"{event} {address!r}\n")
    host = address[0] if isinstance(address, tuple) else address
    if "NETWORK_WATCH_REFUSES" in os.environ and host and not str(host).startswith(_HERE):
        raise ConnectionRefusedError(f"the test refuses {host}")


if "NETWORK_WATCH_LOG" in os.environ:
    sys.addaudithook(_write_down)
