"""Names in BigQuery: the project is part of a table's name, wherever the table lies and however it is written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date

from heap_assets.sources.warehouse.base import RelationMissingError

_PROJECT = r"(?:[^:\s`]+:)?[^.:\s`]+"
"""A project's id; older ones begin with a domain, `example.com:analytics`."""
_TABLE = re.compile(rf"(?:(?P<project>{_PROJECT})\.)?(?P<dataset>[^.:\s`]+)\.(?P<table>[^.`]+)\Z")
_DATASET = re.compile(rf"(?:(?P<project>{_PROJECT})\.)?(?P<dataset>[^.:\s`]+)\Z")
_SHARD = re.compile(r"(?P<prefix>.*[^0-9])(?P<day>[0-9]{8})\Z")


@dataclass(frozen=True)
class Dataset:
    """A dataset of a project."""

    project: str
    name: str

    @property
    def path(self) -> str:
        """Return `project.dataset`, as the client and SQL take it."""
        return f"{self.project}.{self.name}"

    def shown(self, default_project: str) -> str:
        """Write the name as settings do: without the project if that is one's own."""
        return self.name if self.project == default_project else self.path


@dataclass(frozen=True)
class Relation:
    """A table or view; `events_*` stands for the tables `events_20260101`, `events_20260102`, …"""

    dataset: Dataset
    table: str

    @property
    def path(self) -> str:
        """Return `project.dataset.table`."""
        return f"{self.dataset.path}.{self.table}"

    @property
    def is_sharded(self) -> bool:
        return self.table.endswith("*")

    def shown(self, default_project: str) -> str:
        return f"{self.dataset.shown(default_project)}.{self.table}"

    def shard(self, day: str) -> Relation:
        """Return one of the tables that `events_*` stands for."""
        return replace(self, table=self.table.removesuffix("*") + day)


def relation_of(name: str, project: str, dataset: str | None = None) -> Relation:
    """Understand `dataset.table` or `project.dataset.table`; a bare table is of `dataset`, if that is set.

    Raises
    ------
    RelationMissingError
        If the name is neither.
    """
    if dataset is not None and "." not in name:
        return Relation(dataset_of(dataset, project), name)
    parts = _TABLE.match(name)
    if parts is None:
        raise RelationMissingError(f"{name!r} is not dataset.table or project.dataset.table")
    return Relation(Dataset(parts["project"] or project, parts["dataset"]), parts["table"])


def dataset_of(name: str, project: str) -> Dataset:
    """Understand `dataset` or `project.dataset`; RelationMissingError if the name is neither."""
    parts = _DATASET.match(name)
    if parts is None:
        raise RelationMissingError(f"{name!r} is not dataset or project.dataset")
    return Dataset(parts["project"] or project, parts["dataset"])


def is_dataset(name: str, project: str) -> bool:
    """Tell `project.dataset` from `dataset.table`: datasets have no hyphens, projects of others nearly always do."""
    parts = _DATASET.match(name)
    if parts is None:
        return False
    return parts["project"] in (None, project) or bool(re.search("[-:]", parts["project"]))


def shard_of(table: str) -> tuple[str, str] | None:
    """Return prefix and day of `events_20260101`; None for names that end in no day."""
    parts = _SHARD.match(table)
    if parts is None:
        return None
    try:
        date.fromisoformat(parts["day"])
    except ValueError:
        return None
    return parts["prefix"], parts["day"]


def without_shards(tables: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str, int]]:
    """Yield name, kind and number of tables, with those that differ in a day alone as one `events_*`.

    Parameters
    ----------
    tables
        Name and kind (`TABLE`, `VIEW`) of each, in order.
    """
    listed = list(tables)
    counts: dict[str, int] = {}
    for name, kind in listed:
        if kind == "TABLE" and (shard := shard_of(name)):
            counts[shard[0]] = counts.get(shard[0], 0) + 1
    shown: set[str] = set()
    for name, kind in listed:
        shard = shard_of(name) if kind == "TABLE" else None
        if shard is None or counts[shard[0]] == 1:
            yield name, kind, 1
        elif shard[0] not in shown:
            shown.add(shard[0])
            yield f"{shard[0]}*", "SHARDED", counts[shard[0]]
