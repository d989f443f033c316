"""A plain HTTP client for the tests of the servers."""

from __future__ import annotations

import httpx

from heap_assets_tests.connectors.servers.core import VendorServer


def client(server: VendorServer, **headers: str) -> httpx.Client:
    """Return a client of the server's address; `_` in names of headers stands for `-`."""
    # there is no TLS here, and reading the certificates takes longer than a test
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Client(base_url=server.url, headers=named, verify=False)
