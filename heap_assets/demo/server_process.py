"""Starts and stops the local servers as processes of their own; used by the demo, by `make dev` and by tests."""

from __future__ import annotations

import functools
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx

from heap_assets.errors import HeapAssetsError

Kind = Literal["heap", "segment"]
START_SECONDS = 30.0


class ServerError(HeapAssetsError):
    """A local server did not start, or refused an order."""


@dataclass
class ServerProcess:
    """A running local server.

    Attributes
    ----------
    base_url
        Where a client sends to, such as `http://127.0.0.1:43210`.
    wrong_region_url
        In EU mode the US host, else None.
    """

    kind: Kind
    folder: Path
    base_url: str
    wrong_region_url: str | None
    process: subprocess.Popen[bytes]

    def state(self, **query: str) -> dict[str, Any]:
        """Return what the server knows; `only="summary"` for counts, `app_id=` and `identity=` on Heap."""
        return self._get("/_state", query)

    def requests(self, last: int = 0, *, bodies: bool = False) -> dict[str, Any]:
        """Return request counts, and the last requests, with bodies when asked."""
        return self._get("/_requests", {"last": str(last), **({"bodies": "1"} if bodies else {})})

    def fail(self, *orders: Mapping[str, Any]) -> None:
        """Replace the fault orders (server_faults.py); none takes all back."""
        self._post("/_faults", list(orders))

    def configure(self, **values: Any) -> None:
        self._post("/_config", values)

    def seed(self, identities: Sequence[str] | Mapping[str, Any], **more: Any) -> None:
        """Make users known to Heap, as if the SDK had seen them."""
        self._post(
            "/_seed", {"identities": identities if isinstance(identities, Mapping) else list(identities), **more}
        )

    def reset(self) -> None:
        self._post("/_reset", None)

    def kill(self) -> None:
        """Kill -9; the state stays in the folder."""
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> None:
        """Stop, by force if it hangs."""
        if self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()

    def _get(self, path: str, query: Mapping[str, str]) -> dict[str, Any]:
        response = _client().get(self.base_url + path, params=dict(query))
        response.raise_for_status()
        answer: dict[str, Any] = response.json()
        return answer

    def _post(self, path: str, value: Any) -> None:
        response = _client().post(self.base_url + path, json=value)
        if response.status_code != httpx.codes.OK:
            raise ServerError(f"the {self.kind} server refused {path}: {response.text}")


@functools.cache
def _client() -> httpx.Client:
    """Return the client of this process: one more takes longer than a call, for it loads certificate authorities."""
    return httpx.Client(timeout=60, trust_env=False)


def start_server(kind: Kind, folder: Path, *, port: int = 0, arguments: Sequence[str] = ()) -> ServerProcess:
    """Start a server and wait until it accepts connections.

    Parameters
    ----------
    folder
        Keeps its state (`journal.jsonl`), its log (`server.log`) and its port (`port`).
    port
        0 takes any free port. To continue under the same address after a kill, give the old one.
    arguments
        Further command line arguments: `["--app-id", "11", "--region", "eu"]`.

    Raises
    ------
    ServerError
        If it exits or is not ready within 30 s; with the end of its log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port_file = folder / "port"
    port_file.unlink(missing_ok=True)
    command = [sys.executable, "-m", f"heap_assets.demo.{kind}_server", "--port", str(port), "--state", str(folder)]
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(  # noqa: S603  our own module, no shell
            [*command, "--port-file", str(port_file), *arguments], stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
    give_up_at = time.monotonic() + START_SECONDS
    while not port_file.exists():
        if process.poll() is not None or time.monotonic() > give_up_at:
            process.kill()
            process.wait(10)
            tail = (folder / "server.log").read_text(errors="replace")[-2000:]
            raise ServerError(f"the local {kind} server did not start in {folder}:\n{tail}")
        time.sleep(0.02)
    urls = [f"http://127.0.0.1:{line}" for line in port_file.read_text().split()]
    return ServerProcess(kind, folder, urls[0], urls[1] if len(urls) > 1 else None, process)


@contextmanager
def running_server(
    kind: Kind, folder: Path, *, port: int = 0, arguments: Sequence[str] = ()
) -> Iterator[ServerProcess]:
    """Run a server for the time of a `with` block; see :func:`start_server`."""
    server = start_server(kind, folder, port=port, arguments=arguments)
    try:
        yield server
    finally:
        server.stop()
