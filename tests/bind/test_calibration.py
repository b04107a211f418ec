"""Probabilities of hits: the background's scale, what moves a probability, the file; the space is unchanged."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from bind import calibration, checkpoint, zoo
from bind.calibration import Background, Calibration
from tests.serve import tiny

DIM = 32


def unit(rng: np.random.Generator, count: int, centre: np.ndarray | None = None) -> np.ndarray:
    vectors = rng.normal(size=(count, DIM)) + (0 if centre is None else centre)
    found: np.ndarray = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return found


@pytest.fixture
def one() -> Calibration:
    rng = np.random.default_rng(0)
    backgrounds = {"image": calibration.background(unit(rng, 500)), "audio": calibration.background(unit(rng, 500))}
    return Calibration("space", backgrounds, {("text", "image"): np.array([1.0, 0.5, -0.5, -2.0], np.float32)})


@pytest.mark.parametrize("dim", [DIM, 80])
def test_background_knows_centre_and_spread_of_any_query(dim: int) -> None:
    rng = np.random.default_rng(1)
    # Some directions vary much more than others, and there are more of them than are kept.
    vectors = rng.normal(size=(4000, dim)) * np.linspace(0.2, 2, dim) + 0.5
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = calibration.background(vectors.astype(np.float32))
    for query in rng.normal(size=(6, dim)) / np.sqrt(dim):
        centre, spread = found.scale(query)
        cosines = vectors @ query
        assert centre == pytest.approx(cosines.mean(), abs=1e-4)
        assert spread == pytest.approx(cosines.std(), rel=0.05)
    with pytest.raises(ValueError, match="at least two"):
        calibration.background(vectors[:1])


def test_a_higher_cosine_is_likelier_and_a_larger_library_less_likely(one: Calibration) -> None:
    rng = np.random.default_rng(2)
    (query,), sample = unit(rng, 1), np.linspace(-0.1, 0.1, 50)
    cosines = np.array([0.1, 0.2, 0.4])

    def probability(count: int) -> np.ndarray:
        found = one.probability(("text", "image"), query, cosines, sample, count)
        assert found is not None
        return found

    assert (np.diff(probability(50)) > 0).all() and (probability(50) > probability(5000)).all()
    assert ((probability(50) > 0) & (probability(50) < 1)).all()
    assert one.probability(("text", "audio"), query, cosines, sample, 50) is None
    assert one.probability(("image", "text"), query, cosines, sample, 50) is None


def test_few_items_cannot_bend_the_scale(one: Calibration) -> None:
    """Of three items two that happen to agree would make the third stand out by any number of their deviations."""
    (query,) = unit(np.random.default_rng(3), 1)
    few = np.array([0.05, 0.051, 0.1])
    own, spread = calibration.centre_and_spread(few)
    assert (0.1 - own) / spread > 20
    features = one.features(query, "image", few, few, 3)
    assert abs(features[2, 1] - features[2, 0]) < 1
    # Many items outweigh the background: a library that lies elsewhere is measured by itself.
    many = np.random.default_rng(4).normal(0.3, 0.02, 2000)
    assert one.features(query, "image", np.array([0.3]), many, 2000)[0, 1] == pytest.approx(0, abs=0.2)


def test_the_file_holds_all_of_it(one: Calibration, tmp_path: Path) -> None:
    one.write(tmp_path / calibration.FILE)
    found = calibration.read(tmp_path / calibration.FILE, DIM)
    assert found.space == "space" and set(found.backgrounds) == {"image", "audio"}
    np.testing.assert_array_equal(found.pairs["text", "image"], one.pairs["text", "image"])
    (query,) = unit(np.random.default_rng(5), 1)
    assert found.backgrounds["image"].scale(query) == pytest.approx(one.backgrounds["image"].scale(query), rel=1e-2)


@pytest.mark.parametrize("fault", ["other dimension", "no background", "no safetensors", "missing"])
def test_a_bad_file_is_one_error(fault: str, one: Calibration, tmp_path: Path) -> None:
    file = tmp_path / calibration.FILE
    if fault == "no background":
        one = Calibration("space", {}, one.pairs)
    if fault != "missing":
        one.write(file)
    if fault == "no safetensors":
        file.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"calibration\.safetensors: is no calibration"):
        calibration.read(file, 7 if fault == "other dimension" else DIM)


def test_a_checkpoint_brings_it_and_the_space_stays(tmp_path: Path) -> None:
    model = zoo.load("small", weights="random", modalities=None)
    folder = tmp_path / "model"
    checkpoint.write(folder, model.description, {name: model.tower(name) for name in model.modalities})
    plain = zoo.load(folder)
    assert plain.calibration is None
    background = Background(np.zeros(plain.dim, np.float32), np.zeros((2, plain.dim), np.float32), 0.01)
    weights = np.array([1, 1, -1, 0], np.float32)
    for space in (plain.space, "of other weights"):
        Calibration(space, {"image": background}, {("text", "image"): weights}).write(folder / calibration.FILE)
        checkpoint.write_sums(folder)
        if space == plain.space:
            loaded = zoo.load(folder, modalities=["image", "text"])
            assert loaded.space == plain.space
            assert loaded.calibration is not None and set(loaded.calibration.pairs) == {("text", "image")}
        else:
            with pytest.warns(UserWarning, match="belongs to space of other weights"):
                assert zoo.load(folder, modalities=["image"]).calibration is None
    with (folder / calibration.FILE).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(checkpoint.CheckpointError, match="damaged"):
        zoo.load(folder, modalities=["image"])


def test_a_model_made_in_memory_has_none() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tiny.seven().calibration is None
