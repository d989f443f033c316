"""The instructions of deploy/Dockerfile, as far as it uses them."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

DEPLOY = Path(__file__).parent.parent.parent / "deploy"


@dataclass
class Stage:
    """One stage of an image: `instructions` are pairs of the instruction's name and its arguments."""

    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def arguments(self, name: str) -> list[str]:
        """Return the arguments of every instruction of a name."""
        return [arguments for instruction, arguments in self.instructions if instruction == name]

    @property
    def environment(self) -> dict[str, str]:
        """The variables that the stage sets."""
        pairs = (pair.partition("=") for arguments in self.arguments("ENV") for pair in shlex.split(arguments))
        return {name: value for name, _, value in pairs}

    @property
    def command(self) -> list[str]:
        """What a container runs unless it is told otherwise."""
        return [str(word) for word in json.loads(self.arguments("CMD")[-1])]


def stages(path: Path = DEPLOY / "Dockerfile") -> list[Stage]:
    """Return the stages of a Dockerfile, in order."""
    text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE)
    found: list[Stage] = []
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        name, _, arguments = line.partition(" ")
        if name == "FROM":
            found.append(Stage(arguments.split()[0]))
        elif name and found:
            found[-1].instructions.append((name, arguments))
    return found
