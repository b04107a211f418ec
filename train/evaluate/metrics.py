"""What a ranking, a classification or a probe is worth: plain functions of vectors and labels, with their intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

RECALLS = (1, 5, 10)
"""The k of recall@k that reports have."""
_RESAMPLES = 1000
"""Bootstrap samples for an interval of 95 %."""


def ranks(queries: np.ndarray, targets: np.ndarray, query_items: np.ndarray, target_items: np.ndarray) -> np.ndarray:
    """(Q, D) and (T, D) unit rows, (Q,) and (T,) item labels -> (Q,) ranks of each query's best target, from 1.

    Targets with the query's label are right. Others with the same score stand before them, so that vectors which are
    all equal rank last and not first. Every query needs a right target.
    """
    found = np.empty(len(queries), np.int64)
    for start in range(0, len(queries), 1024):
        part = slice(start, start + 1024)
        scores = queries[part].astype(np.float32) @ targets.T.astype(np.float32)
        right = query_items[part, None] == target_items
        best = np.where(right, scores, -np.inf).max(1, keepdims=True)
        found[part] = 1 + ((scores >= best) & ~right).sum(1)
    return found


def same_item(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Columns of content labels (N,) -> (N,) labels, equal for rows that share a content (also through others)."""
    owner = np.arange(len(columns[0]))

    def root(row: int) -> int:
        while owner[row] != row:
            owner[row] = owner[owner[row]]
            row = int(owner[row])
        return row

    for column in columns:
        first: dict[int, int] = {}
        for row, content in enumerate(column.tolist()):
            owner[root(row)] = root(first.setdefault(content, row))
    return np.array([root(row) for row in range(len(owner))])


def mean_recall(a: np.ndarray, b: np.ndarray, items: np.ndarray) -> float:
    """(N, D) and (N, D) unit rows, pairs row by row, (N,) item labels -> the mean of recall@1, 5, 10, both ways."""
    both = (ranks(a, b, items, items), ranks(b, a, items, items))
    return float(np.mean([(found <= k).mean() for found in both for k in RECALLS]))


def average_precision(relevant: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(N,) bool, (N,) scores, (R, N) weights of items -> (R,): sum over thresholds of precision * gain in recall.

    Items of equal score enter together, as in scikit-learn's. NaN where no relevant item has weight.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    weights = weights[:, order]
    true = np.cumsum(weights * relevant[order], 1)[:, ends]
    taken = np.cumsum(weights, 1)[:, ends]
    precision = np.divide(true, taken, out=np.zeros_like(true, np.float64), where=taken > 0)
    gain = np.diff(true, axis=1, prepend=0)
    with np.errstate(invalid="ignore"):
        result: np.ndarray = (precision * gain).sum(1) / true[:, -1]
    return result


def bootstrap(
    values: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], rng: np.random.Generator
) -> tuple[float, float]:
    """(N,) values and a statistic over the last axis -> the 2.5% and 97.5% points over resamples of the values."""
    at_once = max(1, 5_000_000 // len(values))
    drawn = [
        statistic(values[rng.integers(len(values), size=(min(at_once, _RESAMPLES - start), len(values)))])
        for start in range(0, _RESAMPLES, at_once)
    ]
    low, high = np.percentile(np.concatenate(drawn), (2.5, 97.5))
    return float(low), float(high)


def probe(train: np.ndarray, labels: np.ndarray, test: np.ndarray, classes: int, penalty: float = 1e-3) -> np.ndarray:
    """(N, D) vectors with (N,) class numbers, (M, D) vectors -> (M,) class numbers by a linear softmax probe.

    Multinomial logistic regression with an L2 `penalty` on the weights, by L-BFGS from zero; deterministic.
    """
    x, y = torch.from_numpy(train).double(), torch.from_numpy(labels)
    weight = torch.zeros(classes, x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = nn.functional.cross_entropy(F.linear(x, weight, bias), y) + penalty * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    with torch.no_grad():
        found: np.ndarray = F.linear(torch.from_numpy(test).double(), weight, bias).argmax(1).numpy()
    return found
