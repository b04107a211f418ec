"""The log of a run: one JSON record a line, and curves in TensorBoard."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

from tqdm import tqdm

LOG = "log.jsonl"
"""The file of a run's folder that has a line for each logged step."""


class Log:
    """`log.jsonl`, with one record on a line, and the same in TensorBoard where it is installed."""

    def __init__(self, out: Path, step: int) -> None:
        out.mkdir(parents=True, exist_ok=True)
        file = out / LOG
        # A killed run may have logged steps that its last state does not have; these steps come again.
        old = [line for line in file.read_text().splitlines() if _step_of(line) < step] if file.is_file() else []
        file.write_text("".join(f"{line}\n" for line in old))
        self._file = file.open("a", buffering=1)
        self._board: Any = None
        if importlib.util.find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(out / "tensorboard"), purge_step=step)
        elif step == 0:
            tqdm.write(f"TensorBoard is not installed (pip install 'crossbind[train]'); the log is {file}")

    def write(self, record: dict[str, Any]) -> None:
        """Writes one record; its numbers become curves over its `step`."""
        self._file.write(json.dumps(record) + "\n")
        if self._board:
            for key, value in record.items():
                if isinstance(value, float):
                    self._board.add_scalar(f"{key}/{record.get('pair', 'held out')}", value, record["step"])

    def close(self) -> None:
        """Closes the file and TensorBoard."""
        self._file.close()
        if self._board:
            self._board.close()


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf  # the line was cut off by a crash
