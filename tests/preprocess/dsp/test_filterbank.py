from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchaudio.compliance import kaldi

from preprocess.dsp.filterbank import log_mel

TOLERANCE = 1e-4
SECONDS = torch.arange(16_000) / 16_000
SINE = torch.sin(2 * math.pi * 440 * SECONDS)
SWEEP = torch.sin(2 * math.pi * (20 * SECONDS + 3990 * SECONDS**2))
NOISE = torch.randn(16_000, generator=torch.Generator().manual_seed(0))


def reference(waveforms: torch.Tensor, window: str = "hanning", rate: int = 16_000, bins: int = 128) -> torch.Tensor:
    options = {"htk_compat": True, "use_energy": False, "dither": 0.0, "frame_length": 25, "frame_shift": 10}
    return torch.stack(
        [
            kaldi.fbank(w[None], window_type=window, sample_frequency=rate, num_mel_bins=bins, **options)
            for w in waveforms
        ]
    )


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    assert ours.shape == theirs.shape
    assert ours.dtype == torch.float32
    return float((ours - theirs).abs().max())


@pytest.mark.parametrize(
    "waveform",
    [
        pytest.param(NOISE * 0.1, id="noise"),
        pytest.param(NOISE * 1e-4, id="quiet noise"),
        pytest.param(NOISE * 8000, id="noise in the range of int16"),
        pytest.param(NOISE * 0.01 + 100, id="noise on a large offset"),
        pytest.param(torch.zeros(16_000), id="silence"),
        pytest.param(torch.full((16_000,), 0.7), id="constant"),
        pytest.param(SINE, id="sine"),
        pytest.param(SWEEP, id="sweep"),
        pytest.param(SWEEP * 32767, id="sweep in the range of int16"),
        pytest.param(SINE.sign(), id="square"),
        pytest.param(torch.eye(1, 16_000)[0], id="impulse"),
    ],
)
def test_equals_kaldi(waveform: torch.Tensor) -> None:
    # Six rows: more than one pass on a CPU, the last of them not full.
    batch = torch.stack([waveform.roll(100 * i) for i in range(6)])
    assert difference(log_mel(batch), reference(batch)) <= TOLERANCE


@given(samples=st.integers(400, 20_000), batch=st.integers(1, 6), seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_equals_kaldi_at_any_length(samples: int, batch: int, seed: int) -> None:
    waveforms = torch.randn(batch, samples, generator=torch.Generator().manual_seed(seed))
    assert difference(log_mel(waveforms), reference(waveforms)) <= TOLERANCE


@pytest.mark.parametrize(("rate", "bins"), [(8_000, 40), (16_000, 64), (22_050, 80), (48_000, 200)])
def test_equals_kaldi_at_other_rates_and_sizes(rate: int, bins: int) -> None:
    batch = NOISE[None] * 0.1
    assert difference(log_mel(batch, rate, bins), reference(batch, rate=rate, bins=bins)) <= TOLERANCE


def test_another_window_is_further_away_than_the_tolerance() -> None:
    # The negative control: the paper says Hamming, its code takes Hann.
    batch = NOISE[None] * 0.1
    assert difference(log_mel(batch), reference(batch, window="hamming")) > 100 * TOLERANCE


def test_rows_do_not_touch_each_other() -> None:
    batch = NOISE[:4000].repeat(6, 1)
    batch[2] = torch.nan
    ours = log_mel(batch)
    good = [0, 1, 3, 4, 5]
    assert torch.equal(ours[good], ours[:1].expand(5, -1, -1))
    assert ours[2].isnan().any()


def test_constants_made_in_inference_mode_serve_outside_of_it() -> None:
    with torch.inference_mode():
        first = log_mel(NOISE[None, :1000], 16_000, 31)
    assert torch.equal(first, log_mel(NOISE[None, :1000].requires_grad_(), 16_000, 31))


def test_autocast_changes_nothing() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = log_mel(NOISE[None])
    assert torch.equal(inside, log_mel(NOISE[None]))


@pytest.mark.parametrize("shape", [(400,), (1, 399), (0, 400), (1, 1, 400)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        log_mel(torch.zeros(shape))


@pytest.mark.gpu
def test_equals_kaldi_on_a_gpu() -> None:
    batch = NOISE.cuda().expand(300, -1) * 0.1
    # The FFT of another library rounds differently, which shows in the few bins where noise holds almost nothing.
    apart = (log_mel(batch).cpu() - reference(batch[:1].cpu())).abs()
    assert apart.max() <= 5e-3
    assert apart.mean() <= 1e-5
