"""The command `crossbind` as a person starts it, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CROSSBIND = Path(sys.executable).parent / "crossbind"


def crossbind(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs it to its end, whatever its status; no input may end in a traceback."""
    done = subprocess.run([CROSSBIND, *map(str, arguments)], capture_output=True, text=True)
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    return done
