"""Makes a trained checkpoint the weights of a named model, in half precision.

    python -m train.small.install CHECKPOINT bind/zoo/small

NAME.toml beside the folder NAME gets the checkpoint's modalities. What a person wrote there of the model stays: its
name, licence and description, what it was trained on, and the shorter lengths of its vectors.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from bind import checkpoint, description, zoo


def install(folder: Path, model: Path) -> None:
    """A checkpoint folder -> `model`.toml and the folder `model`, which are written again.

    Raises ValueError where the checkpoint has another dimension than the model.
    """
    written = description.read(model.with_suffix(".toml"))
    found = zoo.load(folder)
    if found.dim != written.dim:
        raise ValueError(f"{folder}: expected {written.dim} dimensions as {model.name} has, got {found.dim}")
    facts = {key: getattr(written, key) for key in ("name", "license", "about", "trained_on", "shorter")}
    named = found.description.model_copy(update=facts | {"digests": {}})
    with tempfile.TemporaryDirectory(dir=model.parent) as aside:
        place = Path(aside) / model.name
        checkpoint.write(place, named, {name: found.tower(name).half() for name in found.modalities})
        # The description of a named model lies beside its folder.
        (place / checkpoint.TABLE).replace(model.with_suffix(".toml"))
        checkpoint.write_sums(place)
        checkpoint.replace_folder(place, model)


if __name__ == "__main__":
    install(*map(Path, sys.argv[1:]))
