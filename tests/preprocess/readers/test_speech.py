"""Words in speech: a synthetic voice is understood in an isolated worker, with times."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_manifests.datasets.spoken import RATE_HZ, espeak_ng
from preprocess.decoding.pool import DecodePool
from preprocess.readers import speech
from preprocess.readers.lines import unpacked
from preprocess.source import Limits, MediaError, Source

LIMITS = Limits(decode_cpu_s=60)


def wav(samples: np.ndarray, rate_hz: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, format="WAV")
    return file.getvalue()


def test_numbers_are_understood_at_their_time() -> None:
    pause = np.zeros(2 * RATE_HZ, np.float32)
    said = espeak_ng().speak("one two three four five", "en-us+f2", 120, 40, 50)
    recording = wav(np.concatenate([pause, said, pause]), RATE_HZ)
    with DecodePool(1) as pool:
        future = pool.submit(speech.read, Source(recording, "a.wav"), speech.SpeechConfig(), LIMITS, "whole")
        lines = unpacked(future.result())
        silence = pool.submit(speech.read, Source(wav(pause, RATE_HZ), "b.wav"), speech.SpeechConfig(), LIMITS, "whole")
        assert unpacked(silence.result()) == ()
        with pytest.raises(MediaError):
            pool.submit(speech.read, Source(b"no sound", "c.wav"), speech.SpeechConfig(), LIMITS, "whole").result()
    assert "three" in " ".join(line.text for line in lines).split()  # it mishears a good part of any voice
    start_s, end_s = lines[0].start_s, lines[-1].end_s
    assert start_s is not None and 1.8 < start_s < 2.6
    assert end_s is not None and end_s < 2 + len(said) / RATE_HZ + 0.5


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no model of PocketSphinx.*mdef"):
        speech.check(str(tmp_path))
    speech.check(speech.BUNDLED)
