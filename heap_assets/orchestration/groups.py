"""The assets of a deployment by the group that they are in."""

from collections.abc import Iterable

import dagster as dg

from heap_assets.project import Project


class Groups:
    """Which assets are in which group: sensors and jobs choose by key, as others may have groups of the same name."""

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
