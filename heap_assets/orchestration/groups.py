"""The assets of a deployment by the group that they are in, and the teams that own them."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

import dagster as dg

from heap_assets.errors import SettingsError
from heap_assets.project import Project
from heap_assets.tables import AUDIENCES

_TEAMS: Mapping[str, str] = {
    AUDIENCES: "team:marketing",
    "analytics": "team:product",
    "heap_connect": "team:engineering",
    "heap_events": "team:product",
    "heap_users": "team:product",
    "inbox": "team:engineering",
    "identity": "team:data",
    "privacy": "team:data",
    "profiles": "team:data",
    "models": "team:data",
    "publish": "team:data",
    "labels": "team:product",
    "reports": "team:data",
    "reverse_etl": "team:marketing",
    "signals": "team:marketing",
    "status": "team:data",
    "sync": "team:marketing",
    "unified": "team:data",
}
"""Owners by asset or group (features.md G67) where the settings name none."""
_OF_SOURCES = "team:revops"
"""Of the warehouse and other sources: CRM, billing, support."""


class Groups:
    """The asset keys of each group. Sensors and jobs select keys: other deployments may use the same group names."""

    def __init__(self, project: Project, assets: Iterable[dg.AssetsDefinition | dg.AssetSpec]) -> None:
        self._names = project.names
        self._keys: dict[str, list[dg.AssetKey]] = {}
        for asset in assets:
            for spec in asset.specs if isinstance(asset, dg.AssetsDefinition) else [asset]:
                self._keys.setdefault(spec.group_name or "", []).append(spec.key)

    def keys(self) -> frozenset[dg.AssetKey]:
        """Return the keys of all assets."""
        return frozenset(key for keys in self._keys.values() for key in keys)

    def selection(self, *groups: str) -> dg.AssetSelection:
        """Return the assets of groups, by their names in the settings."""
        names = map(self._names.group, groups)
        return dg.AssetSelection.assets(*(key for name in names for key in self._keys.get(name, ())))

    def selections(self, *groups: str, most: int) -> list[dg.AssetSelection]:
        """Return the assets of groups in selections of at most so many, one of none if there are none."""
        keys = [key for name in map(self._names.group, groups) for key in self._keys.get(name, ())]
        return [dg.AssetSelection.assets(*keys[at : at + most]) for at in range(0, max(len(keys), 1), most)]

    def check_names(self, project: Project) -> None:
        """Raise SettingsError if owners or alerts are chosen by a group, or an asset, that there is not."""
        groups = {self._names.plain_group(group) for group in self._keys}
        selectable = groups | {self._names.path(key.path) or "" for key in self.keys()}
        for name in project.settings.run.owners:
            if not (selectable & {name} or any(sign in name for sign in "*?[") or "/" in name):
                raise SettingsError(f"run.owners names {name!r}, which is no asset and no group: {_listed(groups)}")
        for number, alert in enumerate(project.settings.alerts):
            for name in alert.groups:
                if name not in groups:
                    raise SettingsError(f"alerts.{number}.groups names {name!r}, which is no group: {_listed(groups)}")


def owners_of(project: Project, path: str, group: str) -> list[str]:
    """Return the owners of an asset: `run.owners` by asset, pattern or group, else `run.owner`, else the usual team."""
    run = project.settings.run
    for name, owners in run.owners.items():
        if fnmatchcase(path, name) or group == name:
            return owners
    if run.owner is not None:
        return [run.owner]
    return [_TEAMS.get(path) or _TEAMS.get(group) or _OF_SOURCES]


def _listed(groups: Iterable[str]) -> str:
    return ", ".join(sorted(groups))
