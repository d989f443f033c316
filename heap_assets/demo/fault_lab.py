"""Faults planted one by one on a sound company, and who was told how soon: real runs and sensors, simulated time.

A company without faults lives through its nights once. For each fault its state is copied, one more night is made with
the fault in it, and the clock is moved from trigger to trigger as sensors and schedules would: the manifests' poll, the
tick after it, the warehouse's schedule, the syncs', the hourly look at recency. After each run the alert sensors tick;
what they send goes to a real HTTP receiver.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from heap_assets import clock
from heap_assets.alerts import Kind
from heap_assets.config import settings_path
from heap_assets.demo import Company, grow, read_company, show_warehouse, write_company
from heap_assets.demo.fault_inbox import Inbox, receiver
from heap_assets.demo.nights import DemoRun
from heap_assets.demo.plants import Plant
from heap_assets.demo.server_process import ServerProcess, running_server
from heap_assets.demo.tamper import Dump, change_warehouse
from heap_assets.orchestration.in_process import instance_of
from heap_assets.quality import result_store
from heap_assets.yaml_core import core, read_yaml

_TICK = timedelta(seconds=30)
_NIGHTS_IN_RESERVE = 4
_KINDS = [kind.value for kind in Kind if kind is not Kind.ALIVE]
_LATE, _SILENT, _DEAD_CHANNEL = "late", "silent", "dead_channel"
_OWN_WORDS = (_LATE, _SILENT, _DEAD_CHANNEL)


@dataclass(frozen=True)
class Outcome:
    """What became of one fault; `kind` and `minutes` are of the first alert about it, None if nobody was told."""

    plant: Plant
    seen: bool
    kind: str | None
    minutes: float | None
    severity: str
    others: tuple[str, ...] = ()

    @property
    def is_alerted(self) -> bool:
        """Whether the expected alert arrived."""
        return self.minutes is not None


@dataclass
class Lab:
    """A sound company, its lake and its Dagster home, to be copied for each fault."""

    folder: Path
    heap: ServerProcess
    inbox: Inbox
    segment_url: str
    say: Callable[[str], None]
    quiet_alarms: list[str] = field(default_factory=list)

    @property
    def base(self) -> Path:
        return self.folder / "base"

    def live(self, *, people: int, days: int, seed: int) -> None:
        """Write the company and live through its nights; what is told of them is told of sound data."""
        until = datetime.now(UTC).date() - timedelta(days=1 + _NIGHTS_IN_RESERVE)
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.base / "home").mkdir(parents=True)
        instance = resources.files("heap_assets.config").joinpath("dagster.yaml").read_text()
        (self.base / "home" / "dagster.yaml").write_text(instance)
        company = write_company(self.base / "demo", people=people, days=days, seed=seed, until=until, faults=False)
        with self._stage(self.base, {}) as stage:
            stage.run.company = company
            stage.run.nights()
            stage.at(company.until + timedelta(days=1), hour=5)
            stage.hear_all()
            self.quiet_alarms = [f"{a['subject']}: {a['about']} {a['partition'] or ''}" for a in self.inbox.wrong()]
            stage.keep_cursor()

    def plant(self, plant: Plant) -> Outcome:
        """Copy the company, plant one fault, and live until somebody is told or time is up."""
        folder = self.folder / "now"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.base / "demo", folder / "demo", copy_function=os.link)
        shutil.copytree(self.base / "home", folder / "home")
        self.heap.fail()
        self.inbox.forget()
        with self._stage(folder, plant.settings) as stage:
            return stage.live_with(plant)

    @contextmanager
    def _stage(self, folder: Path, changes: Mapping[str, Any]) -> Iterator[_Stage]:
        settings = core(read_yaml(settings_path().read_text(), settings_path().name))
        settings["alerts"] = [{"kind": "webhook", "name": "first", "url": self.inbox.url, "on": _KINDS}]
        settings["alerts"] += [
            {"kind": "webhook", "name": changes[word], "url": "http://127.0.0.1:9/", "on": _KINDS}
            for word in (_DEAD_CHANNEL,)
            if word in changes
        ]
        for table in settings["warehouse"]["tables"].values():
            table["full_read_days"] = 1  # what leaves no trace in `updated_at` would be seen with the next whole read
        for key, value in changes.items():
            if key not in _OWN_WORDS:
                section, name = key.split(".")
                settings[section][name] = value
        path = folder / "heap_assets.yaml"
        path.write_text(yaml.safe_dump(settings, sort_keys=False))
        shutil.copy(settings_path().parent / "heap_catalogue.yaml", folder / "heap_catalogue.yaml")
        variables = {
            "HEAP_ASSETS_SETTINGS": str(path),
            "HEAP_ASSETS_DEMO": str(folder / "demo"),
            "HEAP_BASE_URL": self.heap.base_url,
            "SEGMENT_BASE_URL": self.segment_url,
            "DAGSTER_HOME": str(folder / "home"),
            clock.VARIABLE: "",
        }
        with _environment(variables), instance_of(folder / "home") as instance:
            run = DemoRun(folder / "demo", self.heap, lambda _: None, instance=instance)
            yield _Stage(run, self.inbox, folder / "cursor.json", self.base / "cursor.json")


@dataclass
class _Stage:
    """One copy of the company, its simulated clock, and the alert sensors that watch it."""

    run: DemoRun
    inbox: Inbox
    cursor_file: Path
    base_cursor: Path
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    cursor: str | None = None
    planted_at: datetime | None = None
    expected: Plant | None = None
    told_at: datetime | None = None
    told_as: str | None = None

    def live_with(self, plant: Plant) -> Outcome:
        self.expected = plant
        self.cursor = self.base_cursor.read_text()
        if not plant.nights:
            self.run.open()
            company = self.run.company = read_company(self.run.folder)
            self.at(company.until + timedelta(days=1), hour=5)
            self._special(plant, company.until)
        for _ in range(plant.nights):
            company = grow(self.run.folder, 1)
            self.run.company = company
            self._night(plant, company, company.until)
            if self.told_at:
                break
        self._watch(plant.watch_hours)
        return self._outcome(plant)

    def _night(self, plant: Plant, company: Company, day: date) -> None:
        dump = Dump(company, day)
        written = datetime.fromtimestamp(dump.manifest_path.stat().st_mtime, UTC)
        if plant.dump:
            plant.dump(dump)
        self.run.heap.fail(*plant.orders)
        self.run.open()
        self._move(written)
        self.planted_at = self.planted_at or written
        steps = [
            (self._next_poll, lambda: self.run.land(day)),
            (self._next_tick, lambda: self._build(day)),
            (lambda: self._next_hour(minute=30), lambda: self._read_warehouse(plant, day)),
            (self._next_tick, lambda: self.run.resolve(day)),
            (lambda: self._next_hour(minute=7), self._look_at_time),
            (lambda: self._next_hour(minute=15), lambda: self._send(day)),
        ]
        for when, do in steps:
            self._step(when(), do)
            if self.told_at:
                return
        self._special(plant, day)

    def _step(self, when: datetime, do: Callable[[], None]) -> None:
        """Do something when it is due; a run takes as long as it really takes, then the alert sensor ticks."""
        self._move(when)
        started = time.monotonic()
        do()
        self._move(self.now + timedelta(seconds=time.monotonic() - started) + _TICK)
        self.hear_all()

    def _build(self, day: date) -> None:
        self.run.build_touched(day)
        self.run.read_users(day)

    def _read_warehouse(self, plant: Plant, day: date) -> None:
        if _LATE in plant.settings:
            return
        assert self.run.company is not None
        show_warehouse(self.run.folder, day)
        change_warehouse(self.run.company, *plant.sql)
        self.run.run_warehouse(day)

    def _send(self, day: date) -> None:
        self.run.know_users()
        for name in self.run.project.settings.sync:
            self.run.send(name, day)

    def _look_at_time(self) -> None:
        self.run.judge_recency()
        self.tick("standing_alerts")

    def _special(self, plant: Plant, day: date) -> None:
        """Do what is no part of a night: partitions rewritten by a stranger, a day asked for late, broken machinery."""
        if plant.rewrite:
            self.planted_at = self.now
            lake, rows = self.run.project.lake, self.run.project.lake.scan(plant.asset, str(day)).collect()
            lake.write(plant.asset, str(day), plant.rewrite(rows))
            self._step(self._next_tick(), lambda: self._check_again(plant.asset, day))
        elif _LATE in plant.settings:
            self._step(self.now + timedelta(days=2), lambda: self._late(plant.asset, day))
        elif _SILENT in plant.settings:
            self.planted_at = self.now
            self.run.location.silence_daemon(plant.settings[_SILENT])
            self._step(self._next_hour(minute=7), self._look_at_time)
        elif plant.found_by == "tick_failed":
            self.planted_at = self.now
            self.run.location.tick_manifests()
            self._step(self._next_hour(minute=7), self._look_at_time)

    def _late(self, asset: str, day: date) -> None:
        self.run.run(str(day), [asset])

    def _check_again(self, asset: str, day: date) -> None:
        """Run the checks of one partition, as the button in the UI does."""
        self.run.location.evaluate_checks(asset, str(day), except_for=("newest_row_is_recent",))

    def _watch(self, hours: int) -> None:
        for _ in range(hours):
            if self.told_at:
                return
            self._step(self._next_hour(minute=7), self._look_at_time)

    def hear_all(self) -> None:
        """Tick the sensor over finished runs until it has looked into all of them."""
        previous_cursor = ""
        while previous_cursor != self.cursor:
            previous_cursor = self.cursor or ""
            self.cursor = self.tick("run_alerts", self.cursor)

    def tick(self, sensor: str, cursor: str | None = None) -> str | None:
        """Evaluate an alert sensor as the daemon does, and look at what arrived."""
        cursor = self.run.location.tick(sensor, cursor)
        self._look()
        return cursor

    def keep_cursor(self) -> None:
        """Remember up to where runs were told."""
        self.cursor_file.write_text(self.cursor or "")

    def at(self, day: date, hour: int) -> None:
        """Set the clock."""
        self._move(datetime.combine(day, datetime.min.time(), UTC) + timedelta(hours=hour))

    def _look(self) -> None:
        plant = self.expected
        if plant is None or self.told_at:
            return
        for alarm in self.inbox.wrong():
            if (alarm["subject"], alarm["about"]) == (plant.asset, plant.found_by):
                self.told_at, self.told_as = self.now, str(alarm["kind"])

    def _outcome(self, plant: Plant) -> Outcome:
        judged = [v for v in result_store.newest(self.run.project.lake.store) if v.asset == plant.asset]
        results = [v for v in judged if v.check == plant.found_by]
        failed = [v for v in results if v.failed]
        unexpected = {f"{a['subject']}: {a['about']}" for a in self.inbox.wrong()} - {
            f"{plant.asset}: {plant.found_by}"
        }
        since = (self.told_at - self.planted_at).total_seconds() / 60 if self.told_at and self.planted_at else None
        return Outcome(
            plant,
            seen=bool(failed) or (not results and self.told_at is not None),
            kind=self.told_as,
            minutes=since,
            severity=results[0].severity.value if results else "",
            others=tuple(sorted(unexpected)),
        )

    def _move(self, when: datetime) -> None:
        self.now = when
        os.environ[clock.VARIABLE] = when.isoformat()

    def _next_poll(self) -> datetime:
        return self.now + timedelta(seconds=self.run.project.settings.heap.manifest_poll_seconds)

    def _next_tick(self) -> datetime:
        return self.now + _TICK

    def _next_hour(self, *, minute: int) -> datetime:
        this = self.now.replace(minute=minute, second=0, microsecond=0)
        return this if this > self.now else this + timedelta(hours=1)


@contextmanager
def laboratory(folder: Path, say: Callable[[str], None]) -> Iterator[Lab]:
    """Start the local servers and the receiver of alerts, and return a lab without a company yet."""
    with ExitStack() as stack:
        heap = stack.enter_context(running_server("heap", folder.with_name(folder.name + "-servers") / "heap"))
        segment = stack.enter_context(running_server("segment", folder.with_name(folder.name + "-servers") / "segment"))
        yield Lab(folder, heap, stack.enter_context(receiver()), segment.base_url, say)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
