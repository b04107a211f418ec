"""Embeddings, the value that packages exchange: unit vectors together with the identity of the space they live in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

NORM_TOLERANCE = 1e-3
"""The largest deviation of a row's norm from 1: ten thousand float32 roundings, and a cosine off by 0.1 % at most."""
_ROWS_PER_CHECK = 65_536
"""Rows whose norms are checked at a time, so that the check of millions of rows takes little memory."""


class SpaceError(ValueError):
    """Vectors of two spaces were combined: `expected` and `got` name both spaces."""

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(
            f"expected vectors of space {expected!r}, got space {got!r}; vectors of two models cannot be compared: "
            "embed everything with one model"
        )
        self.expected = expected
        self.got = got

    def __reduce__(self) -> tuple[type[SpaceError], tuple[str, str]]:
        return type(self), (self.expected, self.got)


@dataclass(frozen=True, eq=False)
class Embeddings:
    """float32 (N, D) unit rows, read-only, and `space`, the identity of the model that made them.

    Args:
        vectors: a float32 numpy array (N, D) of unit rows; `bind.space.unit` makes one of any numbers.
        space: the identity of the space, as `BindModel.space` has it.

    Raises:
        TypeError: `vectors` is no float32 numpy array.
        ValueError: the shape is another, `space` is empty, or a row is not finite or its norm deviates from 1 by more
            than `NORM_TOLERANCE`.

    Example:
        >>> vectors = np.array([[1.0, 0.0], [0.6, 0.8]], dtype=np.float32)
        >>> embeddings = bind.Embeddings(vectors, space="my-space")
        >>> len(embeddings), embeddings.dim, len(embeddings[:1])
        (2, 2, 1)
    """

    vectors: npt.NDArray[np.float32]
    space: str

    def __post_init__(self) -> None:
        if not isinstance(self.vectors, np.ndarray) or self.vectors.dtype != np.float32:
            actual = getattr(self.vectors, "dtype", type(self.vectors).__name__)
            raise TypeError(f"embeddings: expected a float32 numpy array, got {actual}; use bind.space.unit")
        if self.vectors.ndim != 2 or self.vectors.shape[1] == 0:
            raise ValueError(f"embeddings: expected shape (N, D) with D > 0, got {self.vectors.shape}")
        if not isinstance(self.space, str) or not self.space:
            raise ValueError(f"embeddings: expected the name of a space, got {self.space!r}")
        for start in range(0, len(self.vectors), _ROWS_PER_CHECK):
            rows = self.vectors[start : start + _ROWS_PER_CHECK]
            norms = np.sqrt(np.einsum("nd,nd->n", rows, rows))
            wrong = np.flatnonzero(~(np.abs(norms - 1) <= NORM_TOLERANCE))  # the negation catches NaN as well
            if wrong.size:
                raise ValueError(
                    f"embeddings: expected unit rows, row {start + wrong[0]} has norm {norms[wrong[0]]:.6g}; "
                    "use bind.space.unit"
                )
        view = self.vectors.view()
        view.flags.writeable = False
        object.__setattr__(self, "vectors", view)

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, rows: int | slice | npt.ArrayLike) -> Embeddings:
        """The chosen rows (number, slice, integer or boolean array) -> Embeddings; one number gives (1, D)."""
        if isinstance(rows, (int, np.integer)):
            return Embeddings(self.vectors[int(rows)][None], self.space)
        if not isinstance(rows, slice):
            rows = np.asarray(rows)
            if rows.size == 0 and rows.dtype != np.bool_:
                rows = rows.astype(np.int64)  # numpy makes a float array of an empty list
        return Embeddings(self.vectors[rows], self.space)

    @property
    def dim(self) -> int:
        """D, the length of a row."""
        return int(self.vectors.shape[1])


def concatenate(parts: Sequence[Embeddings]) -> Embeddings:
    """Embeddings of one space -> one Embeddings with all rows in order.

    Raises ValueError for no parts or for different D, SpaceError for different spaces.
    """
    if not parts:
        raise ValueError("concatenate: expected at least one Embeddings, got none")
    first = parts[0]
    for part in parts[1:]:
        if part.space != first.space:
            raise SpaceError(first.space, part.space)
        if part.dim != first.dim:
            raise ValueError(f"concatenate: expected D = {first.dim}, got D = {part.dim}")
    return Embeddings(np.concatenate([part.vectors for part in parts]), first.space)


def unit(vectors: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """(N, D) numbers -> float32 (N, D) unit rows. Raises ValueError for rows that are all zeros or not finite."""
    given = np.asarray(vectors)
    if given.ndim != 2:
        raise ValueError(f"unit: expected shape (N, D), got {given.shape}")
    if given.dtype != np.float64:  # float64 may hold numbers that float32 cannot, so it is scaled before it is rounded
        given = given.astype(np.float32, copy=False)
    # Dividing by the largest entry first keeps the squares of very large and very small rows in range.
    largest = np.abs(given).max(axis=1, initial=0)
    wrong = np.flatnonzero(~(np.isfinite(largest) & (largest > 0)))
    if wrong.size:
        what = "is all zeros" if largest[wrong[0]] == 0 else "is not finite"
        raise ValueError(f"unit: row {wrong[0]} {what}, so it has no direction")
    scaled: npt.NDArray[np.float32] = (given / largest[:, None]).astype(np.float32, copy=False)
    scaled /= np.sqrt(np.einsum("nd,nd->n", scaled, scaled))[:, None]
    return scaled
