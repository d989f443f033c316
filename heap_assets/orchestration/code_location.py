"""Reloading the code location of a running webserver, so that a changed catalogue takes effect without a restart."""

from __future__ import annotations

import json
import threading
import time

from heap_assets.config import Settings
from heap_assets.errors import HeapAssetsError
from heap_assets.http_client import AllowedHosts, Answer, HttpClient
from heap_assets.project import allowed_hosts, catalogue_files, parse_catalogue
from heap_assets.storage import Lake

_POLL_SECONDS = 2.0
_MOMENT_SECONDS = 3.0
_MUTATION = "mutation { reloadWorkspace { __typename ... on PythonError { message } } }"


def reload_code_locations(url: str, allowed: AllowedHosts, seconds: float = 60.0) -> bool:
    """Ask a webserver to load all code locations anew; False if it cannot or may not be reached, or refuses."""
    client = HttpClient(allowed=allowed)
    try:
        body, headers = json.dumps({"query": _MUTATION}).encode(), {"Content-Type": "application/json"}
        response = client.exchange("POST", f"{url}/graphql", body, headers, seconds)
    finally:
        client.close()
    try:
        return isinstance(response, Answer) and json.loads(response.body)["data"]["reloadWorkspace"] == {
            "__typename": "Workspace"
        }
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def reload_soon(settings: Settings) -> None:
    """Reload after a moment, from a thread: the caller may be in the code location that is replaced."""
    timer = threading.Timer(_MOMENT_SECONDS, _reload, (settings,))
    timer.daemon = True
    timer.start()


def _reload(settings: Settings) -> None:
    reload_code_locations(settings.run.ui_url, allowed_hosts(settings))


def reload_when_the_catalogue_changes(settings: Settings, url: str) -> None:
    """Watch the catalogue for ever and reload the code locations of `url` whenever it has changed."""
    lake = Lake.open(settings.lake.url, settings.lake.options)
    files = catalogue_files(settings, lake)
    loaded = parse_catalogue(files)
    while True:
        time.sleep(_POLL_SECONDS)
        try:
            changed = catalogue_files(settings, lake)
            if changed == files:  # parsing a large one takes a second
                continue
            current = parse_catalogue(changed)
        except HeapAssetsError:
            continue  # half edited by hand: the next poll sees the whole
        if current == loaded or reload_code_locations(url, allowed_hosts(settings)):
            loaded, files = current, changed
