"""The index on a GPU: exact, and through FAISS's GPU indexes, against the exact one on the CPU."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch

from bind import Embeddings, Index

DIM, ROWS = 64, 20_000
SPACE = "space"
LEAST_RECALL = {"Flat": 0.99, "IVF64,Flat": 0.95, "IVF64,PQ32": 0.9, "CAGRA": 0.95}


def latent(count: int, seed: int) -> Embeddings:
    """Unit rows from a latent of 16 dimensions."""
    basis = np.random.default_rng(0).normal(size=(16, DIM))
    rows = np.random.default_rng(1 + seed).normal(size=(count, 16)) @ basis
    return Embeddings((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), SPACE)


def recall(found: np.ndarray, expected: np.ndarray) -> float:
    """The share of the expected ids found."""
    return float(np.mean([len({*a} & {*b}) / len(b) for a, b in zip(found.tolist(), expected.tolist(), strict=True)]))


@pytest.mark.gpu
@pytest.mark.parametrize("factory", LEAST_RECALL)
def test_factories_on_a_gpu_find_what_the_exact_search_finds(factory: str, tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    if factory == "CAGRA" and not hasattr(importlib.import_module("faiss"), "GpuIndexCagra"):
        pytest.skip("this FAISS was built without cuVS")
    vectors, queries = latent(ROWS, 0), latent(200, 1)
    exact, index = Index(SPACE, DIM), Index(SPACE, DIM, factory, device="cuda")
    for some in (exact, index):
        some.add(np.arange(ROWS), vectors, "image")
    least = LEAST_RECALL[factory]
    assert recall(index.search(queries, 10)[1], exact.search(queries, 10)[1]) >= least
    for some in (exact, index):
        some.remove(np.arange(0, ROWS, 7))
        some.add(np.arange(ROWS, ROWS + 500), latent(500, 2), "image")
    expected_scores, expected = exact.search(queries, 10)
    scores, found = index.search(queries, 10)
    assert recall(found, expected) >= least
    assert not np.isin(found, np.arange(0, ROWS, 7)).any()
    np.testing.assert_allclose(scores[:, 0], expected_scores[:, 0], atol=2e-2)
    index.save(tmp_path)
    for device in ("cuda", "cpu") if factory != "CAGRA" else ("cuda",):
        again = Index.load(tmp_path, device=device)
        assert recall(again.search(queries, 10)[1], expected) >= least
    shuffled = expected[np.random.default_rng(0).permutation(len(expected))]
    assert recall(found, shuffled) < 0.5  # what the measure says of wrong results
