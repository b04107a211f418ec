"""How likely a hit is right: cosines -> probabilities, fitted to held-out pairs of two modalities.

A cosine alone says little, for three reasons. The vectors of each modality lie in a region of their own (the modality
gap, arXiv 2203.02053), some queries score high with everything, and the best of many wrong items scores higher than the
best of few. Three features correct for that:

    against the background      (cosine - centre) / spread, where centre and spread are those of this query's cosines
    with items of the modality in general. Both follow from the mean and the covariance of background vectors. The
    checkpoint brings these, so that a library of one kind of thing, or of three items, cannot distort them.
    against the library         (cosine - centre) / spread, where centre and spread are those of the library's own
    items. A small library's figures are drawn towards the background's. This feature corrects for media unlike those of
    the background.
    the size of the library     log(items)

The probability is a logistic function of these features, fitted for each pair of modalities by `train.small.calibrate`.
The calibration changes no vector: `SHA256SUMS` covers its file, but the identity of the space does not depend on it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

FILE = "calibration.safetensors"
"""The calibration's file in a checkpoint's folder."""
FEATURES = ("background", "library", "log items", "offset")
"""The inputs of the logistic function, as explained above; `offset` is the constant 1."""
DIRECTIONS = 48
"""How many principal directions of the background's covariance are stored; all others share one variance."""
SMALLEST_SPREAD = 0.005
"""The least spread of cosines: in a modality whose items are all equal, rounding errors must not become a score."""
_PRIOR = 16.0
"""The weight of the background in the library's figures, as a number of items: a library of 16 items counts half."""
# The standard deviation of a normal distribution is 1.4826 times its median absolute deviation.
_MAD_TO_DEVIATION = 1.4826


@dataclass(frozen=True)
class Background:
    """Items of one modality in general: `mean` (D,), and a covariance `directions.T @ directions + rest * identity`."""

    mean: np.ndarray
    directions: np.ndarray
    rest: float

    def scale(self, query: np.ndarray) -> tuple[float, float]:
        """A query (D,) -> the centre and the spread of its cosines with the background's items."""
        variance = np.square(self.directions @ query).sum() + self.rest * np.square(query).sum()
        return float(self.mean @ query), max(float(np.sqrt(variance)), SMALLEST_SPREAD)


def background(vectors: np.ndarray) -> Background:
    """(N, D) unit rows -> their background. Raises ValueError for fewer than two rows."""
    if len(vectors) < 2:
        raise ValueError(f"a background needs at least two vectors, got {len(vectors)}")
    mean = vectors.mean(0)
    values, directions = np.linalg.eigh(np.cov(vectors.T.astype(np.float64)))
    variances = values[-DIRECTIONS:].clip(0)
    rest = max(float(values.sum() - variances.sum()), 0.0) / max(len(values) - len(variances), 1)
    # Every direction gets the variance `rest`, so the stored directions hold only what exceeds it.
    scaled = directions[:, -DIRECTIONS:] * np.sqrt((variances - rest).clip(0))
    return Background(mean.astype(np.float32), scaled.T.astype(np.float32), rest)


def centre_and_spread(cosines: np.ndarray) -> tuple[float, float]:
    """(n,) cosines -> their median and their scaled median absolute deviation, which a few matches do not change."""
    centre = float(np.median(cosines))
    return centre, _MAD_TO_DEVIATION * float(np.median(np.abs(cosines - centre)))


@dataclass(frozen=True)
class Calibration:
    """The backgrounds by modality, and the weights of `FEATURES` by (modality of the query, modality of the items).

    `space` is the space whose vectors the calibration was fitted to. It is not valid for the cosines of another space.
    """

    space: str
    backgrounds: Mapping[str, Background]
    pairs: Mapping[tuple[str, str], np.ndarray]

    def features(
        self, query: np.ndarray, target: str, cosines: np.ndarray, sample: np.ndarray, count: int
    ) -> np.ndarray:
        """A query (D,), (n,) cosines, and the cosines of a sample of the library's `count` items -> (n, 4), see
        `FEATURES`.
        """
        usual, usual_spread = self.backgrounds[target].scale(query)
        centre, spread = usual, usual_spread
        if len(sample):
            weight = len(sample) / (len(sample) + _PRIOR)
            own, own_spread = centre_and_spread(sample)
            centre = weight * own + (1 - weight) * usual
            spread = max(weight * own_spread + (1 - weight) * usual_spread, SMALLEST_SPREAD)
        size = np.full(len(cosines), np.log(max(count, 1)))
        return np.column_stack(
            [(cosines - usual) / usual_spread, (cosines - centre) / spread, size, np.ones(len(cosines))]
        )

    def probability(
        self, pair: tuple[str, str], query: np.ndarray, cosines: np.ndarray, sample: np.ndarray, count: int
    ) -> np.ndarray | None:
        """Cosines (n,) of a pair (query's modality, items' modality) -> (n,) probabilities, or None for a pair without
        a fit.

        The arguments are those of `features`.
        """
        weights = self.pairs.get(pair)
        if weights is None:
            return None
        logits = self.features(query, pair[1], cosines, sample, count) @ weights
        result: np.ndarray = 1 / (1 + np.exp(-logits.clip(-50, 50)))
        return result

    def write(self, file: Path) -> None:
        """Writes everything to a safetensors file; backgrounds are stored in float16."""
        state = {f"pair.{query}.{target}": weights for (query, target), weights in self.pairs.items()}
        for name, one in self.backgrounds.items():
            state[f"background.{name}.mean"] = one.mean.astype(np.float16)
            state[f"background.{name}.directions"] = one.directions.astype(np.float16)
        rest = {name: one.rest for name, one in self.backgrounds.items()}
        save_file(
            {name: np.ascontiguousarray(array) for name, array in state.items()},
            file,
            {"space": self.space, "features": json.dumps(FEATURES), "rest": json.dumps(rest)},
        )


def read(file: Path, dim: int) -> Calibration:
    """A calibration file of a space of D dimensions -> its content. Raises ValueError for a file that does not fit."""
    try:
        with safe_open(file, "np") as stored:
            about = stored.metadata() or {}
            space = about["space"]
            arrays = {name: np.asarray(stored.get_tensor(name), np.float32) for name in stored.keys()}  # noqa: SIM118
        if tuple(json.loads(about["features"])) != FEATURES:
            raise ValueError(f"expected the features {FEATURES}, got {about['features']}")
        backgrounds = {
            name: Background(arrays[f"background.{name}.mean"], arrays[f"background.{name}.directions"], float(rest))
            for name, rest in json.loads(about["rest"]).items()
        }
        pairs = {}
        for name, weights in arrays.items():
            kind, *pair = name.split(".")
            if kind == "pair":
                query, target = pair
                pairs[query, target] = weights
                if weights.shape != (len(FEATURES),) or target not in backgrounds:
                    raise ValueError(f"{name}: expected {len(FEATURES)} weights and a background of {target}")
        if any(one.mean.shape != (dim,) or one.directions.shape[1:] != (dim,) for one in backgrounds.values()):
            raise ValueError(f"expected backgrounds of {dim} dimensions")
    except (KeyError, OSError, ValueError) as error:
        raise ValueError(f"{file}: is no calibration of this model: {error}") from None
    except Exception as error:  # safetensors has an exception of its own, which is no ValueError
        raise ValueError(f"{file}: is no calibration: {error}") from None
    return Calibration(space, backgrounds, pairs)
