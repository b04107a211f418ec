"""Moments: all stretches of a recording that match, and the curve that they are cut from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.source import Limits, Source
from serve.library import moments
from serve.library.calibration import Scale
from serve.library.errors import UnknownItemError
from serve.library.library import Library
from serve.library.moments import Moment, MomentOptions
from tests.serve import tiny


def spans(count: int, length_s: float = 2.0) -> np.ndarray:
    starts = np.arange(count) * length_s
    return np.stack([starts, starts + length_s], 1)


def found(scores: list[float], threshold: float = 2.0, length_s: float = 2.0) -> list[tuple[float, float]]:
    times = spans(len(scores), length_s)
    cut = moments.find(times, np.array(scores, np.float64), threshold)
    return [(float(times[first, 0]), float(times[last, 1])) for first, last, _ in cut]


def test_runs_of_high_scores_are_moments() -> None:
    assert found([0, 0, 5, 5, 5, 0, 0, 0, 4, 4, 0, 0]) == [(4, 10), (16, 20)]
    assert found([0, 0, 5, 3, 5, 0, 0, 0, 0, 0]) == [(4, 10)], "a short dip does not cut"
    assert found([5, 5, 0, 0, 0, 0, 0, 5]) == [(0, 4), (14, 16)], "at the ends"
    assert found([0, 1, 1.9, 1, 0]) == [] and found([]) == []
    assert found([0, 0, 9, 2.5, 0, 0, 0, 3, 0]) == [(4, 6), (14, 16)], "a moment ends far below its own peak"
    assert found([0, 5, 0, 0, 4, 0, 0, 0], length_s=10.0) == [(10, 20), (40, 50)], "long stretches are not smoothed"


@given(
    scores=st.lists(st.floats(-5, 12), max_size=60),
    threshold=st.floats(0, 6),
    gaps=st.lists(st.integers(0, 59), max_size=5),
)
@settings(max_examples=200, deadline=None)
def test_every_moment_has_a_high_stretch_and_no_high_stretch_is_left(
    scores: list[float], threshold: float, gaps: list[int]
) -> None:
    times = spans(len(scores))
    for gap in gaps:
        times[gap:] += 5.0
    values = np.array(scores, np.float64)
    cut = moments.find(times, values, threshold)
    inside = np.zeros(len(scores), int)
    for first, last, peak in cut:
        assert first <= peak <= last and values[peak] == values[first : last + 1].max() >= threshold
        inside[first : last + 1] += 1
    assert (inside <= 1).all()
    beside = np.convolve(inside, [1, 1, 1])[1:-1] if len(inside) else inside
    assert (beside[values >= threshold] > 0).all(), "what is high is in a moment, or the shoulder of one"
    assert cut == sorted(cut)
    assert moments.find(times, values, float(values.max(initial=-9)) + 1) == []


def test_options_choose_among_moments() -> None:
    all_ = [Moment(float(at), at + 2.0, at + 1.0, 3.0) for at in (0, 10, 20)]
    assert MomentOptions().chosen(all_) == all_
    assert MomentOptions(which="first").chosen(all_) == all_[:1]
    assert MomentOptions(which="last").chosen(all_) == all_[-1:]
    assert MomentOptions(after_s=5).chosen(all_) == all_[1:]
    assert MomentOptions(before_s=12).chosen(all_) == all_[:2]
    assert MomentOptions(which="first", after_s=11).chosen(all_) == all_[2:]
    assert MomentOptions(which="last").chosen([]) == []


def test_the_threshold_is_that_of_the_probability_where_there_is_one() -> None:
    def likely(cosines: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-50 * (cosines - 0.3)))

    scale = Scale(0.1, 0.05, likely)
    assert scale.cutoff(2.0) == pytest.approx(4.0, abs=1e-3)
    assert Scale(0.1, 0.05).cutoff(2.0) == 2.0
    assert Scale(0.1, 0.05, lambda cosines: np.zeros(len(cosines))).cutoff(2.0) == np.inf
    assert Scale(0.1, 0.05, lambda cosines: np.ones(len(cosines))).cutoff(2.0) == -np.inf


@pytest.fixture
def library(tmp_path: Path) -> Library:
    (tmp_path / "media").mkdir()
    tiny.clip(tmp_path / "media/film.mp4", 12.0)
    tiny.clip(tmp_path / "media/other.mp4", 7.0, None)
    tiny.picture(tmp_path / "media/still.png", 1)
    library = Library.open(tmp_path / "library", tiny.model())
    assert library.index(tmp_path / "media").skipped == []
    return library


def test_a_recording_of_the_library_has_a_curve_and_moments(library: Library) -> None:
    hits = library.search("x", k=50, keywords=False, every_segment=True, where="name = 'film.mp4'")
    for modality in ("video", "audio"):
        own = sorted((hit for hit in hits if hit.modality == modality), key=lambda hit: hit.start_s or 0)
        curve = library.moments(own[0].item_id, "x", min_score=-1e9)
        assert curve.item_ids == tuple(hit.item_id for hit in own)
        np.testing.assert_allclose(curve.spans, [(hit.start_s, hit.end_s) for hit in own])
        np.testing.assert_allclose(curve.scores, [hit.score for hit in own], atol=1e-6)
        assert {(one.start_s, one.end_s) for one in curve} == {(curve[0].start_s, curve[-1].end_s)} or len(curve) > 1
        assert library.moments(own[1].item_id, "x", min_score=1e9) == []
    stills = library.search("x", k=5, want=["image"])
    with pytest.raises(ValueError, match="expected an item of a recording, got image"):
        library.moments(stills[0].item_id, "x")
    with pytest.raises(UnknownItemError):
        library.moments(999, "x")


def test_fine_stretches_are_read_from_the_file(library: Library) -> None:
    item = library.search("x", k=1, want=["audio"], keywords=False)[0].item_id
    stored, fine = (library.moments(item, "x", min_score=-1e9, fine=on) for on in (False, True))
    assert fine.item_ids == () and len(fine.spans) == len(fine.scores) == 6
    assert (fine.spans[1:, 0] == fine.spans[:-1, 1]).all() and fine.spans[0, 0] == 0
    assert fine.spans[-1, 1] == pytest.approx(stored.spans[-1, 1], abs=0.2)
    library.close()


def test_a_long_recording_has_longer_fine_stretches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "MOST_STEPS", 3)
    sound = tiny.sound(tmp_path / "tone.wav", 440, 20.0)
    times, vectors = moments.finely(tiny.model(), Source.from_path(str(sound)), "audio", 20.0, Limits())
    assert len(times) == len(vectors) == 3
