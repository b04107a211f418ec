"""Words in speech: a sound, or the sound of a video -> phrases with their times, by PocketSphinx.

The model is a folder as PocketSphinx's own packages have it: an acoustic model (a folder with a file `mdef`), a
language model (`*.lm.bin` or `*.lm`) and a dictionary (`*.dict`). The word `en-us` stands for the English model in its
wheel.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from preprocess.decoding.protocol import returns
from preprocess.dsp.resampling import resampled
from preprocess.extras import needs
from preprocess.readers import lines, tracks
from preprocess.readers.lines import Line
from preprocess.readers.tracks import Mix
from preprocess.source import Limits, Plan, Segment, Source

BUNDLED = "en-us"
"""The name of the English model that comes with PocketSphinx."""
_RATE_HZ = 16_000
"""Hz for which PocketSphinx's acoustic models are trained."""
_FRAMES_A_SECOND = 100
"""PocketSphinx counts the times of words in frames of 10 ms."""
_WORDS_A_LINE = 10
"""Words of one line: 3 to 4 s of speech, so that a match leads near to the place."""
_NO_WORD = re.compile(r"<.*>|\[.*\]|\+\+.*\+\+")
"""Silence, noise and breath, as dictionaries of Sphinx call them."""


@dataclass(frozen=True)
class SpeechConfig:
    """`model` is the folder of a model (see this module), or `en-us`."""

    model: str = BUNDLED


@dataclass(frozen=True)
class _Files:
    acoustic: Path
    language: Path
    dictionary: Path


@returns(lines.declare)
def read(source: Source, config: SpeechConfig, limits: Limits, plan: Plan) -> list[Segment]:
    """Sound or video -> one segment of phrases (see `preprocess.readers.lines.unpacked`) of up to ten words.

    Phrases begin where a voice begins and, of long ones, at a word. Raises MediaError as
    `preprocess.readers.audio.read` does, and ValueError for a folder that is no model.
    """
    mix = Mix()
    found: list[Line] = []
    decoder, listener = _decoder(config.model), _endpointer()
    with tracks.open_track(source, _RATE_HZ, limits, mix) as track:
        blocks = tracks.checked(track, source.name, limits, _RATE_HZ)
        start_s = track.start_s
        for is_first, speech, is_last, begins_s in _stretches(listener, resampled(blocks, track.rate_hz, _RATE_HZ)):
            if is_first:
                decoder.start_utt()
                start_s = track.start_s + begins_s
            decoder.process_raw(speech)
            if is_last:
                decoder.end_utt()
                found += _phrases(decoder, start_s)
    return lines.packed(found)


def check(model: str) -> None:
    """Raises MissingExtra where PocketSphinx is not installed, ValueError for a folder that is no model."""
    with needs("speech", "hearing words in speech"):
        import pocketsphinx  # noqa: F401
    _files(model)


def _stretches(listener: Any, blocks: Iterator[np.ndarray]) -> Iterator[tuple[bool, bytes, bool, float]]:
    """Mono float blocks -> (a voice begins, its 16-bit samples, it ends, where it began in seconds), in their order."""
    was_speech, rest = False, b""
    for block in blocks:
        rest += (np.clip(block, -1, 1) * 32767).astype("<i2").tobytes()
        used = 0
        while len(rest) - used > listener.frame_bytes:  # the last frame is for `end_stream`
            speech = listener.process(rest[used : used + listener.frame_bytes])
            used += listener.frame_bytes
            if speech is not None:
                yield not was_speech, speech, not listener.in_speech, listener.speech_start
            was_speech = listener.in_speech
        rest = rest[used:]
    if rest and (speech := listener.end_stream(rest)) is not None:
        yield not was_speech, speech, True, listener.speech_start


def _phrases(decoder: Any, start_s: float) -> Iterator[Line]:
    """What was recognised between `start_utt` and `end_utt` -> phrases of up to ten words."""
    segments = decoder.seg() if decoder.hyp() is not None else None
    words = [
        (re.sub(r"\(\d+\)$", "", one.word), one.start_frame, one.end_frame)
        for one in segments or ()
        if not _NO_WORD.fullmatch(one.word)
    ]
    for at in range(0, len(words), _WORDS_A_LINE):
        phrase = words[at : at + _WORDS_A_LINE]
        begins_s, ends_s = phrase[0][1] / _FRAMES_A_SECOND, (phrase[-1][2] + 1) / _FRAMES_A_SECOND
        yield Line(" ".join(word for word, _, _ in phrase), start_s=start_s + begins_s, end_s=start_s + ends_s)


def _files(model: str) -> _Files:
    """The three parts of a model. Raises ValueError where one is missing."""
    with needs("speech", "hearing words in speech"):
        import pocketsphinx
    folder = Path(pocketsphinx.get_model_path(BUNDLED)) if model == BUNDLED else Path(os.path.abspath(model))
    places = sorted(folder.glob("*")) if folder.is_dir() else []
    acoustic = [place for place in places if (place / "mdef").is_file()]
    acoustic += [folder] if (folder / "mdef").is_file() else []
    language = [place for place in places if place.name.endswith((".lm.bin", ".lm")) and "phone" not in place.name]
    dictionary = [place for place in places if place.suffix == ".dict"]
    if not (acoustic and language and dictionary):
        raise ValueError(
            f"speech: {folder} is no model of PocketSphinx: expected a folder with a file mdef, one *.lm.bin and one "
            f"*.dict in it (`{BUNDLED}` is the English model that comes with it)"
        )
    return _Files(acoustic[0], language[0], dictionary[0])


def _endpointer() -> Any:
    from pocketsphinx import Endpointer

    return Endpointer(sample_rate=_RATE_HZ)


@functools.lru_cache(maxsize=1)
def _decoder(model: str) -> Any:
    files = _files(model)
    from pocketsphinx import Decoder

    parts = {"hmm": str(files.acoustic), "lm": str(files.language), "dict": str(files.dictionary)}
    return Decoder(**parts, samprate=float(_RATE_HZ), loglevel="FATAL")
