"""Stops a stage at a point, in a way, and holds what a second try makes of it against an undisturbed one."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from heap_assets_tests.torture.faults import FILE_SIZE, KINDS, LOST_ANSWER, SECRET
from heap_assets_tests.torture.stages import STAGES, copy_world
from heap_assets_tests.torture.zygote import Outcome, Zygote

ERRORS = (*(kind for kind in KINDS if kind != "SIGKILL"), LOST_ANSWER)
FILE_SIZES = (1, 2, 4, 8, 16, 32)


@dataclass
class Base:
    """Worlds as they stand before each stage, how they stand after it, and how many calls it makes."""

    folder: Path
    before: dict[str, Path] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    reset: Callable[[], object] | None = None
    observe: Callable[[], Any] | None = None
    """What a server outside the world holds: put back before each trial, and compared after it."""


@dataclass(frozen=True)
class Trial:
    """What is done to a stage: a fault of a kind at a call, or a kill after some seconds."""

    stage: str
    kind: str
    at: float

    @property
    def question(self) -> dict[str, Any]:
        if self.kind == "SIGKILL after":
            return {"kill_after": self.at}
        return {"kind": self.kind, "at": int(self.at)}


def make_base(zygote: Zygote, folder: Path, stages: Sequence[str] = tuple(STAGES)) -> Base:
    """Live through the stages undisturbed, keeping a copy of the world before each."""
    base = Base(folder)
    _finished(zygote.ask("company", folder))
    world = folder / "undisturbed"
    _finished(zygote.ask("world", world))
    for stage in STAGES:
        base.before[stage] = folder / f"before-{stage}"
        copy_world(world, base.before[stage])
        if stage == "identity":  # compiling its loops reads and writes files, once a machine: no run does from here on
            copy_world(world, folder / "compiling")
            _finished(zygote.ask("loops", folder / "compiling"))
        outcome = _finished(zygote.ask(stage, world))
        base.calls[stage], base.seconds[stage] = outcome.calls, outcome.seconds
        base.after[stage] = _finished(zygote.ask("settle", world, stage=stage)).said
        if stage == stages[-1]:
            break
    return base


def trials(base: Base, stage: str, kinds: Sequence[str], points: int | None, chance: Random) -> Iterator[Trial]:
    """Yield trials of each kind at every call of a stage, or at so many of them drawn by chance."""
    for kind in kinds:
        yield from (Trial(stage, kind, at) for at in _drawn(base.calls[stage], points, chance))


def mixed_trials(
    base: Base, stage: str, kinds: Sequence[str], points: int | None, chance: Random, each: int
) -> Iterator[Trial]:
    """Yield trials of `each` of the kinds, drawn by chance, at every call of a stage, or at so many of them."""
    for at in _drawn(base.calls[stage], points, chance):
        yield from (Trial(stage, kind, at) for kind in chance.sample(kinds, each))


def _drawn(calls: int, points: int | None, chance: Random) -> Sequence[int]:
    every = range(1, calls + 1)
    return every if points is None or points >= len(every) else sorted(chance.sample(every, points))


def run_trial(zygote: Zygote, base: Base, trial: Trial) -> tuple[Outcome, list[str]]:
    """Return how the disturbed stage ended, and what is wrong after it was done again; nothing, if all is well."""
    world = base.folder / "world"
    shutil.rmtree(world, ignore_errors=True)
    copy_world(base.before[trial.stage], world)
    if base.reset is not None:
        base.reset()
    outcome = zygote.ask(trial.stage, world, **trial.question)
    wrong = ["it hung"] if outcome.ended == "hung" else []
    wrong += [f"a value was stored in {path}" for path in _holders_of(SECRET, world)]
    settled = zygote.ask("settle", world, stage=trial.stage)
    if settled.ended != "finished":
        return outcome, [*wrong, f"the second try {settled.ended}: {settled.said}"]
    expected = base.after[trial.stage]
    found = {**settled.said, "elsewhere": base.observe() if base.observe else None}
    return outcome, wrong + [f"{name} differs" for name in expected if found[name] != expected[name]]


def summary(outcomes: Counter[str]) -> str:
    """Say how many trials ended how."""
    return ", ".join(f"{count} {ended}" for ended, count in sorted(outcomes.items()))


def _holders_of(secret: str, world: Path) -> list[Path]:
    return [path for path in world.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


def _finished(outcome: Outcome) -> Outcome:
    assert outcome.ended == "finished", outcome
    return outcome


__all__ = [
    "ERRORS",
    "FILE_SIZE",
    "FILE_SIZES",
    "Base",
    "Trial",
    "make_base",
    "mixed_trials",
    "run_trial",
    "summary",
    "trials",
]
