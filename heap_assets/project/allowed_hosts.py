"""Which hosts the settings let this deployment call: `allowed_hosts`, and those that lake and sources are on."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from heap_assets.config import GOOGLE_STORAGE, DatabricksSpark, DataprocSpark, Settings
from heap_assets.http_client import ANYWHERE, AllowedHosts, host_and_port

_PORT = re.compile(r"[0-9]{1,5}")


def allowed_hosts(settings: Settings) -> AllowedHosts:
    """Return the hosts that settings allow; all, unless they say something."""
    if settings.allowed_hosts is None:
        return ANYWHERE
    return AllowedHosts.of([*settings.allowed_hosts, *_source_hosts(settings)])


def check_publish_hosts(settings: Settings, target: str) -> None:
    """Hold the hosts of a publish target against `allowed_hosts`: drivers connect by themselves.

    Raises
    ------
    HostNotAllowedError
        Naming the first host that is not allowed.
    """
    allowed = allowed_hosts(settings)
    for host in settings.publish[target].hosts():
        allowed.check(*_split(_bare(host)))


def refused_hosts(settings: Settings) -> list[str]:
    """Return what settings name and may not be called: `sync.x: api.example`, one line each."""
    allowed = allowed_hosts(settings)
    named = [*_sync_hosts(settings), *_alert_hosts(settings)]
    named += [(f"reverse_etl.{name}", _of_url(one.url)) for name, one in settings.reverse_etl.items()]
    named += [(f"publish.{name}", _bare(host)) for name, one in settings.publish.items() for host in one.hosts()]
    named += [*_api_hosts(settings), *_cluster_hosts(settings)]
    return sorted({f"{where}: {host}" for where, host in named if not allowed.allows(*_split(host))})


def _source_hosts(settings: Settings) -> Iterator[str]:
    """Yield the hosts of lake and sources, with their ports where they are given."""
    endpoints = (settings.lake.options.get("aws_endpoint_url"), os.environ.get("AWS_ENDPOINT_URL"))
    yield from (_of_url(endpoint) for endpoint in endpoints if endpoint)
    if settings.lake.url.startswith("gs://"):
        yield from GOOGLE_STORAGE
    for source in (settings.heap.source, *settings.all_sources.values()):
        yield from map(_bare, source.hosts())


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


def _api_hosts(settings: Settings) -> Iterator[tuple[str, str]]:
    if settings.heap_query is not None:
        yield "heap_query", _of_url(settings.heap_query.url)
    if settings.labels is not None:
        for name, environment in settings.labels.environments.items():
            yield f"labels.environments.{name}", _of_url(environment.url)
    for name, report in settings.reports.items():
        for index, output in enumerate(report.outputs):
            if output.kind == "email":
                yield f"reports.{name}.outputs[{index}]", f"{output.host}:{output.port}"


def _cluster_hosts(settings: Settings) -> Iterator[tuple[str, str]]:
    engine = settings.identity.engine
    if not isinstance(engine, str) and isinstance(engine.spark, DataprocSpark | DatabricksSpark):
        yield "identity.engine.spark", _of_url(engine.spark.url)


def _bare(host: str) -> str:
    return _of_url(host) if "://" in host else host


def _of_url(url: str) -> str:
    host, port = host_and_port(url)
    return f"{host}:{port}" if port else host


def _split(host: str) -> tuple[str, int | None]:
    name, colon, port = host.rpartition(":")
    return (name, int(port)) if colon and _PORT.fullmatch(port) else (host, None)
