"""Landings that take seconds, killed after a time drawn by chance; each lands again and equals an undisturbed one."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random

from heap_assets_tests.torture.stages import make_world
from heap_assets_tests.torture.trials import Base, Trial, run_trial
from heap_assets_tests.torture.zygote import Zygote

_EARLIEST = 0.05
_LONGER = 1.05


def large_base(zygote: Zygote, folder: Path, people: int) -> Base:
    """Land the dumps of a larger company undisturbed."""
    base = Base(folder)
    asked = zygote.ask("company", folder, people=people, days=14)
    assert asked.ended == "finished", asked
    base.before["landing"] = folder / "before-landing"
    make_world(base.before["landing"])
    world = folder / "undisturbed"
    shutil.copytree(base.before["landing"], world)
    outcome = zygote.ask("landing", world)
    assert outcome.ended == "finished", outcome
    base.seconds["landing"], base.calls["landing"] = outcome.seconds, outcome.calls
    base.after["landing"] = zygote.ask("settle", world, stage="landing").said
    return base


def kill_by_time(zygote: Zygote, base: Base, kills: int, seed: int) -> tuple[int, list[str]]:
    """Kill landings at work, `kills` of them; return how many were begun, and what was wrong after one of them.

    Times are drawn over what a landing takes, which changes with what else the machine does.
    """
    chance, seconds, killed, begun, wrong = Random(seed), base.seconds["landing"], 0, 0, []
    while killed < kills:
        trial = Trial("landing", "SIGKILL after", chance.uniform(_EARLIEST, seconds))
        outcome, found = run_trial(zygote, base, trial)
        begun += 1
        killed += outcome.ended == "killed"
        seconds = seconds * _LONGER if outcome.ended == "killed" else outcome.seconds
        wrong += [f"{trial}: {what}" for what in found]
    return begun, wrong
