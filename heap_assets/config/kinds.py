"""The model of a settings file whose sections may be of the kinds that are installed here."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from pydantic import Field, create_model

from heap_assets.config.models import Settings
from heap_assets.config.sync import SyncSettings, sync_section
from heap_assets.config.warehouse import SourceName, SourceSettings, TargetName, TargetSettings, one_of


class Kinds(NamedTuple):
    """The models of all kinds that sections of the settings may be of."""

    syncs: tuple[type[SyncSettings], ...]
    sources: tuple[type[SourceSettings], ...]
    targets: tuple[type[TargetSettings], ...]


@cache
def settings_model(kinds: Kinds) -> type[Settings]:
    """Return the model of a settings file whose sections may be of these kinds."""
    source, target = one_of(kinds.sources), one_of(kinds.targets)
    model = create_model(
        "Settings",
        __base__=Settings,
        warehouse=(source | None, _like("warehouse")),
        sources=(dict[SourceName, source], _like("sources")),  # type: ignore[valid-type]
        sync=(sync_section(kinds.syncs), _like("sync")),
        publish=(dict[TargetName, target], _like("publish")),  # type: ignore[valid-type]
    )
    model.sync_kinds = kinds.syncs
    return model


def _like(name: str) -> Any:
    """Return a field with the default and description of :class:`Settings`, for another annotation."""
    field = Settings.model_fields[name]
    return Field(default=field.default, description=field.description)
