"""bind.space: what an Embeddings value accepts, and what it refuses."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bind.space import NORM_TOLERANCE, Embeddings, SpaceError, concatenate, unit

ROWS = unit(np.random.default_rng(0).standard_normal((6, 8)))


@given(arrays(np.float64, (3, 5), elements=st.floats(-1e300, 1e300)))
def test_unit_rows_have_norm_one_and_keep_their_direction(vectors: np.ndarray) -> None:
    largest = np.abs(vectors).max(axis=1)
    if (largest == 0).any():
        with pytest.raises(ValueError, match="all zeros"):
            unit(vectors)
        return
    rows = unit(vectors)
    Embeddings(rows, "s")
    direction = vectors / largest[:, None]
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    np.testing.assert_allclose(rows, direction, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-40, 1e-20, 1.0, 1e30])
def test_unit_does_not_over_or_underflow_in_float32(scale: float) -> None:
    np.testing.assert_allclose(unit((ROWS * np.float32(scale)).astype(np.float32)), ROWS, atol=1e-4)


@pytest.mark.parametrize("entry", [np.nan, np.inf])
def test_unit_refuses_what_has_no_direction(entry: float) -> None:
    bad = ROWS.copy()
    bad[4, 2] = entry
    with pytest.raises(ValueError, match="row 4 is not finite"):
        unit(bad)
    with pytest.raises(ValueError, match=r"shape \(N, D\)"):
        unit(ROWS[0])


def test_wrong_values_are_refused() -> None:
    for wrong in (ROWS.astype(np.float64), ROWS.tolist()):
        with pytest.raises(TypeError, match="float32 numpy array"):
            Embeddings(wrong, "s")  # type: ignore[arg-type]
    for wrong in (ROWS[0], ROWS[None], np.empty((3, 0), np.float32)):
        with pytest.raises(ValueError, match="expected shape"):
            Embeddings(wrong, "s")
    with pytest.raises(ValueError, match="name of a space"):
        Embeddings(ROWS, "")


@pytest.mark.parametrize("factor", [1 - 2 * NORM_TOLERANCE, 1 + 2 * NORM_TOLERANCE, 0.0, np.nan, np.inf])
def test_rows_that_are_not_unit_are_refused_by_number(factor: float) -> None:
    bad = ROWS.copy()
    bad[3] *= np.float32(factor)
    with pytest.raises(ValueError, match="row 3 has norm"):
        Embeddings(bad, "s")


def test_a_norm_within_the_tolerance_passes() -> None:
    Embeddings(ROWS * np.float32(1 + NORM_TOLERANCE / 2), "s")


def test_the_value_is_read_only_and_does_not_freeze_the_callers_array() -> None:
    mine = ROWS.copy()
    value = Embeddings(mine, "s")
    assert np.shares_memory(value.vectors, mine)
    with pytest.raises(ValueError, match="read-only"):
        value.vectors[0, 0] = 0
    assert mine.flags.writeable


def test_indexing_gives_embeddings_of_the_same_space() -> None:
    value = Embeddings(ROWS, "s")
    for rows in (slice(1, 4), np.array([5, 0]), [2, 2], np.arange(6) % 2 == 0, slice(0, 0)):
        part = value[rows]
        assert part.space == "s" and part.dim == 8
        np.testing.assert_array_equal(part.vectors, ROWS[rows])
    assert value[[]].vectors.shape == (0, 8)
    assert value[2].vectors.shape == (1, 8)
    assert [len(row) for row in value] == [1] * 6
    with pytest.raises(IndexError):
        value[6]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=5))
def test_concatenate_undoes_slicing(counts: list[int]) -> None:
    parts = [Embeddings(ROWS[:count], "s") for count in counts]
    joined = concatenate(parts)
    assert len(joined) == sum(counts)
    np.testing.assert_array_equal(joined.vectors, np.concatenate([ROWS[:count] for count in counts]))


def test_concatenate_refuses_another_space_naming_both() -> None:
    with pytest.raises(SpaceError, match=r"'small-1'.*'huge-2'") as caught:
        concatenate([Embeddings(ROWS, "small-1"), Embeddings(ROWS, "huge-2")])
    assert (caught.value.expected, caught.value.got) == ("small-1", "huge-2")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert str(copy) == str(caught.value)
    with pytest.raises(ValueError, match="D = 8, got D = 4"):
        concatenate([Embeddings(ROWS, "s"), Embeddings(unit(ROWS[:, :4]), "s")])
    with pytest.raises(ValueError, match="at least one"):
        concatenate([])
