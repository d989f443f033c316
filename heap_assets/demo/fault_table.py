"""The fault table: every plant on a sound company, the check that saw it, the alert that arrived, and how soon."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from heap_assets.demo.fault_lab import Lab, Outcome, laboratory
from heap_assets.demo.plants import NOT_PLANTED, Plant, plants

PEOPLE, DAYS = 600, 31
_HEAD = """# Faults, and who is told of them

Written by `heap-assets demo --faults --out docs/faults.md`; do not edit.

A sample company of {people} people lives through {days} days without a fault; {quiet}. Then each fault is planted by
itself on a copy of it, one more night is lived through with real runs, and the alert sensors send to a real HTTP
receiver. The clock is simulated: it goes from trigger to trigger (the manifests' poll, the sensors' ticks, the
warehouse's schedule at 02:30, syncs at a quarter past, the look at recency at seven past), and a run takes as long as
it really took. Warehouse tables are read whole every night here; where only changes are read, what leaves no trace in
`updated_at` is seen with the next whole read (`full_read_days`). **Until told** counts from the moment the fault was
there: the dump written, the night's load done, the partition rewritten.
"""
_FOOT = """
## Rules without a row

| Check | Why |
| --- | --- |
{rows}
"""


def fault_table(
    only: Sequence[str], say: Callable[[str], None], *, people: int = PEOPLE, days: int = DAYS, seed: int = 1
) -> tuple[list[Outcome], list[str]]:
    """Plant the faults (all unless some are named); return what became of each, and what was told of sound data."""
    chosen = [plant for plant in plants() if not only or plant.name in only]
    with (
        tempfile.TemporaryDirectory(prefix="heap-assets-faults-") as folder,
        laboratory(Path(folder) / "lab", say) as lab,
    ):
        say(f"A company of {people} people lives through {days} days without a fault")
        lab.live(people=people, days=days, seed=seed)
        say(f"{len(lab.quiet_alarms)} alarms on sound data {', '.join(lab.quiet_alarms)}".rstrip())
        return [_planted(lab, plant, say) for plant in chosen], lab.quiet_alarms


def document(outcomes: Iterable[Outcome], quiet: Sequence[str], *, people: int = PEOPLE, days: int = DAYS) -> str:
    """Return docs/faults.md."""
    quiet_result = "nothing is told" if not quiet else f"{len(quiet)} alarms are told ({', '.join(quiet)})"
    rows = [_row(outcome) for outcome in outcomes]
    heads = ("Fault", "What was done", "Seen by", "Alert", "Until told")
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads), *rows]
    unplanted = "\n".join(f"| `{check}` | {why} |" for check, why in NOT_PLANTED.items())
    return "\n".join((_HEAD.format(people=people, days=days, quiet=quiet_result), *lines, _FOOT.format(rows=unplanted)))


def line(outcome: Outcome) -> str:
    """Return one outcome for a terminal."""
    plant = outcome.plant
    mark = "told  " if outcome.seen and outcome.is_alerted else "MISSED"
    return f"{mark}  {plant.name:<26}{_since(outcome):>8}  {plant.asset}: {plant.found_by}"


def _planted(lab: Lab, plant: Plant, say: Callable[[str], None]) -> Outcome:
    outcome = lab.plant(plant)
    say(line(outcome))
    return outcome


def _row(outcome: Outcome) -> str:
    plant = outcome.plant
    severity = f", {outcome.severity}" if outcome.severity else ""
    kind = f"`{outcome.kind}`" if outcome.kind else "**nobody was told**"
    check = f"{plant.asset}: `{plant.found_by}`{severity}"
    return f"| {plant.name.replace('_', ' ')} | {plant.done} | {check} | {kind} | {_since(outcome) or '–'} |"


def _since(outcome: Outcome) -> str:
    if outcome.minutes is None:
        return ""
    return f"{outcome.minutes:.0f} min" if outcome.minutes < 120 else f"{outcome.minutes / 60:.0f} h"
