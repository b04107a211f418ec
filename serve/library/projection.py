"""A projection of vectors to two dimensions, so that a person can see which items are alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from preprocess.extras import needs

AXES = 32
"""The number of principal axes that t-SNE gets; further axes are mostly noise, and cost time."""
PERPLEXITY = 30.0
"""How many neighbours t-SNE tries to keep near each point (scikit-learn's default)."""
_ITERATIONS = 500
"""Iterations of t-SNE: half of scikit-learn's default, because a map is drawn while somebody waits."""
_FEWEST = 8  # fewer points have no neighbourhoods, so their principal axes are enough
_SHORTEST = 1e-9
"""A spread that is taken as none, which would be divided by."""


def lay_out(vectors: np.ndarray, groups: Sequence[str]) -> np.ndarray:
    """(n, D) vectors and the group (modality) of each -> (n, 2) float32 places in -1..1, the same for the same input.

    Each group is moved to the common centre first, because otherwise the map would only show that modalities lie apart
    (arXiv 2203.02053). Then the principal axes are computed, and t-SNE (van der Maaten and Hinton, JMLR 9, 2008) over
    them.
    """
    centred = np.array(vectors, np.float64)
    names = np.asarray(groups)
    for name in np.unique(names):
        rows = names == name
        centred[rows] -= centred[rows].mean(0)
    _, axes = np.linalg.eigh(centred.T @ centred)  # (D, D) takes the same time however many points there are
    flat = centred @ axes[:, ::-1][:, :AXES]
    spread = float(np.abs(flat).max(initial=0.0))
    if len(flat) >= _FEWEST and spread > _SHORTEST:
        with needs("page", "the map of a library"):
            from sklearn.manifold import TSNE  # imported here, because the import takes half a second

        flat = TSNE(
            init="pca",
            perplexity=min(PERPLEXITY, (len(flat) - 1) / 3),
            max_iter=_ITERATIONS,
            random_state=0,
            n_jobs=1,
        ).fit_transform((flat / spread).astype(np.float32))
    flat = np.pad(flat[:, :2], ((0, 0), (0, max(0, 2 - flat.shape[1]))))
    flat = flat - (flat.max(0, initial=-np.inf) + flat.min(0, initial=np.inf)) / 2 if len(flat) else flat
    places: np.ndarray = (flat / np.maximum(np.abs(flat).max(0, initial=0.0), _SHORTEST)).astype(np.float32)
    return places
