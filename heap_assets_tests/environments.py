"""Python environments beside the tests' own, for tools whose requirements do not install together with it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import install

_FOLDER = Path(__file__).parents[1] / ".venvs"


class UnavailableError(Exception):
    """This machine has not what a test needs."""


def environment(name: str, *requirements: str, inherits: bool = False, prepare: str = "") -> Path:
    """Return the folder of an environment with these requirements; it is made once.

    Parameters
    ----------
    requirements
        Arguments of `pip install`.
    inherits
        Whether it has the packages of the running environment too; its own come first.
    prepare
        Python code that it runs once.

    Raises
    ------
    UnavailableError
        The requirements cannot be installed.
    """
    venv = _FOLDER / name
    _FOLDER.mkdir(exist_ok=True)
    with venv.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # test workers side by side would build it into one another
        if not (venv / ".ready").exists():
            _build(venv, requirements, prepare, inherits=inherits)
    return venv


def _build(venv: Path, requirements: tuple[str, ...], prepare: str, *, inherits: bool) -> None:
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True, timeout=120)
        if inherits:
            packages = Path(sysconfig.get_path("purelib"))
            (venv / packages.relative_to(sys.prefix) / "inherited.pth").write_text(f"{packages}\n")
        python, arguments = str(venv / "bin" / "python"), ["install", "--quiet", *requirements]
        if not (install.UV.exists() and install.uv_installs(arguments, python)):
            pip = [python, "-m", "pip", "--disable-pip-version-check", *arguments]
            subprocess.run(pip, check=True, timeout=420, capture_output=True)
        variables = {**os.environ, "HOME": str(venv)}
        subprocess.run([str(venv / "bin" / "python"), "-c", prepare], check=True, timeout=120, env=variables)
    except (subprocess.SubprocessError, OSError) as error:
        raise UnavailableError(f"{venv.name} cannot be installed ({type(error).__name__})") from error
    (venv / ".ready").touch()
