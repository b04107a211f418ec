"""Exhaustive search on a GPU beside FAISS's flat, CAGRA and IVF-PQ indexes, torch's topk, and the product alone.

`python -m tests.bench search_gpu`. The rows are 2 million of 1,024 fp16 numbers (4 GB), then 10 million (20 GB), from a
latent of 32 dimensions: Gaussian clusters in 1,024 dimensions have no neighbours to find.
"""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bind.index.exact_gpu import top_k
from tests.bench.gpu import copy_rate, milliseconds, result

DIM, K = 1024, 10
ROWS, MANY_ROWS = 2_000_000, 10_000_000
BLOCK = 2**18
CHECKED = 256
"""Queries compared with float32."""
TIES = 2e-6
"""Scores of unit rows closer than this are equal: float32 sums in another order."""
GOALS = {1: 1.05, 32: 1.15}
"""Most that a search may take, in times of the product alone."""
GOAL_MS, GOAL_TIMES_FAISS, GOAL_READ = 9.0, 14.0, 1.15
BATCHES = (1, 32, 1024)
timed = partial(milliseconds, warm=3, rounds=5, least_s=0.1)
Search = Callable[[Tensor], Tensor]


def vectors(count: int, seed: int) -> Tensor:
    """(count, DIM) fp16 unit rows from a latent of 32 dimensions, the same latent space for every seed."""
    generator = torch.Generator("cuda").manual_seed(0)
    basis = torch.randn(32, DIM, device="cuda", generator=generator)
    generator.manual_seed(1 + seed)
    rows = torch.empty((count, DIM), dtype=torch.float16, device="cuda")
    for part in rows.split(BLOCK):
        latent = torch.randn(len(part), 32, device="cuda", generator=generator)
        part.copy_(torch.nn.functional.normalize(latent @ basis, dim=1))
    return rows


def exact(queries: Tensor, stored: Tensor) -> Tensor:
    """The K best scores (Q, K) in float32 of the same fp16 numbers."""
    best = [(queries.float() @ part.float().T).topk(K).values for part in stored.split(2**17)]
    return torch.cat(best, 1).topk(K).values


def same(ids: Tensor, queries: Tensor, stored: Tensor, expected: Tensor) -> float:
    """The share of results (Q, K) that are as good as the exact ones of their rank: 1 means identical modulo ties."""
    scores = torch.bmm(stored[ids.clamp(min=0)].float(), queries.float()[:, :, None])[:, :, 0]
    scores = scores.masked_fill(ids < 0, -torch.inf).sort(1, descending=True).values
    return float((scores >= expected - TIES).float().mean())


def recall(ids: Tensor, queries: Tensor, stored: Tensor, expected: Tensor) -> float:
    """The share of the K best rows found, ties counting as found."""
    scores = torch.bmm(stored[ids.clamp(min=0)].float(), queries.float()[:, :, None])[:, :, 0]
    scores = scores.masked_fill(ids < 0, -torch.inf)
    return float((scores >= expected[:, -1:] - TIES).float().mean())


def run() -> list[dict[str, Any]]:
    """A row a batch size and way to search."""
    torch.backends.cuda.matmul.allow_tf32 = False  # the float32 reference is to be float32
    queries = vectors(1024, 1)
    return two_million(queries) + ten_million(queries)


def two_million(queries: Tensor) -> list[dict[str, Any]]:
    """Ours and everything else over 4 GB."""
    stored = vectors(ROWS, 0)
    expected = exact(queries[:CHECKED], stored)
    blocks = stored.split(BLOCK)

    def plain(queries: Tensor) -> Tensor:
        return torch.cat([(queries @ block.T).topk(K).values for block in blocks], 1).topk(K).values

    def product(queries: Tensor) -> None:
        for block in blocks:
            queries @ block.T

    def whole_product(queries: Tensor) -> None:
        queries @ stored.T

    def ours(queries: Tensor) -> Tensor:
        return top_k(queries, stored, K)[1]

    faiss = installed_faiss()
    flat = faiss.flat(stored) if faiss else None
    rows = []
    for batch in BATCHES:
        some = queries[:batch]
        mine, others, *products = (timed(partial(way, some)) for way in (ours, plain, product, whole_product))
        alone = min(products)
        identical = same(ours(some)[:CHECKED], some[:CHECKED], stored, expected[:batch])
        note = f"{mine / alone:.3f} of the product; identical modulo ties: {identical:.4f}"
        if batch in GOALS:
            goal, met = f"<= {GOALS[batch]} of the product", mine <= GOALS[batch] * alone
        else:
            goal, met = f"<= {GOAL_MS:g} ms", mine <= GOAL_MS
        what = f"exact search, 2M x 1,024, batch {batch:,}"
        row = partial(result, what, "ms", mine, ceiling=alone, ceiling_is="the product alone")
        rows.append(row(peer=others, peer_is="torch matmul + topk", goal=goal, met=met, note=note))
        if flat:
            theirs = timed(partial(flat, some))
            agreed = same(flat(some)[:CHECKED], some[:CHECKED], stored, expected[:batch])
            row = partial(row, peer=theirs, peer_is="FAISS GPU flat fp16")
            note = f"FAISS identical modulo ties: {agreed:.4f}"
            if batch == max(BATCHES):
                met = theirs >= GOAL_TIMES_FAISS * mine
                rows.append(row(goal=f">= {GOAL_TIMES_FAISS:g} times", met=met, note=note))
            else:
                rows.append(row(note=note))
    if faiss is None:
        rows.append(result("FAISS", "", float("nan"), note="not run: needs faiss-gpu-cuvs"))
    for build in (faiss.ivf_pq, faiss.cagra) if faiss else ():
        rows += approximate(build, stored, queries, expected, ours)
    return rows


def ten_million(queries: Tensor) -> list[dict[str, Any]]:
    """Ours over 20 GB, beside one reading of them at the day's copy rate."""
    rate = copy_rate()
    stored = vectors(MANY_ROWS, 2)
    reading = 1000 * stored.numel() * 2 / rate
    rows = []
    for batch in (1, 32, 256):
        some = queries[:batch]
        ours = timed(partial(top_k, some, stored, K))
        few = some[:8]
        identical = same(top_k(few, stored, K)[1], few, stored, exact(few, stored))
        peer = timed(partial(_products, some, stored))
        times = f"{ours / reading:.3f} of one reading; identical modulo ties: {identical:.4f}"
        row = partial(result, f"exact search, 10M x 1,024, batch {batch}", "ms", ours, peer=peer)
        row = partial(
            row, peer_is="the product alone", ceiling=reading, ceiling_is=f"one read at {rate / 1e12:.2f} TB/s"
        )
        goal, met = (f"<= {GOAL_READ} of one read", ours <= GOAL_READ * reading)
        rows.append(row(goal=goal, met=met, note=times) if batch == 1 else row(note=times))
    return rows


def _products(queries: Tensor, stored: Tensor) -> None:
    for block in stored.split(BLOCK):
        queries @ block.T


class Faiss:
    """FAISS's GPU indexes over tensors on the GPU, through the pointers that its C++ side takes."""

    def __init__(self) -> None:
        self.module: Any = importlib.import_module("faiss")
        self._resources = self.module.StandardGpuResources()
        self._resources.setDefaultNullStreamAllDevices()  # torch's own stream, so that events see the work
        self._resources.setTempMemory(2**30)

    def flat(self, stored: Tensor) -> Search:
        """The exhaustive index, in fp16."""
        options = self.module.GpuIndexFlatConfig()
        options.useFloat16 = True
        index = self.module.GpuIndexFlatIP(self._resources, DIM, options)
        self._add(index, stored)
        return partial(self._search, index, None)

    def cagra(self, stored: Tensor) -> list[tuple[str, Search]]:
        """A graph of 32 neighbours each; searched with two widths."""
        options = self.module.GpuIndexCagraConfig()
        options.graph_degree, options.intermediate_graph_degree = 32, 64
        options.build_algo = self.module.graph_build_algo_NN_DESCENT
        index = self.module.GpuIndexCagra(self._resources, DIM, self.module.METRIC_INNER_PRODUCT, options)
        self._train(index, stored)
        searches = []
        for width in (64, 256):
            parameters = self.module.SearchParametersCagra()
            parameters.itopk_size = width
            searches.append((f"FAISS CAGRA, itopk {width}", partial(self._search, index, parameters)))
        return searches

    def ivf_pq(self, stored: Tensor) -> list[tuple[str, Search]]:
        """2,048 lists, 64 sub-quantizers of 8 bits, whose tables fit the shared memory in float16 only."""
        options = self.module.GpuIndexIVFPQConfig()
        options.useFloat16LookupTables = True
        options.use_cuvs = False
        index = self.module.GpuIndexIVFPQ(self._resources, DIM, 2048, 64, 8, self.module.METRIC_INNER_PRODUCT, options)
        self._train(index, stored[: 2**17])
        self._add(index, stored)
        searches = []
        for lists in (16, 64):
            parameters = self.module.SearchParametersIVF(nprobe=lists)
            searches.append((f"FAISS IVF2048,PQ64, nprobe {lists}", partial(self._search, index, parameters)))
        return searches

    def _floats(self, rows: Tensor) -> Any:
        return self.module.cast_integer_to_float_ptr(rows.data_ptr())

    def _train(self, index: Any, stored: Tensor) -> None:
        rows = stored.float()
        index.train_c(len(rows), self._floats(rows))

    def _add(self, index: Any, stored: Tensor) -> None:
        for part in stored.split(BLOCK):
            rows = part.float()
            index.add_c(len(rows), self._floats(rows))

    def _search(self, index: Any, parameters: Any, queries: Tensor) -> Tensor:
        rows = queries.float()
        scores = rows.new_empty(len(rows), K)
        ids = torch.empty_like(scores, dtype=torch.int64)
        places = self.module.cast_integer_to_idx_t_ptr(ids.data_ptr())
        index.search_c(len(rows), self._floats(rows), K, self._floats(scores), places, parameters)
        return ids


def installed_faiss() -> Faiss | None:
    """None where FAISS is missing, sees no GPU, or was built without cuVS."""
    if not importlib.util.find_spec("faiss"):
        return None
    faiss = importlib.import_module("faiss")
    return Faiss() if hasattr(faiss, "GpuIndexCagra") and faiss.get_num_gpus() else None


def approximate(
    build: Callable[[Tensor], list[tuple[str, Search]]], stored: Tensor, queries: Tensor, expected: Tensor, ours: Search
) -> list[dict[str, Any]]:
    """An approximate index of the same rows: its time and recall beside our exact ones."""
    start = time.perf_counter()
    searches = build(stored)
    torch.cuda.synchronize()
    built_s = time.perf_counter() - start
    rows = []
    for name, search in searches:
        found = recall(search(queries[:CHECKED]), queries[:CHECKED], stored, expected)
        for batch in BATCHES:
            peer, mine = (timed(partial(way, queries[:batch])) for way in (search, ours))
            note = f"its recall@10 {found:.3f}, built in {built_s:.0f} s; ours is exact"
            what = f"exact search, 2M x 1,024, batch {batch:,}"
            rows.append(result(what, "ms", mine, peer=peer, peer_is=name, note=note))
    return rows
