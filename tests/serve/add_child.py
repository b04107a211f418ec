"""Real processes that are killed while they add a file to a library. Run by `test_uploads.py`; see `crash_child`.

    python -m tests.serve.add_child FOLDER MOMENTS

adds in `FOLDER/whole` without interruption and in `FOLDER/0` ... with one `kill -9` each.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from serve.library.library import Library
from tests.serve import tiny
from tests.serve.crash_child import Moments, in_fork

NAME = "a picture.png"
METADATA = {"caption": "a boat"}


def add(folder: Path, moments: Moments) -> None:
    """Opens the library and adds the picture, in this process."""
    torch.set_num_threads(1)
    model = tiny.model()
    picture = (folder.parent / NAME).open("rb")
    moments.watch()
    Library.open(folder, model).add(picture, NAME, METADATA)


def main(folder: Path, moments: int) -> None:
    """Does all of it. Prints a line a killed run: the moment, how many there are, the signal."""
    status, total = in_fork(add, folder / "whole")
    assert status == 0, status
    for number in range(moments):
        deadly = 1 + total * number // moments
        killed, _ = in_fork(add, folder / str(number), deadly)
        print(deadly, total, os.WTERMSIG(killed), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
