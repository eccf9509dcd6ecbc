"""Peak memory of a process, and a row that compares two of them. Linux."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def reset_peak_mib() -> float:
    """Let the high-water mark start again from what the process holds now, MiB; returns that."""
    Path("/proc/self/clear_refs").write_text("5")
    return status_mib("VmRSS")


def status_mib(field: str) -> float:
    """A field of this process's status, MiB: VmRSS (held now) or VmHWM (held at most)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024


def of_fresh_process(module: str, *arguments: str) -> Any:
    """What `python -m MODULE ARGUMENTS` prints on its last line, as JSON: one side, in a process of its own."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    return json.loads(done.stdout.splitlines()[-1])
