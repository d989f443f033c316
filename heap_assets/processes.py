"""Which process of which machine: enough to tell, on that machine, whether it still runs."""

from __future__ import annotations

import os
import socket
from functools import cache
from pathlib import Path


@cache
def machine() -> str:
    """Name this machine and process namespace: only there does a process id mean something."""
    boot, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    facts = [socket.gethostname(), boot.read_text().strip() if boot.exists() else ""]
    facts.append(os.readlink(namespace) if namespace.exists() else "")  # noqa: PTH115
    return "|".join(facts)


def process_start(pid: int) -> str:
    """Return when a process of this machine started, "" if there is none; where that is unknown, its mere existence."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            fields = stat.read_text().rsplit(")", 1)[-1].split()
        except (FileNotFoundError, ProcessLookupError):
            return ""
        return "" if fields[0] == "Z" else fields[19]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        return "alive"
    return "alive"
