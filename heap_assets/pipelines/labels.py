"""Labels of Heap: the reviewed file and the environments of the settings, compared and brought together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from heap_assets.config import LabelsSettings
from heap_assets.errors import SettingsError, no_such
from heap_assets.heap_api import Change, FileLabels, HttpLabels, LabelStore, changes_between, read_labels
from heap_assets.project import Project

FILE = "file"
"""What the reviewed file is called where an environment may be named."""


@dataclass(frozen=True)
class Drift:
    """How an environment differs from the file: what applying it would change, and labels that the file lacks."""

    labels: int
    changes: tuple[Change, ...]
    unknown: tuple[str, ...]

    @property
    def in_sync(self) -> bool:
        """Whether environment and file say the same."""
        return not self.changes and not self.unknown


def labels_settings(project: Project) -> LabelsSettings:
    """Return the section `labels:`; SettingsError without one."""
    if project.settings.labels is None:
        raise SettingsError("there is no `labels:` section: labels are off unless their environments are written down")
    return project.settings.labels


def label_store(project: Project, name: str) -> LabelStore:
    """Return the labels of an environment, or `file`; SettingsError for a name that there is not."""
    settings = labels_settings(project)
    if name == FILE:
        return FileLabels(Path(settings.file))
    if name not in settings.environments:
        raise no_such("environment of labels", name, [*settings.environments, FILE])
    return HttpLabels(name, settings, project.allowed_hosts)


def plan_of_labels(project: Project, environment: str, *, prune: bool = False) -> list[Change]:
    """Return what makes an environment as the file says; labels that the file lacks stay unless `prune`."""
    labels_of_file = read_labels(Path(labels_settings(project).file))
    return changes_between(labels_of_file, label_store(project, environment).labels(), prune=prune)


def label_differences(project: Project, one: str, other: str) -> list[Change]:
    """Return what would make `other` as `one` is; each is an environment, or `file`."""
    return changes_between(label_store(project, one).labels(), label_store(project, other).labels(), prune=True)


def drift_of_labels(project: Project, environment: str) -> Drift:
    """Hold an environment against the file."""
    labels_of_file = read_labels(Path(labels_settings(project).file))
    current = label_store(project, environment).labels()
    changes = tuple(changes_between(labels_of_file, current))
    return Drift(len(current), changes, tuple(sorted(set(current) - set(labels_of_file))))
