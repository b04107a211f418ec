"""Adds modalities that several runs trained to one model, whose weights are stored in half precision.

    python -m train.small.assemble bind/zoo/small depth=out/small-depth/model imu=out/small-imu/model ...

The first argument is the model that is extended: NAME.toml beside the folder NAME. Both are written again. The other
arguments say which modality comes from which checkpoint folder.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from bind import checkpoint, description, zoo
from bind.model import loading
from bind.model.towers import Tower


def assemble(model: Path, additions: Mapping[str, Path]) -> None:
    """Adds {modality: checkpoint folder} to the model `model`.toml and its folder `model`, in place.

    Raises ValueError where a checkpoint's frozen modalities are not the model's own, because its space is another then.
    """
    base_description = description.read(model.with_suffix(".toml"))
    base = loading.load_described(base_description, model)
    tables = dict(base_description.modalities)
    trained = dict.fromkeys(pair for pair in base_description.trained if not set(pair) & set(additions))
    towers: dict[str, Tower] = {name: base.tower(name) for name in base.modalities}
    for name, folder in additions.items():
        added = zoo.load(folder, modalities=[name])
        pairs = [pair for pair in added.description.trained if name in pair]
        for anchor in {anchor for pair in pairs for anchor in pair} - {name}:
            owner = tables[anchor].shares or anchor
            if added.digests.get(owner) != base.digests[owner]:
                raise ValueError(f"{folder}: its {owner} is not that of {model.name}; {name} is bound to another space")
        tables[name], towers[name] = added.description.modalities[name], added.tower(name)
        trained |= dict.fromkeys(pairs)
    widened = base_description.model_copy(update={"modalities": tables, "trained": tuple(trained)})
    with tempfile.TemporaryDirectory(dir=model.parent) as aside:
        checkpoint.write(Path(aside) / model.name, widened, {name: tower.half() for name, tower in towers.items()})
        # The description of a named model lies beside its folder.
        (Path(aside) / model.name / checkpoint.TABLE).replace(model.with_suffix(".toml"))
        checkpoint.write_sums(Path(aside) / model.name)
        checkpoint.replace_folder(Path(aside) / model.name, model)


if __name__ == "__main__":
    assemble(Path(sys.argv[1]), {name: Path(folder) for name, _, folder in (a.partition("=") for a in sys.argv[2:])})
