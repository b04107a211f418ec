"""Recall, build time and query time of index factories on 1,024-d vectors made from a 32-d latent.

`python -m tests.bench index` prints a table.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from bind.index.index import Index
from bind.space import Embeddings, unit
from tests.bench.cpu import result

SPACE = "bench"
FACTORIES = ("Flat", "HNSW32", "IVF256,PQ64", "IVF256,PQ128x4fs", "LSH", "RaBitQ")


def latent_vectors(count: int, dim: int = 1024, latent: int = 32, seed: int = 0) -> Embeddings:
    """Unit rows (count, dim) near a random `latent`-dimensional subspace: unlike plain noise they have neighbours."""
    basis = np.random.default_rng(1234).standard_normal((latent, dim), dtype=np.float32)
    generator = np.random.default_rng(seed)
    vectors = generator.standard_normal((count, latent), dtype=np.float32) @ basis
    vectors += generator.standard_normal((count, dim), dtype=np.float32) * np.float32(0.1 * np.sqrt(latent))
    return Embeddings(unit(vectors), SPACE)


def recall(found: np.ndarray, truth: np.ndarray) -> float:
    """(Q, k) ids found and true -> the share of the true ones that were found."""
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found.tolist(), truth.tolist(), strict=True)]))


def run(count: int = 50_000, dim: int = 1024, queries: int = 100, k: int = 10) -> list[dict[str, Any]]:
    """One row a factory: recall@k against Flat, build seconds, milliseconds for one query and for each of a batch."""
    vectors = latent_vectors(count, dim)
    asked = latent_vectors(queries, dim, seed=1)
    rows: list[dict[str, Any]] = []
    truth = None
    for factory in FACTORIES:
        index = Index(space=SPACE, dim=dim, factory=factory)
        started = time.perf_counter()
        index.add(np.arange(count), vectors, modality="image")
        built_s = time.perf_counter() - started
        index.search(asked[0], k)
        started = time.perf_counter()
        for number in range(20):
            index.search(asked[number], k)
        single_s = (time.perf_counter() - started) / 20
        started = time.perf_counter()
        found = index.search(asked, k)[1]
        batch_s = (time.perf_counter() - started) / queries
        truth = found if truth is None else truth
        rows.append(
            result(
                f"{factory}, {count:,} x {dim}, one query",
                "ms",
                1e3 * single_s,
                peer=rows[0]["ours"] if rows else None,
                peer_is="Flat" if rows else "",
                ratio=rows[0]["ours"] / (1e3 * single_s) if rows else None,
                note=f"recall@{k} {recall(found, truth):.3f}; built in {built_s:.3g} s; batched {1e3 * batch_s:.3g} ms",
            )
        )
    return rows


if __name__ == "__main__":
    for row in run():
        print(row)
