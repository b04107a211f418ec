"""Long recordings are cut where sound begins behind a pause: on recordings with known events."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from preprocess.decoding.pool import DecodePool
from preprocess.dsp import pauses
from preprocess.readers.audio import AudioConfig, read
from preprocess.source import Limits, Source

RATE_HZ = 16_000
EVENTS = ((0.5, 3.1), (4.0, 6.7), (9.25, 12.0), (15.33, 29.0), (31.0, 33.5))
"""Begin and end of each sound in seconds; the fourth is longer than a segment may be."""


def recording() -> np.ndarray:
    """36 s of faint noise with a tone or louder noise in each event, and in one a gap as between two words."""
    rng = np.random.default_rng(0)
    samples = 0.001 * rng.standard_normal(36 * RATE_HZ).astype(np.float32)
    for number, (begin, end) in enumerate(EVENTS):
        times = np.arange(round(begin * RATE_HZ), round(end * RATE_HZ))
        loud = np.sin(times * 0.2) if number % 2 else rng.standard_normal(len(times))
        samples[times] += 0.2 * loud.astype(np.float32)
    samples[round(1.5 * RATE_HZ) : round(1.65 * RATE_HZ)] *= 0.001
    return samples


@pytest.mark.parametrize("form", ["in memory", "file of another rate, in a worker"])
def test_segments_begin_where_sounds_begin(form: str, tmp_path: Path) -> None:
    config = AudioConfig(cut="pauses")
    if form == "in memory":
        found = read(Source(recording(), "x"), config, Limits(), "segments")
    else:
        soundfile.write(tmp_path / "x.flac", np.repeat(recording(), 2), 2 * RATE_HZ)
        with DecodePool(workers=1) as pool:
            found = pool.submit(read, Source.from_path(tmp_path / "x.flac"), config, Limits(), "segments").result()
    starts = [segment.start_s for segment in found]
    # The first half second is shorter than a clip; the long sound is cut again after `segment_s`.
    expected = [0.0, 4.0, 9.25, 15.33, 25.33, 31.0]
    np.testing.assert_allclose(starts, expected, atol=0.1)
    assert found[-1].end_s == pytest.approx(36)
    assert all(one.end_s == two.start_s for one, two in itertools.pairwise(found))
    assert all(segment.views.shape == (3, 2 * RATE_HZ) for segment in found)
    fixed = read(Source(recording(), "x"), AudioConfig(), Limits(), "segments")
    assert [segment.start_s for segment in fixed] == [0, 10, 20, 30]  # the default cuts as ever


def test_the_whole_is_never_cut() -> None:
    (one,) = read(Source(recording(), "x"), AudioConfig(cut="pauses"), Limits(), "whole")
    (other,) = read(Source(recording(), "x"), AudioConfig(), Limits(), "whole")
    np.testing.assert_array_equal(one.views, other.views)


@pytest.mark.parametrize("samples", [np.zeros(80_000, np.float32), np.full(80_000, 0.5, np.float32)])
def test_silence_and_endless_sound_have_no_onset(samples: np.ndarray) -> None:
    loudness = pauses.Loudness(RATE_HZ)
    for block in np.array_split(samples, 7):
        loudness.add(block)
    assert loudness.onsets() == []


def test_onsets_do_not_depend_on_the_blocks() -> None:
    found = []
    for parts in (1, 3, 1000):
        loudness = pauses.Loudness(RATE_HZ)
        for block in np.array_split(recording(), parts):
            loudness.add(block)
        found.append(loudness.onsets())
    assert found[0] == found[1] == found[2]


@given(st.integers(1, 500), st.lists(st.integers(0, 500), unique=True), st.integers(1, 60), st.integers(1, 90))
def test_edges_cover_everything_in_segments_that_are_long_enough(
    count: int, onsets: list[int], shortest: int, longest: int
) -> None:
    found = pauses.edges(count, sorted(onsets), shortest, longest)
    assert found[0] == 0 and found[-1] == count
    lengths = np.diff(found)
    assert (lengths >= min(shortest, count)).all()
    assert (lengths < max(shortest, longest) + shortest).all()


@given(st.integers(1, 500), st.integers(1, 60), st.integers(1, 90))
def test_without_onsets_the_cuts_are_those_of_every_version(count: int, shortest: int, longest: int) -> None:
    step = max(shortest, longest)
    expected = [*range(0, max(1, count - shortest + 1), step), count]
    assert pauses.edges(count, [], shortest, longest) == expected
