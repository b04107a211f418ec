"""Metrics against plain formulas and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

from train.evaluate import metrics


def plain_rank(scores: np.ndarray, right: np.ndarray) -> int:
    """How many wrong targets are at least as good as the best right one, and one."""
    best = max(score for score, is_right in zip(scores, right, strict=True) if is_right)
    return 1 + sum(score >= best for score, is_right in zip(scores, right, strict=True) if not is_right)


small_vectors = arrays.arrays(np.float32, (7, 3), elements=st.integers(-2, 2).map(float))


@given(small_vectors, small_vectors, arrays.arrays(np.int64, 7, elements=st.integers(0, 3)))
def test_ranks_equal_the_plain_formula(a: np.ndarray, b: np.ndarray, items: np.ndarray) -> None:
    found = metrics.ranks(a, b, items, items)
    expected = [plain_rank(b @ query, items == item) for query, item in zip(a, items, strict=True)]
    assert found.tolist() == expected


def test_ranks_of_more_queries_than_a_block() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 1500, 4)).astype(np.float32)
    items = np.arange(1500)
    scores = a @ b.T
    expected = 1 + (scores > np.diag(scores)[:, None]).sum(1)
    assert np.abs(metrics.ranks(a, b, items, items) - expected).max() <= 1  # products differ in their last bit


def test_collapsed_vectors_rank_last() -> None:
    same = np.ones((20, 4), np.float32)
    assert (metrics.ranks(same, same, np.arange(20), np.arange(20)) == 20).all()
    assert metrics.mean_recall(same, same, np.arange(20)) == 0
    assert metrics.mean_recall(np.eye(20), np.eye(20), np.arange(20)) == 1


@given(
    arrays.arrays(bool, 12),
    arrays.arrays(np.float64, 12, elements=st.integers(0, 6).map(float)),
    arrays.arrays(np.int64, 12, elements=st.integers(0, 3)),
)
def test_average_precision_equals_scikit_learn(relevant: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> None:
    found = metrics.average_precision(relevant, scores, np.stack([np.ones(12), weights]))
    for value, of in zip(found, (np.ones(12), weights), strict=True):
        if not (relevant * of).sum():
            assert np.isnan(value)
        else:
            assert value == pytest.approx(average_precision_score(relevant, scores, sample_weight=of))


@given(
    arrays.arrays(np.int64, 9, elements=st.integers(0, 6)),
    arrays.arrays(np.int64, 9, elements=st.integers(10, 16)),
)
def test_same_item_is_the_transitive_closure(first: np.ndarray, second: np.ndarray) -> None:
    linked = (first[:, None] == first) | (second[:, None] == second)
    for _ in range(9):
        linked = linked @ linked
    found = metrics.same_item([first, second])
    assert ((found[:, None] == found) == linked).all()


def test_bootstrap_of_a_mean_is_the_normal_interval() -> None:
    rng = np.random.default_rng(0)
    hits = (rng.random(400) < 0.3).astype(float)
    low, high = metrics.bootstrap(hits, lambda drawn: drawn.mean(-1), rng)
    error = 1.96 * np.sqrt(hits.mean() * (1 - hits.mean()) / 400)
    assert low == pytest.approx(hits.mean() - error, abs=0.01)
    assert high == pytest.approx(hits.mean() + error, abs=0.01)


def test_probe_equals_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, 8))
    y = np.repeat(np.arange(3), 20)
    x, test = (centres[y] + rng.normal(size=(60, 8)) for _ in range(2))
    # Its penalty is |W|^2 / (2 C) beside the sum of losses, ours beside their mean.
    reference = LogisticRegression(C=1 / (2 * 60 * 1e-3), tol=1e-8, max_iter=1000).fit(x, y)
    found = metrics.probe(x, y, test, 3)
    assert (found == reference.predict(test)).mean() >= 59 / 60
    assert (found == y).mean() > 0.8
