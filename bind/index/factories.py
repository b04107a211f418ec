"""FAISS: factory strings -> empty indexes, on the CPU or a GPU, with settings that find most neighbours.

This module is the only one that imports faiss, and it does so only where a factory needs it.
"""

from __future__ import annotations

import importlib
import math
from typing import Any

from bind.index.exact import Floats
from bind.index.generations import Generation
from preprocess.extras import check_faiss, needs

PROBES = 8
"""An inverted file with L lists probes `PROBES` * sqrt(L) of them for a query (FAISS's default is one list)."""


class DeviceError(ValueError, RuntimeError):
    """The GPU that was asked for does not exist."""


def gpu_count() -> int:
    """The number of GPUs that the installed FAISS can use."""
    return int(faiss_module().get_num_gpus())


def faiss_module() -> Any:
    """The faiss module, imported when first needed.

    Raises MissingExtra. It is untyped: its stubs lack many of its names.
    """
    check_faiss()
    with needs("cpu", "an index that is not Flat"):
        return importlib.import_module("faiss")


def check_device(factory: str, device: str) -> None:
    """Raises ValueError where `factory` has no form for `device`, DeviceError where that GPU is not there."""
    if device == "cpu":
        if factory == "CAGRA":
            raise ValueError("index: factory 'CAGRA' runs on a GPU only; use device='cuda', or factory 'HNSW32'")
        return
    if factory == "Flat":
        import torch  # imported here, because only a GPU needs torch

        present = torch.cuda.device_count() if torch.cuda.is_available() else 0
    else:
        faiss = faiss_module()

        present = gpu_count()
        if factory == "CAGRA" and not hasattr(faiss, "GpuIndexCagra"):
            raise ValueError(
                "index: the installed FAISS has no CAGRA (a build with cuVS has); use 'Flat' or 'IVF1024,Flat'"
            )
        if "HNSW" in factory or "NSG" in factory:
            raise ValueError(
                f"index: FAISS has no GPU form of {factory!r}; use device='cpu', or 'CAGRA', 'Flat' or 'IVF...'"
            )
    if _number(device) >= present:
        raise DeviceError(
            f"index: device={device!r}, but {present or 'no'} CUDA device(s) can be used here; use device='cpu'"
        )


def _number(device: str) -> int:
    """`cuda:1` -> 1, `cuda` -> 0."""
    return int(device.partition(":")[2] or 0)


def new_index(factory: str, dim: int) -> Any:
    """A factory string -> an empty FAISS index. Raises ValueError with FAISS's reason."""
    faiss = faiss_module()

    if factory == "CAGRA":
        return None
    if not factory.isascii():
        raise ValueError(f"index: FAISS cannot make {factory!r}: expected ASCII")
    try:
        try:
            made = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
        except RuntimeError:
            # LSH supports L2 only; for unit rows L2 proposes the same neighbours as the inner product.
            made = faiss.index_factory(dim, factory, faiss.METRIC_L2)
    except RuntimeError as error:
        raise ValueError(f"index: FAISS cannot make {factory!r} for dim {dim}: {str(error).splitlines()[-1]}") from None
    if isinstance(made, faiss.IndexIDMap):
        raise ValueError(f"index: {factory!r} maps ids, which Index does itself; leave IDMap out")
    core = core_of(made)
    if isinstance(core, faiss.IndexIVF):
        core.nprobe = min(core.nlist, math.ceil(PROBES * math.sqrt(core.nlist)))
        coarse = faiss.downcast_index(core.quantizer)
        if isinstance(coarse, faiss.IndexHNSW):
            coarse.hnsw.efSearch = 2 * core.nprobe
    if hasattr(core, "do_polysemous_training"):
        # this training takes most of the time, and only polysemous search gains from it
        core.do_polysemous_training = False
    return made


def core_of(faiss_index: Any) -> Any:
    """The index inside transforms and refinements; it is valid as long as the outer one exists."""
    faiss = faiss_module()

    while isinstance(faiss_index, (faiss.IndexPreTransform, faiss.IndexRefine)):
        inner = faiss_index.index if isinstance(faiss_index, faiss.IndexPreTransform) else faiss_index.base_index
        faiss_index = faiss.downcast_index(inner)
    return faiss_index


def search_parameters(faiss_index: Any, fetch: int) -> Any:
    """Search parameters that make a graph visit at least `fetch` nodes: FAISS visits 16 whatever number is
    asked for.
    """
    faiss = faiss_module()

    if isinstance(faiss_index, faiss.IndexPreTransform):
        inner = search_parameters(faiss.downcast_index(faiss_index.index), fetch)
        return inner and faiss.SearchParametersPreTransform(index_params=inner)
    if isinstance(faiss_index, faiss.IndexRefine):
        inner = search_parameters(faiss.downcast_index(faiss_index.base_index), fetch)
        return inner and faiss.IndexRefineSearchParameters(k_factor=faiss_index.k_factor, base_index_params=inner)
    if isinstance(faiss_index, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(efSearch=fetch)
    if hasattr(faiss, "GpuIndexCagra") and isinstance(faiss_index, faiss.GpuIndexCagra):
        return faiss.SearchParametersCagra(itopk_size=fetch)
    return None


def is_full_graph(factory: str, dim: int) -> bool:
    """Whether the factory makes a graph over full vectors, whose own ranking of candidates is right."""
    faiss = faiss_module()
    return factory == "CAGRA" or isinstance(new_index(factory, dim), (faiss.IndexHNSWFlat, faiss.IndexNSGFlat))


def grows(factory: str) -> bool:
    """Whether vectors can be added to a filled FAISS index; graphs that are built in one go do not allow it."""
    return factory != "CAGRA" and "NSG" not in factory


def on_device(faiss_index: Any, device: str) -> Any:
    """A FAISS index on the CPU -> the same on `device`. Raises ValueError where the factory has no GPU form."""
    if device == "cpu":
        return faiss_index
    faiss = faiss_module()

    options = faiss.GpuClonerOptions()
    options.useFloat16LookupTables = True  # otherwise 64 sub-quantizers of 8 bits do not fit into shared memory
    try:
        return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), _number(device), faiss_index, options)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1]
        raise ValueError(f"index: FAISS cannot put this factory on a GPU ({reason}); use device='cpu'") from None


def on_cpu(faiss_index: Any, device: str) -> Any:
    """A FAISS index on `device` -> the same on the CPU."""
    if device == "cpu":
        return faiss_index
    faiss = faiss_module()

    return faiss.index_gpu_to_cpu(faiss_index)


def build_cagra(vectors: Floats, device: str) -> Any:
    """(N, D) float32 rows -> a CAGRA graph over them on the GPU."""
    faiss = faiss_module()

    config = faiss.GpuIndexCagraConfig()
    config.device = _number(device)
    built = faiss.GpuIndexCagra(faiss.StandardGpuResources(), vectors.shape[1], faiss.METRIC_INNER_PRODUCT, config)
    built.train(vectors)  # this builds the graph and keeps the vectors
    return built


def read_index(generation: Generation, name: str) -> Any:
    """A stored FAISS index of a generation -> the index, on the CPU."""
    faiss = faiss_module()

    with generation.open(name) as file:
        return faiss.read_index(faiss.PyCallbackIOReader(file.read))
