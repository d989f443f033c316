"""Which hosts the settings let this deployment call: `allowed_hosts`, and those that lake and sources are on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from heap_assets.config import Settings
from heap_assets.http_client import AllowedHosts, allow_only, allowed_hosts, host_and_port
from heap_assets.sources.warehouse import AccessError, Dsn

BIGQUERY = ("bigquery.googleapis.com", "bigquerystorage.googleapis.com", "oauth2.googleapis.com")
GOOGLE_STORAGE = ("storage.googleapis.com", "oauth2.googleapis.com")


def apply_allowed_hosts(settings: Settings) -> None:
    """Let this process call only what settings allow; all, unless they say something."""
    if settings.allowed_hosts is None:
        allow_only(None)
    else:
        allow_only([*settings.allowed_hosts, *_source_hosts(settings)])


def check_publish_hosts(settings: Settings, target: str) -> None:
    """Hold the hosts of a publish target against `allowed_hosts`: drivers connect by themselves.

    Raises
    ------
    HostNotAllowedError
        Naming the first host that is not allowed.
    """
    chosen, allowed = settings.publish[target], allowed_hosts()
    for host in _publish_hosts(chosen):
        _check(allowed, host)


def refused_hosts(settings: Settings) -> list[str]:
    """Return what settings name and may not be called: `sync.x: api.example`, one line each."""
    if settings.allowed_hosts is None:
        return []
    allowed = AllowedHosts(frozenset(h.lower() for h in (*settings.allowed_hosts, *_source_hosts(settings))))
    named = [*_sync_hosts(settings), *_alert_hosts(settings)]
    named += [(f"publish.{name}", host) for name, one in settings.publish.items() for host in _publish_hosts(one)]
    return sorted({f"{where}: {host}" for where, host in named if not allowed.allows(*_split(host))})


def _source_hosts(settings: Settings) -> Iterator[str]:
    """Yield the hosts of lake and sources, with their ports where they are given."""
    source, warehouse = settings.heap.source, settings.warehouse
    endpoints = [settings.lake.options.get("aws_endpoint_url"), os.environ.get("AWS_ENDPOINT_URL")]
    if settings.lake.url.startswith("gs://"):
        yield from GOOGLE_STORAGE
    if source.kind == "s3":
        endpoints.append(source.endpoint_url)
    for one in (source, warehouse):
        if one is not None and one.kind == "bigquery":
            yield from _bigquery_hosts(one.endpoint)
    if warehouse is not None and warehouse.kind == "postgres":
        with contextlib.suppress(AccessError):  # told when it is read: what does not need it goes on
            yield from Dsn.parse(warehouse.dsn.get_secret_value()).hosts
    yield from (_of_url(endpoint) for endpoint in endpoints if endpoint)


def _sync_hosts(settings: Settings) -> Iterator[tuple[str, str]]:
    for name, sync in settings.sync.items():
        if (url := sync.called_url(settings.heap)) is not None:
            yield f"sync.{name}", _of_url(url)


def _alert_hosts(settings: Settings) -> Iterator[tuple[str, str]]:
    for index, alert in enumerate(settings.alerts):
        if alert.kind == "email":
            yield f"alerts[{index}]", f"{alert.host}:{alert.port}"
        elif address := alert.url or os.environ.get(alert.url_env, ""):
            yield f"alerts[{index}]", _of_url(address)


def _publish_hosts(target: object) -> Iterator[str]:
    dsn = getattr(target, "dsn", None)
    if dsn is not None:
        yield from Dsn.parse(dsn.get_secret_value()).hosts
        return
    yield from _bigquery_hosts(getattr(target, "endpoint", None))
    if getattr(target, "staging", None):
        yield from GOOGLE_STORAGE


def _bigquery_hosts(endpoint: str | None) -> Iterator[str]:
    yield from BIGQUERY if endpoint is None else (_of_url(endpoint),)


def _of_url(url: str) -> str:
    host, port = host_and_port(url)
    return f"{host}:{port}" if port else host


def _check(allowed: AllowedHosts, host: str) -> None:
    allowed.check(*_split(host))


def _split(host: str) -> tuple[str, int | None]:
    name, colon, port = host.rpartition(":")
    return (name, int(port)) if colon and port.isdigit() else (host, None)
