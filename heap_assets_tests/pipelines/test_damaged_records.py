"""Each record that the platform keeps beside its tables, damaged: it is named or made anew, and stops who needs it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest

from heap_assets.activation import connector_of, forget, runs
from heap_assets.alerts.channels import WebhookChannel
from heap_assets.alerts.message import Alarm, Kind, Message
from heap_assets.alerts.outbox import Outbox
from heap_assets.demo.server_process import ServerProcess
from heap_assets.errors import DamagedFileError, HeapAssetsError
from heap_assets.orchestration.definitions import build_definitions
from heap_assets.pipelines import delivery
from heap_assets.pipelines.catalogue import columns_since, note_changes
from heap_assets.pipelines.people import identity_of_day, profiles_of_day
from heap_assets.pipelines.sync_gate import due_days
from heap_assets.project.project import Project
from heap_assets.quality import result_store
from heap_assets.tables import GRAPH
from heap_assets_tests.pipelines.delivery_fixtures import (
    Worlds,
    at_three_in_the_morning,
    base,
    heap,
    heap_process,
    segment,
    segment_process,
    worlds,
)
from heap_assets_tests.pipelines.delivery_world import DAY, WRITE_KEY, World

__all__ = ["at_three_in_the_morning", "base", "heap", "heap_process", "segment", "segment_process", "worlds"]

CONTENTS = [b"{", b"[]", b"", b"null", b"{}", b"\xff"]
WHOLE = "HEAP_ASSETS_LONG" in os.environ
SYNCS = """
heap_user_properties: {{properties: {{Plan: plan}}}}
heap_events: {{source: orders, event_name: Ordered, properties: {{Total: total}}}}
segment_track: {{url: '{segment}', write_key: {key}, since: beginning, columns: [plan]}}
"""


def operations(project: Project) -> dict[str, Callable[[], object]]:
    """Everything that reads records, as schedules, runs and commands do."""
    done: dict[str, Callable[[], object]] = {
        "definitions": lambda: build_definitions(project),
        "catalogue": lambda: (note_changes(project), columns_since(project)),
        "identity": lambda: identity_of_day(project, DAY),
        "alerts": lambda: _outbox(project).send_if_new(
            Message("A run failed", (Alarm(Kind.RUN_FAILED, "other", "failed"),))
        ),
        "report": lambda: result_store.newest(project.lake.store),
    }
    for name in project.settings.sync:
        done[f"days of {name}"] = lambda name=name: due_days(project, name)
        done[f"plan of {name}"] = lambda name=name: delivery.plan(project, name, DAY)
        done[f"run of {name}"] = lambda name=name: delivery.send(project, name, DAY, "again")
        done[f"runs of {name}"] = lambda name=name: [
            runs(project.lake.store, s.folder) for s in connector_of(project, name).specs()
        ]
    return done


def _outbox(project: Project) -> Outbox:
    return Outbox(project.lake.store, [WebhookChannel(url="http://127.0.0.1:9/in")], {})


@pytest.fixture
def world(worlds: Worlds, heap: ServerProcess, segment: ServerProcess) -> World:
    made = worlds(SYNCS.format(segment=segment.base_url, key=WRITE_KEY))
    note_changes(made.project)
    for name in made.project.settings.sync:
        delivery.send(made.project, name, DAY, "first", delivery.RunOptions(confirmed=True))
    _outbox(made.project).send_if_new(Message("A run failed", (Alarm(Kind.RUN_FAILED, "profiles", "failed"),)))
    forget(made.lake.store, connector_of(made.project, "heap_user_properties").spec(), "nobody@x.example", "gdpr")
    return made


def test_a_damaged_record_stops_only_who_needs_it(world: World) -> None:
    root = Path(world.lake.store.url)
    kinds = {_kind(path.relative_to(root)): path for path in sorted(root.rglob("*")) if path.is_file()}
    records = {kind: path for kind, path in kinds.items() if kind.startswith("_")}
    wrong = []
    for number, (kind, path) in enumerate(records.items()):
        if not path.exists():  # resolving anew replaces the state whole
            continue
        whole = path.read_bytes()
        for content in CONTENTS if WHOLE else [CONTENTS[number % 2]]:
            path.unlink(missing_ok=True)  # the file of the base may be the same
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            for name, operation in operations(world.project).items():
                try:
                    operation()
                except HeapAssetsError as error:
                    if "damaged" not in str(error):
                        wrong.append(f"{kind} {content!r} {name}: {error}")
                except Exception as error:
                    wrong.append(f"{kind} {content!r} {name}: {type(error).__name__} {str(error)[:100]}")
            path.unlink(missing_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(whole)
    assert wrong == []


def test_a_flipped_bit_in_a_table_is_named_by_who_reads_it(world: World) -> None:
    root, project = Path(world.lake.store.url), world.project
    readers: dict[str, tuple[str, Callable[[], object]]] = {
        "a sync": ("profiles", lambda: delivery.plan(project, "heap_user_properties", DAY)),
        "profiles": ("heap/users", lambda: profiles_of_day(project, DAY)),
        "who asks for identities": ("identity/graph", lambda: profiles_of_day(project, DAY)),
    }
    for reader, (asset, read) in readers.items():
        read()
        with _flipped(root / asset / f"{DAY}.parquet") as path, pytest.raises(DamagedFileError) as named:
            read()
        assert f"{path} is damaged" in str(named.value), reader
        read()


def test_a_flipped_bit_in_extracted_links_has_them_extracted_again(world: World) -> None:
    project, graph = world.project, lambda: identity_of_day(world.project, DAY)[GRAPH].frame.collect().sort(pl.all())
    expected = graph()
    for path in sorted(Path(world.lake.store.url, "_identity", "extracted").rglob("*-links.parquet")):
        project.lake.store.delete("_identity/state.json")
        with _flipped(path):
            assert graph().equals(expected), path


@contextmanager
def _flipped(path: Path) -> Iterator[Path]:
    """Flip a bit of a file, among its rows, and put the file back."""
    whole = path.read_bytes()
    path.unlink()  # the file of the base may be the same
    path.write_bytes(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])
    yield path
    path.unlink(missing_ok=True)
    path.write_bytes(whole)


def _kind(path: Path) -> str:
    """Return what a record is, whatever its number, day or sync."""
    named = re.sub(r"(?<=_identity/extracted/).*/|(?<=_verdicts/).*/", "", str(path))
    return re.sub(r"[0-9a-f-]{8,}|\d+", "#", named)
