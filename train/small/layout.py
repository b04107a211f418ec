"""The layout of pictures in the last third of the space, which a sensor without colours can see as well.

    python -m train.small.layout DATA SPACE OUT FEATURES

The dimensions of `small` are ordered by variance; the last 128 hold a few hundredths of a picture's squared length.
Here they are replaced by the contrasts between the picture's quarters (each feature of a quarter less its mean over the
four), projected to the directions in which photographs agree best with themselves shown grey (canonical correlations).
The tone and the noise of a camera are the same in all quarters, so they drop out, and a camera that was never trained
on can be understood.

The last dimensions of a picture get a fixed share of its squared length, and the other encoders' heads are 0 there. So
texts find pictures by the first 256 dimensions as before, while depth and thermal pictures find their photograph by its
layout. OUT is SPACE with these heads; FEATURES is a folder that stores the features of the photographs.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bind import checkpoint, zoo
from bind.encoders.efficientnet import EfficientNet
from bind.heads import Gated
from bind.model.model import BindModel
from bind.model.towers import Tower
from train.small import data as datasets
from train.small import sensors
from train.small.sensor_heads import contrasts

LAID_OUT = 128
"""The number of dimensions that describe the layout of a picture."""
SHARE = 0.25
"""Their share of the squared length of a picture's vector. Pictures of one class still find each other (LOG.md)."""
_KEPT, _RIDGE, _GAMMA = 700, 0.2, 0.5
"""The number of directions that are compared, the ridge added to their variances, and the power of the correlations."""


def agreeing(photographs: Tensor, grey: Tensor) -> Tensor:
    """Standardised features of N photographs (N, W) and of the same shown grey -> (W, 128), the directions that
    agree.
    """
    _, values, directions = torch.svd_lowrank(photographs, min(_KEPT, *photographs.shape), niter=3)
    turned = directions / (values / len(photographs) ** 0.5).clamp(min=1e-6) ** 0.5
    x, y = photographs @ turned, grey @ turned
    inverse_x, inverse_y = _inverse_root(x.T @ x / len(x)), _inverse_root(y.T @ y / len(y))
    first, correlations, _ = torch.linalg.svd(inverse_x @ (x.T @ y / len(x)) @ inverse_y)
    found: Tensor = turned @ inverse_x @ first[:, :LAID_OUT] * correlations[:LAID_OUT] ** _GAMMA
    return found


def _inverse_root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    values = values.clamp(min=0) + _RIDGE * values.mean()
    root: Tensor = vectors @ torch.diag(values**-0.5) @ vectors.T
    return root


@torch.no_grad()
def with_layout(space: BindModel, photographs: Tensor, grey: Tensor) -> BindModel:
    """A space with the layout of pictures in its last dimensions, made of a space and features of photographs.

    `photographs` are the features (N, W) of the space's image trunk. `grey` are a sensor's features (N, Q) of the same
    photographs shown grey, of the quarters only. Raises ValueError for an image tower without quarters or a gate, or
    fewer than 200 photographs.
    """
    tower = space.tower("image")
    trunk = tower.encoder
    if not isinstance(tower.head, Gated):
        raise ValueError("layout: expected a gated head of pictures")
    if not isinstance(trunk, EfficientNet) or "quarters" not in trunk.outputs:
        raise ValueError("layout: expected an EfficientNet that puts out `quarters`")
    if len(photographs) < 200:
        raise ValueError(f"layout: expected 200 photographs or more, got {len(photographs)}")
    places = _columns(trunk, "quarters")
    own = contrasts(photographs[:, places])
    std = own.std(0) + 1e-3
    standard = ((own - own.mean(0)) / std).clamp(-5, 5)
    other = contrasts(grey)
    other = ((other - other.mean(0)) / (other.std(0) + 1e-3)).clamp(-5, 5)
    rows = contrasts((agreeing(standard, other) / std[:, None]).T)
    semantic_dim = space.dim - LAID_OUT
    towers = {name: copy.deepcopy(space.tower(name)) for name in space.modalities}
    done: set[int] = set()
    for name, changed in towers.items():
        linear: Any = getattr(changed.head, "linear", changed.head)
        if name == "video" or id(linear) in done:
            continue
        done.add(id(linear))
        linear.weight.data[semantic_dim:] = 0
        if linear.bias is not None:
            linear.bias.data[semantic_dim:] = 0
        if name == "image":
            linear.weight.data[semantic_dim:, places] = rows
            linear.bias.data[semantic_dim:] = -rows @ photographs[:, places].mean(0)
            assert isinstance(changed.head, Gated)
            changed.head.split, changed.head.share = LAID_OUT, SHARE
    if "video" in towers:  # it shares the image's
        towers["video"] = Tower(towers["image"].encoder, towers["image"].head)
    tables = dict(space.description.modalities)
    head = (tables["image"].head or {}) | {"split": LAID_OUT, "share": SHARE}
    tables["image"] = tables["image"].model_copy(update={"head": head})
    return BindModel(space.description.model_copy(update={"modalities": tables}), towers, space.digests)


def _columns(trunk: EfficientNet, output: str) -> slice:
    """The columns of an output in a row of the trunk's features."""
    start = 0
    for name in trunk.outputs:
        width = EfficientNet("tf_efficientnet_lite0", (name,)).width
        if name == output:
            return slice(start, start + width)
        start += width
    raise ValueError(f"layout: the image encoder does not put out {output}")


def main(arguments: Sequence[str]) -> int:
    """Command line -> exit status; writes OUT."""
    data, name, out, given = arguments
    space = zoo.load(name)
    events = sensors.photographs_of(datasets.find(data))
    folder = Path(given)
    folder.mkdir(parents=True, exist_ok=True)
    encoder = sensors.loaded()
    grey, rows = sensors.features_of(encoder, events, sensors.shown_grey(0), folder / "photographs.pt")
    chosen = [events[row] for row in rows]
    trunk = space.tower("image").encoder
    own, _ = sensors.features_of(trunk, chosen, sensors.as_shown, folder / f"photographs-{sensors.identity(trunk)}.pt")
    changed = with_layout(space, own, grey[:, -sensors.QUARTERED :])
    description = changed.description.model_copy(update={"digests": {}})
    checkpoint.write(Path(out), description, {name: changed.tower(name) for name in changed.modalities})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
