"""A model with encoders of further modalities beside its own, for `bind.checkpoint.write`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bind.description import Description, ModalityTable
from bind.model.model import BindModel
from bind.model.towers import Tower


def widened(
    space: BindModel, tables: Mapping[str, ModalityTable], towers: Mapping[str, Tower], pairs: Iterable[tuple[str, str]]
) -> tuple[Description, dict[str, Tower]]:
    """A model, the tables and towers of modalities that are added or replaced, and the pairs that they were trained on.

    The weights that stay keep their identity; those that are replaced lose it.
    """
    own = space.description
    update = {
        "modalities": {**own.modalities, **tables},
        "trained": tuple(dict.fromkeys([*own.trained, *pairs])),
        "digests": {name: digest for name, digest in space.digests.items() if name not in tables},
    }
    kept = {name: space.tower(name) for name in space.modalities if name not in towers}
    return own.model_copy(update=update), kept | dict(towers)
