"""Labels (definitions of events) as a reviewed file, held against environments: differences, a plan, applying it.

A label is its name and what the environment knows of it besides, whatever that is. Ids and times that only an
environment knows are no part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Protocol
from urllib.parse import quote, urlsplit

from heap_assets.config import LabelEnvironment, LabelsSettings
from heap_assets.errors import SettingsError, SourceError
from heap_assets.heap_api.calls import JsonApi, member
from heap_assets.http_client import AllowedHosts
from heap_assets.yaml_core import core, read_yaml, write_yaml

_PAGES = 1000
_HEAD: Final = """\
# Labels of Heap: name to definition. `heap-assets labels plan ENVIRONMENT` says what applying this file would change.
"""


@dataclass(frozen=True)
class Label:
    """A label; `id` is what the environment calls it, and no part of it."""

    name: str
    definition: Mapping[str, Any]
    id: str = field(default="", compare=False)


@dataclass(frozen=True)
class Change:
    """What would make a label of one side as on the other: `members` are those that differ."""

    action: Literal["create", "update", "delete"]
    name: str
    label: Label
    members: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.action} {self.name}" + (f": {', '.join(self.members)}" if self.members else "")


class LabelStore(Protocol):
    """Where labels are: an environment, or a file."""

    def labels(self) -> dict[str, Label]:
        """Return all labels by name."""

    def make(self, change: Change) -> None:
        """Carry out one change."""


def changes_between(target: Mapping[str, Label], current: Mapping[str, Label], *, prune: bool = False) -> list[Change]:
    """Return what makes `current` as `target`, by name; labels that are not wanted stay unless `prune`.

    >>> a, b = Label("A", {"x": 1}), Label("A", {"x": 2}, id="7")
    >>> [str(change) for change in changes_between({"A": a}, {"A": b, "B": b}, prune=True)]
    ['update A: x', 'delete B']
    """
    changes = []
    for name in sorted({*target, *current}):
        own, other = target.get(name), current.get(name)
        if own is None:
            if prune and other is not None:
                changes.append(Change("delete", name, other))
        elif other is None:
            changes.append(Change("create", name, own))
        elif own != other:
            both = {*own.definition, *other.definition}
            members = sorted(key for key in both if own.definition.get(key) != other.definition.get(key))
            changes.append(Change("update", name, Label(name, own.definition, other.id), tuple(members)))
    return changes


def apply_changes(
    store: LabelStore, changes: Iterable[Change], report: Callable[[Change], None] = lambda change: None
) -> int:
    """Carry out changes one after the other and return how many; the first that is refused ends it.

    What was done stays: the next plan has what is left.
    """
    count = 0
    for change in changes:
        store.make(change)
        report(change)
        count += 1
    return count


def read_labels(file: Path) -> dict[str, Label]:
    """Read a file of labels.

    Raises
    ------
    SettingsError
        Naming the file, and the label that is no mapping.
    """
    if not file.is_file():
        raise SettingsError(f"labels.file is {str(file)!r}, which does not exist: `heap-assets labels pull` writes it")
    document = core(read_yaml(file.read_text(encoding="utf-8"), file.name))
    labels = document.get("labels") if isinstance(document, dict) else None
    if not isinstance(labels, dict):
        raise SettingsError(f"{file.name} has no mapping `labels:` of names to definitions")
    for name, definition in labels.items():
        if not isinstance(definition, dict):
            raise SettingsError(f"{file.name}: labels.{name} is no mapping of what the label is")
    return {str(name): Label(str(name), definition) for name, definition in labels.items()}


def write_labels(file: Path, labels: Mapping[str, Label]) -> None:
    """Write a file of labels, sorted by name."""
    document = {"labels": {name: dict(labels[name].definition) for name in sorted(labels)}}
    file.write_text(_HEAD + write_yaml(document), encoding="utf-8")


class FileLabels:
    """Labels in a file, as an environment of its own: for reviews without any API."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def labels(self) -> dict[str, Label]:
        """Return the labels of the file; none if there is no file yet."""
        return read_labels(self._file) if self._file.exists() else {}

    def make(self, change: Change) -> None:
        """Write the file with one change."""
        labels = self.labels()
        if change.action == "delete":
            labels.pop(change.name, None)
        else:
            labels[change.name] = change.label
        write_labels(self._file, labels)


class HttpLabels:
    """Labels of one environment, by the calls of the settings."""

    def __init__(self, name: str, settings: LabelsSettings, allowed: AllowedHosts) -> None:
        self._where = f"labels.environments.{name}"
        self._environment: LabelEnvironment = settings.environments[name]
        self._api, self._allowed = settings.api, allowed

    def labels(self) -> dict[str, Label]:
        """Return the labels of the environment.

        Raises
        ------
        SourceError
            If it cannot be read as the settings describe it, or has two labels of one name.
        """
        api, labels = self._api, dict[str, Label]()
        url: str | None = self._url(api.list_path)
        with self._calls() as calls:
            for _ in range(_PAGES):
                document = calls.call("GET", str(url))
                for row in _listed(member(document, api.rows, "labels.api.rows")):
                    label = self._label(row)
                    if label.name in labels:
                        raise SourceError(f"{self._where} has two labels {label.name!r}: rename one of them there")
                    labels[label.name] = label
                url = self._next(document)
                if url is None:
                    return labels
        raise SourceError(f"{self._where} has more than {_PAGES:,} pages of labels")

    def make(self, change: Change) -> None:
        """Carry out one change."""
        api, label = self._api, change.label
        body = {**label.definition, api.name: label.name}
        with self._calls() as calls:
            if change.action == "create":
                calls.call("POST", self._url(api.create_path), body)
            elif change.action == "update":
                calls.call(api.update_method, self._url(api.update_path, label.id), body)
            else:
                calls.call("DELETE", self._url(api.delete_path, label.id))

    def _calls(self) -> JsonApi:
        token = self._environment.token.get_secret_value()
        return JsonApi(self._where, self._api.authorization.replace("{token}", token), self._allowed)

    def _url(self, path: str, label_id: str = "") -> str:
        for name, value in {**self._environment.values, "id": label_id}.items():
            path = path.replace(f"{{{name}}}", quote(value, safe=""))
        return self._environment.url.rstrip("/") + path

    def _next(self, document: Any) -> str | None:
        if self._api.next_page is None:
            return None
        address = document
        for part in self._api.next_page.split("."):
            address = address.get(part) if isinstance(address, dict) else None
        if not address:
            return None
        own, other = urlsplit(self._environment.url), urlsplit(str(address))
        if not other.netloc:
            return self._url(str(address)) if str(address).startswith("/") else None
        if (own.scheme, own.netloc) != (other.scheme, other.netloc):
            raise SourceError(f"{self._where}: the next page lies on another host; the key was not sent there")
        return str(address)

    def _label(self, row: Mapping[str, Any]) -> Label:
        api = self._api
        if not isinstance(row.get(api.name), str):
            raise SourceError(f"{self._where}: a label has no {api.name!r}; labels.api.name says where names are")
        left_out = {api.id, api.name, *api.ignore}
        definition = {name: value for name, value in row.items() if name not in left_out}
        return Label(row[api.name], definition, str(row.get(api.id, "")))


def _listed(rows: Any) -> Sequence[Mapping[str, Any]]:
    if not isinstance(rows, list) or any(not isinstance(row, dict) for row in rows):
        raise SourceError("labels.api.rows does not lead to a list of labels")
    return rows
