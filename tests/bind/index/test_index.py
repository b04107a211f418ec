"""bind.index: exact rankings, approximate ones, removal, files, and what is refused. numpy is the oracle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bind.index import index as index_module
from bind.index import shelf as shelf_module
from bind.index.exact_gpu import HalfRows, top_k
from bind.index.index import Index, IndexCorrupt
from bind.space import Embeddings, SpaceError, unit
from tests.bench.bench_index import SPACE, latent_vectors, recall

DIM = 8
# Small integers before normalising: many equal and many opposite directions, so ties are common.
POOL = Embeddings(unit(np.random.default_rng(0).choice([-1, 1, 2], (64, DIM))), SPACE)


def filled(factory: str, vectors: Embeddings, modality: str = "image") -> Index:
    index = Index(space=SPACE, dim=vectors.dim, factory=factory)
    index.add(np.arange(len(vectors)), vectors, modality)
    return index


def assert_ranked_like_numpy(
    index: Index, queries: Embeddings, held: dict[int, tuple[np.ndarray, str]], k: int, modality: str | list[str] | None
) -> None:
    """The scores are numpy's, descending; each id has its score; among equal scores ids ascend; none is better."""
    scores, ids = index.search(queries, k, modality)
    assert scores.shape == ids.shape == (len(queries), k)
    assert scores.dtype == np.float32 and ids.dtype == np.int64
    wanted = [modality] if isinstance(modality, str) else modality
    pool = {number: vector for number, (vector, name) in held.items() if wanted is None or name in wanted}
    for query, row_scores, row_ids in zip(queries.vectors, scores, ids, strict=True):
        truth = {number: float(query.astype(np.float64) @ vector) for number, vector in pool.items()}
        expected = sorted(truth.values(), reverse=True)[:k]
        count = len(expected)
        np.testing.assert_allclose(row_scores[:count], expected, atol=2e-6)
        assert (row_scores[count:] == -np.inf).all() and (row_ids[count:] == -1).all()
        assert len(set(row_ids[:count].tolist())) == count
        for score, number in zip(row_scores[:count], row_ids[:count], strict=True):
            assert abs(truth[int(number)] - score) < 2e-6
        same = row_scores[: count - 1] == row_scores[1:count] if count else np.empty(0, bool)
        assert (np.diff(row_ids[:count])[same] > 0).all()


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("add"), st.sets(st.integers(0, 40), max_size=12), st.sampled_from(["image", "audio", "depth"])
        ),
        st.tuples(st.just("remove"), st.lists(st.integers(0, 40), max_size=10), st.none()),
        st.tuples(st.just("save"), st.none(), st.none()),
    ),
    max_size=12,
)
CHOICES: list[str | list[str] | None] = [None, "image", "text", ["audio", "depth", "audio"], []]


@pytest.mark.parametrize("factory", ["Flat", "SQ8"])
@given(steps=STEPS, k=st.integers(1, 50), shift=st.integers(0, 63))
@settings(max_examples=60, deadline=None)
def test_any_sequence_of_changes_ranks_like_numpy(
    factory: str, steps: list, k: int, shift: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        # 8-bit codes that propose every vector: each step passes through FAISS, tombstones and reranking.
        patch.setattr(shelf_module, "EXACT_BELOW", 1)
        patch.setattr(shelf_module, "EXACT_ABOVE", np.inf)
        check_sequence(Index(space=SPACE, dim=DIM, factory=factory), steps, k, shift, tmp_path_factory.mktemp("index"))


def check_sequence(index: Index, steps: list, k: int, shift: int, folder: Path) -> None:
    held: dict[int, tuple[np.ndarray, str]] = {}
    for action, numbers, modality in steps:
        if action == "add":
            new = sorted(numbers - held.keys(), key=lambda number: number * 7 % 41)
            rows = POOL[[(number + shift) % 64 for number in new]]
            index.add(np.array(new, np.int64), rows, modality)
            held.update({number: (row, modality) for number, row in zip(new, rows.vectors, strict=True)})
        elif action == "remove":
            assert index.remove(np.array(numbers, np.int64)) == len(held.keys() & set(numbers))
            for number in numbers:
                held.pop(number, None)
        else:
            index.save(folder)
            index = Index.load(folder, verify=True)
        assert len(index) == len(held)
        assert index.modalities == tuple(sorted({name for _, name in held.values()}))
    for modality in CHOICES:
        assert_ranked_like_numpy(index, POOL[:3], held, k, modality)


def test_vectors_by_id(tmp_path: Path) -> None:
    index = filled("Flat", POOL[:20])
    index.save(tmp_path)
    index = Index.load(tmp_path)
    index.add([30, 25], POOL[20:22], "audio")
    index.remove([3])
    ids, vectors = index.vectors([30, 3, 2, 99, 25, 2])
    assert ids.tolist() == [2, 25, 30]
    np.testing.assert_array_equal(vectors, POOL.vectors[[2, 21, 20]])
    assert index.vectors([])[1].shape == Index(space=SPACE, dim=DIM).vectors([1])[1].shape == (0, DIM)


def test_vectors_that_were_all_removed_since_the_last_save_are_left_out_of_the_next(tmp_path: Path) -> None:
    filled("Flat", POOL[:3]).save(tmp_path)
    index = Index.load(tmp_path)
    index.add(np.arange(3, 6), POOL[3:6], "image")
    assert index.remove([0, 1, 2]) == 3
    index.save(tmp_path)
    index = Index.load(tmp_path, verify=True)
    assert_ranked_like_numpy(index, POOL[:3], {n: (POOL.vectors[n], "image") for n in (3, 4, 5)}, 2, None)


def test_the_oracle_notices_a_wrong_ranking() -> None:
    held = {number: (POOL.vectors[number], "image") for number in range(20)}
    index = filled("Flat", POOL[:20])
    assert_ranked_like_numpy(index, POOL[:3], held, 5, None)
    missing = dict(held)
    index.remove([int(index.search(POOL[:1], 1)[1][0, 0])])
    with pytest.raises(AssertionError):
        assert_ranked_like_numpy(index, POOL[:3], missing, 5, None)


def test_blocks_of_rows_and_queries_rank_like_numpy() -> None:
    vectors = latent_vectors(20_000, 48)
    queries = latent_vectors(300, 48, seed=1)
    index = filled("Flat", vectors[:12_000])
    index.add(np.arange(12_000, 20_000), vectors[12_000:], "audio")
    scores, ids = index.search(queries, 10)
    truth = np.sort(queries.vectors @ vectors.vectors.T, axis=1)[:, ::-1][:, :10]
    np.testing.assert_allclose(scores, truth, atol=2e-6)
    np.testing.assert_allclose(np.einsum("qd,qkd->qk", queries.vectors, vectors.vectors[ids]), truth, atol=2e-6)


def test_equal_vectors_are_ordered_by_id_wherever_they_are_stored() -> None:
    # 1,021 numbers a row: a matrix product gives such rows different last bits at the edges of its tiles.
    vectors = Embeddings(unit(np.tile(np.random.default_rng(3).standard_normal((1, 1021)), (9_001, 1))), SPACE)
    index = Index(space=SPACE, dim=1021)
    index.add(np.arange(9_001)[::-1], vectors, "image")
    scores, ids = index.search(vectors[:1], 20)
    assert ids[0].tolist() == list(range(20)) and len(set(scores[0].tolist())) == 1


# Approximate factories


@pytest.fixture(scope="module")
def latent() -> tuple[Embeddings, Embeddings, np.ndarray]:
    vectors, queries = latent_vectors(20_000), latent_vectors(100, seed=1)
    return vectors, queries, filled("Flat", vectors).search(queries, 10)[1]


@pytest.mark.parametrize(
    "factory", ["HNSW32", "IVF64,PQ64", "IVF64,PQ128x4fs", "IVF64,RaBitQ", "LSH", "SQ8", "PCA64,IVF64,Flat"]
)
def test_recall_of_approximate_factories(
    factory: str, latent: tuple[Embeddings, Embeddings, np.ndarray], tmp_path: Path
) -> None:
    vectors, queries, truth = latent
    index = filled(factory, vectors)
    scores, ids = index.search(queries, 10)
    assert recall(ids, truth) >= 0.95
    exact = np.einsum("qd,qkd->qk", queries.vectors, vectors.vectors[ids])
    np.testing.assert_allclose(scores, exact, atol=2e-6)
    index.save(tmp_path / "index")
    for got, expected in zip(Index.load(tmp_path / "index").search(queries, 10), (scores, ids), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_without_reranking_quantised_codes_miss_the_recall(
    latent: tuple[Embeddings, Embeddings, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: ten candidates for ten results leave nothing to rerank."""
    vectors, queries, truth = latent
    monkeypatch.setattr(shelf_module, "CANDIDATES", 1)
    monkeypatch.setattr(shelf_module, "MINIMUM_CANDIDATES", 1)
    assert recall(filled("LSH", vectors).search(queries, 10)[1], truth) < 0.9


@pytest.mark.parametrize("factory", ["IVF4,PQ8", "NSG16", "PCA8,HNSW16", "RQ4x8"])
def test_a_small_shelf_is_searched_exactly_until_its_factory_can_be_built(factory: str) -> None:
    vectors, queries = latent_vectors(13_000, 16, latent=4), latent_vectors(20, 16, latent=4, seed=1)
    exact = filled("Flat", vectors)
    index = filled(factory, vectors[:9_000])
    assert_same_results(index, filled("Flat", vectors[:9_000]), queries)
    index.add(np.arange(9_000, 12_000), vectors[9_000:12_000], "image")  # enough for 39 vectors for each of 256
    index.add(np.arange(12_000, 13_000), vectors[12_000:], "image")
    assert recall(index.search(queries, 10)[1], exact.search(queries, 10)[1]) >= 0.95
    late = index.search(vectors[12_000:12_050], 1)[1][:, 0]
    np.testing.assert_array_equal(late, np.arange(12_000, 12_050))


def assert_same_results(index: Index, other: Index, queries: Embeddings, k: int = 10) -> None:
    for got, expected in zip(index.search(queries, k), other.search(queries, k), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_removed_neighbours_do_not_crowd_out_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """400 vectors around the query are removed (fewer than trigger a rebuild): the next ones must still be found."""
    monkeypatch.setattr(shelf_module, "EXACT_BELOW", 1)
    monkeypatch.setattr(shelf_module, "EXACT_ABOVE", np.inf)
    near = unit(
        np.random.default_rng(1).standard_normal((1, 32)) + 0.05 * np.random.default_rng(2).standard_normal((400, 32))
    )
    vectors = Embeddings(np.concatenate([near, latent_vectors(2_000, 32, latent=8).vectors]), SPACE)
    index, exact = filled("HNSW32", vectors), filled("Flat", vectors)
    assert index.remove(np.arange(400)) == exact.remove(np.arange(400)) == 400
    assert_same_results(index, exact, vectors[:5])
    index.save(tmp_path)
    assert_same_results(Index.load(tmp_path), exact, vectors[:5])
    assert index.remove(np.arange(300, 1_500)) == 1_100  # most are dead now: refilled
    exact.remove(np.arange(1_500))
    assert_same_results(index, exact, vectors[:5])
    index.add(np.arange(50), vectors[:50], "image")
    exact.add(np.arange(50), vectors[:50], "image")
    assert_same_results(index, exact, vectors[:5])
    index.remove(np.arange(10_000))
    assert len(index) == 0 and index.modalities == ()
    assert (index.search(vectors[:2], 3)[1] == -1).all()


# Refusals


def test_wrong_space_and_dim_are_refused() -> None:
    index = filled("Flat", POOL)
    for call in (lambda wrong: index.add([100], wrong, "image"), lambda wrong: index.search(wrong, 1)):
        with pytest.raises(SpaceError, match=r"'bench'.*'other'"):
            call(Embeddings(POOL.vectors[:1], "other"))
        with pytest.raises(ValueError, match="dim 8, got 4"):
            call(Embeddings(unit(POOL.vectors[:1, :4]), SPACE))


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([100, 101, 7], "id 7 is there already .modality 'image'"),
        ([100, 101, 100], "id 100 is given twice"),
        ([100, 101], "one id for each of 3"),
        ([100, 101, -1], "ids >= 0"),
        ([1.0, 2.0, 3.0], "integers"),
        ([[100, 101, 102]], "integers"),
        (np.array([1, 2, 2**63], np.uint64), "fit int64"),
    ],
)
def test_wrong_ids_are_refused_and_nothing_is_added(ids: list, message: str) -> None:
    index = filled("Flat", POOL[:10])
    with pytest.raises(ValueError, match=message):
        index.add(ids, POOL[:3], "audio")
    assert len(index) == 10 and index.modalities == ("image",)


def test_wrong_arguments_are_refused() -> None:
    for factory in ("Flatt", "", "PQ3", "IDMap,Flat", "IVF16"):
        with pytest.raises(ValueError, match="index:"):
            Index(space=SPACE, dim=DIM, factory=factory)
    with pytest.raises(ValueError, match="dim >= 1"):
        Index(space=SPACE, dim=0)
    with pytest.raises(ValueError, match="expected device 'cpu', 'cuda' or"):
        Index(space=SPACE, dim=DIM, device="tpu")
    with pytest.raises(ValueError, match="k >= 1"):
        filled("Flat", POOL).search(POOL, 0)
    with pytest.raises(ValueError, match="empty one"):
        filled("Flat", POOL, "")
    with pytest.raises(ValueError, match="GPU only"):
        Index(space=SPACE, dim=DIM, factory="CAGRA")


def test_a_missing_gpu_is_said_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    import faiss

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    for factory in ("Flat", "IVF16,Flat"):
        with pytest.raises(RuntimeError, match=r"no CUDA device.*device='cpu'"):
            Index(space=SPACE, dim=DIM, factory=factory, device="cuda")
    with pytest.raises(ValueError, match="no GPU form of 'HNSW32'"):
        Index(space=SPACE, dim=DIM, factory="HNSW32", device="cuda")
    monkeypatch.delattr(faiss, "GpuIndexCagra", raising=False)
    with pytest.raises(ValueError, match="no CAGRA"):
        Index(space=SPACE, dim=DIM, factory="CAGRA", device="cuda")


def test_searches_with_nothing_to_do() -> None:
    index = Index(space=SPACE, dim=DIM)
    scores, ids = index.search(POOL[:2], 3)
    assert (scores == -np.inf).all() and (ids == -1).all()
    index.add([], POOL[:0], "image")
    assert len(index) == 0 and index.modalities == ()
    assert filled("Flat", POOL).search(POOL[:0], 3)[0].shape == (0, 3)
    assert index.remove([1, 2]) == 0 and index.count("image") == 0


def test_importing_does_not_load_faiss() -> None:
    code = "import sys; import bind.index.index; print('faiss' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "False"


# Files


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(shelf_module, "EXACT_BELOW", 1)
    monkeypatch.setattr(shelf_module, "EXACT_ABOVE", np.inf)
    index = filled("SQ8", POOL[:40])
    index.add(np.arange(100, 120), POOL[40:60], "audio")
    index.remove([3, 4, 105])
    index.save(tmp_path / "index")
    return tmp_path / "index"


FILES = [
    "index.json",
    "SHA256SUMS",
    *(f"{n}.{kind}" for n in (0, 1) for kind in ("vectors", "ids", "positions", "faiss")),
]


def generation(folder: Path) -> Path:
    (found,) = folder.glob("generation-*")
    return found


def test_a_folder_holds_one_generation_with_sums_that_sha256sum_reads(saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == ["CURRENT", generation(saved).name]
    assert sorted(path.name for path in generation(saved).iterdir()) == sorted(FILES)
    subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=generation(saved), check=True, capture_output=True
    )


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flip first", "flip middle", "flip last", "cut", "grow", "empty", "remove"])
def test_damage_to_any_file_is_found(saved: Path, name: str, damage: str) -> None:
    path = generation(saved) / name
    data = bytearray(path.read_bytes())
    if damage.startswith("flip"):
        data[{"first": 0, "middle": len(data) // 2, "last": -1}[damage.split()[1]]] ^= 1
    changed = {"cut": data[:-1], "grow": data + b"\n", "empty": b""}.get(damage, data)
    path.write_bytes(changed)
    if damage == "remove":
        path.unlink()
    with pytest.raises(IndexCorrupt, match=name):
        Index.load(saved, verify=True)
    if not (name.endswith("vectors") and damage.startswith("flip")):  # only their hash can tell, which is not read
        with pytest.raises(IndexCorrupt, match=name):
            Index.load(saved)


@pytest.mark.parametrize(
    "content", [b"", b"x", b"generation-0 0", b"../generation-0 0", b"generation-/etc 0", b"\xff\xfe"]
)
def test_a_damaged_pointer_is_found(saved: Path, content: bytes) -> None:
    (saved / "CURRENT").write_bytes(content)
    with pytest.raises(IndexCorrupt):
        Index.load(saved)


def test_faiss_never_reads_a_file_whose_hash_is_wrong(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import faiss

    path = generation(saved) / "0.faiss"
    path.write_bytes(path.read_bytes() + b"x")
    monkeypatch.setattr(faiss, "read_index", lambda *_: pytest.fail("FAISS read a damaged file"))
    with pytest.raises(IndexCorrupt):
        Index.load(saved)


def test_a_folder_without_an_index_is_said_plainly(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path, tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(FileNotFoundError, match="nothing is stored here"):
            Index.load(folder)


def test_a_newer_format_is_refused(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = Index.load(saved)
    with monkeypatch.context() as patch:
        patch.setattr(index_module, "_FORMAT", 2)
        index.save(saved)
    with pytest.raises(ValueError, match="expected format 1, got 2; update"):
        Index.load(saved)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_save_that_fails_anywhere_leaves_the_old_generation(
    saved: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    before = Index.load(saved)
    changed = Index.load(saved)
    changed.add([500], POOL[63:], "depth")
    real: Callable[..., None] = getattr(os, call)
    failed = 0
    while True:
        left = failed

        def broken(*arguments: object, **named: object) -> None:
            nonlocal left
            if left == 0:
                raise OSError(28, "No space left on device")
            left -= 1
            real(*arguments, **named)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, broken)
            try:
                changed.save(saved)
            except OSError:
                failed += 1
            else:
                break
        found = Index.load(saved, verify=True)
        # The last step that can fail comes after the switch: then the new generation is there, complete.
        assert len(found) in (len(before), len(changed))
        assert len(list(saved.glob("generation-*"))) <= 2
    assert failed >= (1 if call == "replace" else 10)
    assert len(Index.load(saved, verify=True)) == len(changed)
    assert len(list(saved.iterdir())) == 2


def test_leftovers_of_a_killed_save_do_no_harm(saved: Path) -> None:
    (saved / "generation-dead").mkdir()
    (saved / "generation-dead" / "0.vectors").write_bytes(b"half")
    index = Index.load(saved)
    index.save(saved)
    assert_same_results(Index.load(saved), index, POOL[:5])
    assert not (saved / "generation-dead").exists()


def test_an_index_outlives_the_generation_it_was_loaded_from(saved: Path) -> None:
    index, reader = Index.load(saved), Index.load(saved)
    before = reader.search(POOL[:5], 10)
    index.remove(np.arange(20))
    index.save(saved)
    for got, expected in zip(reader.search(POOL[:5], 10), before, strict=True):
        np.testing.assert_array_equal(got, expected)
    assert_same_results(Index.load(saved), index, POOL[:5])


def test_odd_folder_and_modality_names(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9 \xff") / "a b"
    index = filled("HNSW8", POOL, "../odd\n名")
    index.save(folder)
    assert Index.load(folder).modalities == ("../odd\n名",)
    assert_same_results(Index.load(folder), index, POOL[:5])


MEASURE = """
import json, re, sys
import numpy as np
from bind.index.index import Index
from bind.space import Embeddings, unit

def private_bytes():
    return 1024 * int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1])

query = Embeddings(unit(np.ones((1, 512))), "bench")
np.ones((512, 512)) @ np.ones((512, 512))  # the buffers of the matrix library are no concern here
start = private_bytes()
index = Index.load(sys.argv[1])
index.search(query, 10)
searched = private_bytes() - start
copy = np.fromfile(sys.argv[2], np.float32)
print(json.dumps([searched, private_bytes() - start - searched]))
"""


def test_loading_and_searching_copies_no_vectors(tmp_path: Path) -> None:
    filled("Flat", latent_vectors(25_000, 512)).save(tmp_path)
    size = 25_000 * 512 * 4
    vectors = generation(tmp_path) / "0.vectors"
    run = subprocess.run([sys.executable, "-c", MEASURE, tmp_path, vectors], capture_output=True, text=True, check=True)
    searched, control = json.loads(run.stdout)
    assert searched < size / 4
    assert control > size * 0.9  # a copy would have been seen


# The GPU path, on CPU tensors


@pytest.mark.parametrize(
    ("count", "chunk_rows"), [(1, None), (700, 256), (5_000, 1_000), (5_000, None), (5_003, 4_999)]
)
@pytest.mark.parametrize("k", [1, 10, 33])
def test_streaming_top_k_equals_numpy_on_the_same_fp16_values(count: int, chunk_rows: int | None, k: int) -> None:
    vectors = latent_vectors(count, 32).vectors.astype(np.float16)
    queries = latent_vectors(7, 32, seed=1).vectors.astype(np.float16)
    dead = np.unique(np.arange(0, count, 3) // 2)[: count - 1]
    products = queries.astype(np.float32) @ vectors.astype(np.float32).T
    products[:, dead] = -np.inf
    scores, rows = top_k(
        torch.from_numpy(queries), torch.from_numpy(vectors), k, torch.from_numpy(dead), chunk_rows=chunk_rows
    )
    live = min(k, count - len(dead))
    expected = np.sort(products, axis=1)[:, ::-1][:, :live]
    np.testing.assert_allclose(scores[:, :live], expected, atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(products, rows[:, :live].numpy(), 1), expected, atol=1e-6)
    assert (rows[:, live:] == -1).all() and (scores[:, live:] == -torch.inf).all()


def test_half_rows_behind_the_index_rank_like_the_exact_shelf(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, queries = latent_vectors(3_000, 64), latent_vectors(20, 64, seed=1)
    exact = filled("Flat", vectors)
    # The class is told "cuda"; its tensors stay on the CPU, everything else is the code that runs on a GPU.
    monkeypatch.setattr("bind.index.exact_gpu.HalfRows", lambda dim, _device: HalfRows(dim, "cpu"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    half = Index(space=SPACE, dim=64, device="cuda")
    for start in range(0, 3_000, 1_000):
        half.add(np.arange(start, start + 1_000), vectors[start : start + 1_000], "image")
    for index in (exact, half):
        index.remove(np.arange(0, 3_000, 5))
        index.remove(np.arange(0, 3_000, 7))
    scores, ids = half.search(queries, 10)
    expected_scores, expected_ids = exact.search(queries, 10)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-3)
    assert recall(ids, expected_ids) >= 0.95


@pytest.mark.attack
@pytest.mark.parametrize("name", ["0.vectors", "0.ids", "index.json", "SHA256SUMS", "generation", "CURRENT"])
@pytest.mark.parametrize("kind", ["link", "hard link", "pipe"])
def test_a_file_of_an_index_that_leads_elsewhere_is_refused(saved: Path, tmp_path: Path, name: str, kind: str) -> None:
    inside = generation(saved)
    place = {"generation": inside, "CURRENT": saved / "CURRENT"}.get(name, inside / name)
    if name == "generation" and kind == "hard link":
        kind = "link"  # folders have none
    elsewhere = tmp_path / "elsewhere"
    place.rename(elsewhere)
    if kind == "link":
        place.symlink_to(elsewhere)
    elif kind == "hard link":
        os.link(elsewhere, place)
    else:
        os.mkfifo(place)
    with pytest.raises(IndexCorrupt):
        Index.load(saved)


@pytest.mark.attack
def test_saving_an_index_deletes_nothing_elsewhere(saved: Path, tmp_path: Path) -> None:
    index = Index.load(saved)
    precious = tmp_path / "precious" / "photo.jpg"
    precious.parent.mkdir()
    precious.write_bytes(b"x")
    (saved / "generation-old").symlink_to(precious.parent)
    index.save(saved)
    assert precious.is_file()
    assert not os.path.lexists(saved / "generation-old")


@pytest.mark.attack
def test_an_index_folder_may_itself_be_reached_through_a_link(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "way").symlink_to(saved)
    assert len(Index.load(tmp_path / "way")) == len(Index.load(saved))
