"""The component by which a project of `dg` takes a deployment in: `type: heap_assets.HeapAssetsComponent`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import dagster as dg
import pydantic
from dagster.components import Scaffolder, ScaffoldRequest
from dagster.components.component_scaffolding import scaffold_component

from heap_assets.errors import SettingsError
from heap_assets.orchestration.definitions import load_definitions
from heap_assets.project import Environment, Names, check_apart, load_settings

_NAME = re.compile(r"[A-Za-z0-9_]*")
_KEY_PART = re.compile(r"[A-Za-z0-9_.-]+")
_LONGEST_PREFIX = 40
_ALONE = "heap_assets_"
"""Before the names of jobs, sensors and resources if there is no prefix: the project may have a job `retention`."""


_SETTINGS = (
    "Path of heap_assets.yaml, relative to the folder of defs.yaml or else to the root of the project. Relative paths "
    "in that file are relative to the file itself."
)
_KEY_PREFIX = (
    "First parts of every asset key: with `prod`, heap/sessions is prod/heap/sessions. Joined by `_`, they also "
    "precede the names of jobs, schedules, sensors, pools and resources. Two components need two prefixes."
)
_GROUP_PREFIX = "Precedes the names of asset groups: with `prod_`, identity is prod_identity."
KeyPrefix = str | list[str]


class Attributes(dg.Model):
    """The attributes of a component in defs.yaml, which are also the options of `dg scaffold defs`."""

    # Dagster shows the description of a resolver in schemas, and that of a field as help of an option
    settings: Annotated[str, dg.Resolver.default(description=_SETTINGS, examples=["heap/prod/heap_assets.yaml"])] = (
        pydantic.Field(default="heap_assets.yaml", description=_SETTINGS)
    )
    asset_key_prefix: Annotated[
        KeyPrefix, dg.Resolver.default(description=_KEY_PREFIX, examples=["prod", ["heap", "eu"]])
    ] = pydantic.Field(default="", description=_KEY_PREFIX)
    group_prefix: Annotated[str, dg.Resolver.default(description=_GROUP_PREFIX, examples=["prod_"])] = pydantic.Field(
        default="", description=_GROUP_PREFIX
    )


class HeapAssetsScaffolder(Scaffolder[Attributes]):
    """Writes the defs.yaml of a component."""

    @classmethod
    def get_scaffold_params(cls) -> type[Attributes]:
        """Return the attributes: each is an option of `dg scaffold defs`."""
        return Attributes

    def scaffold(self, request: ScaffoldRequest[Attributes]) -> None:
        """Write defs.yaml with the attributes that were chosen."""
        chosen = {"settings": request.params.settings, **request.params.model_dump(exclude_defaults=True)}
        scaffold_component(request, chosen)


@dg.scaffold_with(HeapAssetsScaffolder)
class HeapAssetsComponent(dg.Component, dg.Resolvable, Attributes):
    """Heap's tables, identities, profiles and syncs of one heap_assets.yaml, as assets of this project.

    Brings assets, checks, jobs, schedules and sensors, and one resource of its own. The project's resources, I/O
    managers and executor stay as they are. Several of them, each with settings, lake and prefix of its own, go into
    one code location.

    >>> from heap_assets import HeapAssetsComponent
    >>> HeapAssetsComponent(settings="heap/prod/heap_assets.yaml", asset_key_prefix="prod").group_prefix
    ''
    """

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Return the definitions of the settings.

        Raises
        ------
        SettingsError
            There is no settings file, or one message naming the key, its value and what was expected.
        """
        file = _settings_file(self.settings, context.path, context.project_root)
        names = names_of(self.asset_key_prefix, self.group_prefix)
        try:
            check_apart(Environment(self.settings, names, load_settings(file)), _neighbours(context))
            built = load_definitions(file, names)
        except SettingsError as error:
            raise SettingsError(f"{self.settings}: {error}") from error  # two environments have files of one name
        _built(context)[context.path] = Environment(self.settings, names, load_settings(file))
        return built


_LOADS: dict[Path, tuple[object, dict[Path, Environment]]] = {}
"""Root of a project to its newest load, and the environments that were built in it, by their folders."""


def _built(context: dg.ComponentLoadContext) -> dict[Path, Environment]:
    tree, environments = _LOADS.get(context.project_root, (None, {}))
    if tree is not context.component_tree:
        environments = {}
        _LOADS[context.project_root] = context.component_tree, environments
    return environments


def _neighbours(context: dg.ComponentLoadContext) -> list[Environment]:
    """Return the environments of this load that were built before: the last one is held against all."""
    return [environment for path, environment in _built(context).items() if path != context.path]


def names_of(asset_key_prefix: KeyPrefix, group_prefix: str) -> Names:
    """Return the names of a component's definitions.

    >>> names_of("prod", "")
    Names(key_prefix=('prod',), group_prefix='', name_prefix='prod_')
    >>> names_of(["heap", "eu-west"], "eu_").name("retention"), names_of([], "").name("retention")
    ('heap_eu_west_retention', 'heap_assets_retention')

    Raises
    ------
    SettingsError
        Naming the attribute, if Dagster has no such keys or groups.
    """
    parts = asset_key_prefix.split("/") if isinstance(asset_key_prefix, str) else asset_key_prefix
    parts = [part for part in parts if part]
    if not all(_KEY_PART.fullmatch(part) for part in parts):
        raise SettingsError(f"asset_key_prefix is {asset_key_prefix!r}; expected: letters, digits, `_`, `-` and `.`")
    if not _NAME.fullmatch(group_prefix):
        raise SettingsError(f"group_prefix is {group_prefix!r}; expected: letters, digits and `_`")
    name_prefix = re.sub(r"\W", "_", "_".join(parts)) + "_" if parts else _ALONE
    if len(name_prefix) > _LONGEST_PREFIX:
        raise SettingsError(f"asset_key_prefix is longer than {_LONGEST_PREFIX} characters: {asset_key_prefix!r}")
    return Names(tuple(parts), group_prefix, name_prefix)


def _settings_file(settings: str, *folders: Path) -> Path:
    files = [folder / settings for folder in folders]
    for file in files:
        if file.is_file():
            return file.absolute()
    raise SettingsError(
        f"settings is {settings!r}, but there is no {' and no '.join(map(str, files))}: `heap-assets init` writes one "
        "in the current folder"
    )
