"""The names of a deployment's definitions, unique in a code location or instance that it shares with others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Names:
    """Prefixes of a deployment's names in Dagster; without any, names are those of the tables and of the steps.

    >>> names = Names(("prod",), "prod_", "prod_")
    >>> names.key("heap/sessions"), names.group("identity"), names.name("retention")
    (['prod', 'heap', 'sessions'], 'prod_identity', 'prod_retention')
    >>> names.path(["prod", "heap", "sessions"]), names.path(["dbt", "contacts"])
    ('heap/sessions', None)
    """

    key_prefix: tuple[str, ...] = ()
    """First parts of every asset key."""
    group_prefix: str = ""
    name_prefix: str = ""
    """Of steps, jobs, schedules, sensors, pools, resources, dynamic partitions, and tags of runs."""

    def key(self, asset: str) -> list[str]:
        """Return the parts of the asset key of a lake asset (`heap/events/signup`)."""
        return [*self.key_prefix, *asset.split("/")]

    def path(self, key: Sequence[str]) -> str | None:
        """Return the lake asset that an asset key of this deployment names; None for a key of others."""
        prefix = [*self.key_prefix]
        if [*key[: len(prefix)]] != prefix:
            return None
        return "/".join(key[len(prefix) :])

    def group(self, group: str) -> str:
        """Return the name of an asset group."""
        return f"{self.group_prefix}{group}"

    def plain_group(self, group: str) -> str:
        """Return the name that settings have for an asset group of this deployment."""
        return group.removeprefix(self.group_prefix)

    def name(self, name: str) -> str:
        """Return the name of anything that Dagster wants to be unique in a code location or an instance."""
        return f"{self.name_prefix}{name}"


PLAIN_NAMES = Names()
"""Of a deployment that shares its code location and its instance with no other."""
