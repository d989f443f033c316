"""What sets one Heap environment apart from another: its app, its names in Dagster, its lake, role and schemas.

A lake remembers whose it is. What holds state keeps its name: Dagster's history lies under the asset keys, and readers
of a warehouse know the schema. Two environments of one code location share neither a lake, nor a role, nor a schema.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from heap_assets.config import Settings
from heap_assets.errors import SettingsError
from heap_assets.project.names import Names
from heap_assets.storage import state_keys
from heap_assets.versions import version_of

if TYPE_CHECKING:
    from heap_assets.project.project import Project

ENVIRONMENT_KEY = f"{state_keys.ENVIRONMENT}/names.json"
_APP, _PREFIX, _PUBLISHED = "app_id_hash", "asset_key_prefix", "published"


@dataclass(frozen=True)
class Environment:
    """One of the environments of a code location: how it is called in messages, its names and settings."""

    title: str
    names: Names
    settings: Settings


def remember_environment(project: Project, target: str | None = None) -> None:
    """Write down whose the lake is, and where a publish target puts its tables; what is known already stays.

    Raises
    ------
    SettingsError
        If it is another's, see :func:`check_environment`.
    """
    check_environment(project)
    added: dict[str, Any] = {_APP: version_of(project.settings.heap.app_id), _PREFIX: list(project.names.key_prefix)}
    published = {target: project.settings.publish[target].container} if target is not None else {}

    def change(content: bytes | None) -> bytes | None:
        record = _parsed(content)
        merged = {**added, **record, _PUBLISHED: {**published, **record.get(_PUBLISHED, {})}}
        return None if merged == record else json.dumps(merged).encode()

    project.lake.store.update(ENVIRONMENT_KEY, change)


def check_environment(project: Project) -> None:
    """Hold the settings against what the lake remembers.

    Raises
    ------
    SettingsError
        Naming the key that was renamed although there is state, what it was, and what to do.
    """
    store = project.lake.store
    record = _parsed(store.read(ENVIRONMENT_KEY) if store.exists(ENVIRONMENT_KEY) else None)
    app, prefix = version_of(project.settings.heap.app_id), list(project.names.key_prefix)
    way = f"Rename it back, or delete {store.uri(ENVIRONMENT_KEY)} if it is meant"
    if record.get(_APP, app) != app:
        raise SettingsError(
            f"heap.app_id is another app than the one whose data lie in the lake {store.uri('')}: their people "
            "would become one. Give this environment a lake of its own"
        )
    if (former := record.get(_PREFIX, prefix)) != prefix:
        raise SettingsError(
            f"asset_key_prefix is {'/'.join(prefix)!r}, and what lies in the lake {store.uri('')} was made under "
            f"{'/'.join(former)!r}: Dagster's history, partitions and checks would begin anew. {way}"
        )
    for target, former in record.get(_PUBLISHED, {}).items():
        chosen = project.settings.publish.get(target)
        if chosen is not None and chosen.container != former:
            raise SettingsError(
                f"publish.{target} puts its tables into {chosen.container}, and put them into {former} before: its "
                f"readers would go on with old tables. Use another name of a target for another place. {way}"
            )


def check_apart(environment: Environment, neighbours: Sequence[Environment]) -> None:
    """Check that an environment shares nothing with its neighbours that one environment has for itself.

    Raises
    ------
    SettingsError
        Naming the key and the other environment.
    """
    own = dict(_claims(environment))
    for other in neighbours:
        for claim, key in _claims(other):
            if (own_key := own.get(claim)) is not None:
                kind, value = claim
                raise SettingsError(
                    f"{own_key} is {value!r}, and so is {key} of {other.title}: two Heap environments have two {kind}"
                )


def _claims(environment: Environment) -> Iterator[tuple[tuple[str, str], str]]:
    """Yield what an environment has for itself as (kind, value), with the key that says so."""
    settings = environment.settings
    yield ("prefixes", environment.names.name_prefix), "asset_key_prefix"
    yield ("lakes", settings.lake.url.rstrip("/")), "lake"
    if role := getattr(settings.heap.source, "role_arn", None):
        yield ("roles", str(role)), "heap.source.role_arn"
    for target in settings.publish:
        yield ("schemas", _place(settings, target)), f"publish.{target}"
        if views := settings.publish[target].resolved_views:
            yield ("schemas", _place(settings, target, str(views))), f"publish.{target}.resolved_views"


def _place(settings: Settings, target: str, schema: str | None = None) -> str:
    """Return where a target's tables are: no user and no password, as BI tools are told."""
    location = settings.publish[target].sql_location
    return f"{location.sqlalchemy_uri.partition('?')[0]} {location.database}.{schema or location.schema}".lower()


def _parsed(content: bytes | None) -> Mapping[str, Any]:
    if content is None:
        return {}
    try:
        record = json.loads(content)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}
