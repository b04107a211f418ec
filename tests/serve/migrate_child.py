"""Real migrations that are killed at chosen moments (see `crash_child`). Run by `test_model_change.py`.

    python -m tests.serve.migrate_child FOLDER SEED MOMENTS

finds in FOLDER the libraries `0` ... (with the old model), `before` and `after` (fresh libraries of either model), and
`counted`, on which the moments are counted. Each is killed once, compared, and migrated to the end.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import numpy as np
import torch

from serve.library import catalogue, indexing, model_change
from serve.library.library import Library
from tests.serve import tiny
from tests.serve.crash_child import Moments, in_fork
from tests.serve.library.test_crash import content


def new_model() -> tiny.BindModel:
    """Another model, which cuts films into longer stretches."""
    return tiny.model(1, preprocess=tiny.PREPROCESS | {"video": tiny.PREPROCESS["video"] | {"segment_s": 4.0}})


def migrate(folder: Path, moments: Moments) -> None:
    """Migrates in this process."""
    torch.set_num_threads(1)
    indexing.COMMIT_FILES = 8
    model = new_model()
    moments.watch()
    model_change.connect = catalogue.connect
    Library.migrate(folder, model)


def compare(folder: Path, moments: Moments) -> None:
    """The library is that of one model or of the other, can be opened, and its index has the same."""
    is_new = catalogue.Catalogue.peek(folder)["space"] == new_model().space
    with Library.open(folder, new_model() if is_new else tiny.model()) as library:
        found, whole = content(folder), content(folder.parent / ("after" if is_new else "before"))
        assert found.keys() == whole.keys()
        for key, vector in found.items():
            np.testing.assert_allclose(np.frombuffer(vector, "<f4"), np.frombuffer(whole[key], "<f4"), atol=1e-6)
        assert len(library.search("a dog", k=1000, keywords=False)) == len(library)
    moments.count = int(is_new)


def main(folder: Path, seed: int, moments: int) -> None:
    """Does all of it. Prints a line a killed run: the signal, and whether it had switched to the new model."""
    status, total = in_fork(migrate, folder / "counted")
    assert status == 0, status
    rng = random.Random(seed)
    for number in range(moments):
        deadly = rng.randrange(total * number // moments, total * (number + 1) // moments) + 1
        killed, _ = in_fork(migrate, folder / str(number), deadly)
        status, was_new = in_fork(compare, folder / str(number))
        assert status == 0, (number, deadly, status)
        status, _ = in_fork(migrate, folder / str(number))
        assert status == 0, (number, deadly, status)
        status, is_new = in_fork(compare, folder / str(number))
        assert (status, is_new) == (0, 1), (number, deadly, status)
        print(os.WTERMSIG(killed), was_new, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
