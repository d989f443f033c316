"""What make installs with: `python install.py EXTRA…`, run by the Python of the virtual environment.

pip fetches one wheel, uv, into that environment, and uv installs the rest in a tenth of pip's time. Where uv cannot be
fetched or fails, pip installs the same. uv does not read pip's configuration: what pip is configured to (index, proxy,
certificates and so on) is handed to uv as environment variables, so that no file of the project names an index.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
UV = Path(sys.executable).with_name("uv")
UV_VERSIONS = "uv>=0.8,<1"
AS_UV = {
    "index-url": ("UV_DEFAULT_INDEX",),
    "extra-index-url": ("UV_INDEX",),
    "no-index": ("UV_NO_INDEX",),
    "find-links": ("UV_FIND_LINKS",),
    "constraint": ("UV_CONSTRAINT",),
    "trusted-host": ("UV_INSECURE_HOST",),
    "timeout": ("UV_HTTP_TIMEOUT",),
    "default-timeout": ("UV_HTTP_TIMEOUT",),
    "cert": ("SSL_CERT_FILE",),
    "client-cert": ("SSL_CLIENT_CERT",),
    "proxy": ("HTTPS_PROXY", "HTTP_PROXY"),
}
"""pip's options to the environment variables that tell uv the same."""
BY_COMMA = ("find-links",)
"""Options that uv separates by commas; other lists by spaces, as pip does."""


def main() -> None:
    """Install the project, editable, with the extras that are named; exit with pip's status if it fails too."""
    extras = sys.argv[1:]
    target = f".[{','.join(extras)}]" if extras else "."
    what = "what the tests and checks need" if extras else "what the demo needs, nothing of the tests"
    place = Path(sys.prefix).name
    begun = time.monotonic()
    arguments = ["install", "--quiet", "--constraint", "constraints.txt", "--editable", target]
    if _has_uv(place):
        _say(f"Installing into {place} with uv: {what} ...")
        if uv_installs(arguments):
            _say(f"Installed in {time.monotonic() - begun:.0f} s")
            return
    _say(f"Installing into {place} with pip, which takes minutes: {what} ...")
    status = subprocess.run([*PIP, *arguments], check=False).returncode
    if status == 0:
        _say(f"Installed in {time.monotonic() - begun:.0f} s")
    sys.exit(status)


def _has_uv(place: str) -> bool:
    if UV.exists():
        return True
    _say(f"Fetching uv into {place} ...")
    # no source distribution: to compile uv takes a Rust compiler and an hour
    fetch = [*PIP, "install", "--quiet", "--only-binary", "uv", UV_VERSIONS]
    fetched = subprocess.run(fetch, capture_output=True, text=True, check=False)
    if fetched.returncode or not UV.exists():
        _say(f"uv cannot be had here: {_reason(fetched.stderr)}")
        return False
    return True


def uv_installs(arguments: list[str], python: str = sys.executable) -> bool:
    """Run `uv pip` with these arguments for an environment's Python; say why it failed, if it does."""
    listed = subprocess.run([*PIP, "config", "list"], capture_output=True, text=True, check=False).stdout
    environment = {**uv_environment(pip_options(listed)), **os.environ}
    if os.environ.get("PYTHONDONTWRITEBYTECODE"):
        environment["UV_COMPILE_BYTECODE"] = "1"  # else every process would compile all that it imports
    command = [str(UV), "pip", *arguments, "--python", python]
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        _say(f"uv failed: {_reason(done.stderr)}")
    return done.returncode == 0


def pip_options(listed: str) -> dict[str, str]:
    """Return the options that `pip install` takes, of the lines of `pip config list`: `section.option='value'`."""
    sections: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        section, _, option = name.partition(".")
        if section in sections:
            sections[section][option] = str(ast.literal_eval(value))
    return {option: value for section in sections.values() for option, value in section.items()}


def uv_environment(options: Mapping[str, str]) -> dict[str, str]:
    """Return pip's options as the environment variables of uv."""
    environment = {
        variable: (",".join(value.split()) if option in BY_COMMA else " ".join(value.split()))
        for option, value in options.items()
        for variable in AS_UV.get(option, ())
    }
    if "extra-index-url" in options:
        environment["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # as pip: the newest of all indexes
    return environment


def _reason(output: str) -> str:
    """Return the first error, and what follows it, as one line of at most 300 characters."""
    lines = [line.strip(" \t│╰─▶×") for line in output.splitlines()]
    start = next((number for number, line in enumerate(lines) if line.lower().startswith("error")), 0)
    return " ".join(filter(None, lines[start:]))[:300] or "no reason given"


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
