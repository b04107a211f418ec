"""Names of emoji and captions of stamps, spoken by a synthesiser in many voices and languages, with their pictures."""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import importlib
import importlib.util
import itertools
import json
import multiprocessing
import random
import re
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from data_manifests import Builder, BuildError, Download, Entry, Split
from data_manifests.datasets import emoji, stamps

LANGUAGES = {
    "be": "be",
    "bg": "bg",
    "ca": "ca",
    "da": "da",
    "el": "el",
    "en": "en-us",
    "es": "es",
    "fr": "fr",
    "ro": "ro",
    "ru": "ru",
}
"""Language -> espeak-ng's voice, for English and each language in which Tux Paint has hundreds of recordings."""
VARIANTS = (
    *("m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "f1", "f2", "f3", "f4", "f5", "klatt", "klatt2", "klatt4"),
    *("Andy", "Annie", "Alicia", "Andrea", "Diogo", "Hugo", "Jacky", "Lee", "Marco", "Mario", "Michael", "Mike"),
    *("adam", "anika", "aunty", "belinda", "benjamin", "boris", "caleb", "david", "ed", "edward", "gustave", "ian"),
    *("iven", "john", "linda", "marcelo", "max", "michel", "miguel", "norbert", "pablo", "paul", "pedro", "quincy"),
    *("rob", "robert", "shelby", "steph", "victor"),
)
"""The speakers of espeak-ng that can be understood."""
RATE_HZ = 16_000
"""The rate of the written speech, that of the audio encoders' input."""
_TAKES = {"name": 2, "keyword": 1, "caption": 2}
"""How often a phrase is spoken, each time by another voice."""
_MOST_PICTURES = 4
"""A keyword of more emoji than these ("face") says too little about each of them."""
_WORDS_PER_MINUTE, _PITCH, _RANGE = (130, 210), (25, 75), (30, 70)
"""From which speeds, pitches and ranges of pitch (0 to 100) each voice is drawn: a person's, without a child's or a
robot's."""
_LONGEST = 80  # letters; what takes longer than a clip is cut by whoever reads it
_ARTICLES = frozenset(
    re.findall(
        r"\S+", "a an the un une des le la les l' d' du de el los las una unos unas els uns unes en et ett o niște"
    )
)
"""Articles that `core` takes away, in the languages of the captions."""
_INSTALL = (
    "expected the synthesiser espeak-ng to speak with; install the Debian package libespeak-ng1, or the Python package "
    "espeakng-loader, which contains it"
)
"""How to get the synthesiser, the end of each error about it."""


@dataclass
class _Phrase:
    """A phrase of a language, the name of its thing, and the pictures that show the thing."""

    language: str
    text: str
    kind: str
    pictures: dict[str, list[Path]] = field(default_factory=dict)


def splits(download: Download) -> Iterator[Split]:
    """One manifest, an event a take: picture, sound and phrase; `group` is the English name of what is shown.

    Emoji are spoken by name and by keyword in `LANGUAGES`, stamps by their captions. What names one thing is never
    spoken as the keyword of another, so that a split by group keeps the words of its sides apart. Raises BuildError
    where there is no espeak-ng.
    """
    captions = _captions(download)
    phrases = itertools.chain(_emoji(download, captions), *(each.values() for each in captions.values()))
    takes = [(p, number) for p in phrases if len(p.text) <= _LONGEST for number in range(_TAKES[p.kind])]
    if takes:
        yield Split("", _events(download, takes), about="Spoken by espeak-ng.", base=download.common)


def core(language: str, text: str) -> str:
    """`Une Vache !` -> `vache`: a phrase in lower case without punctuation and leading articles."""
    words = re.findall(r"\w+'?", text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))
    while len(words) > 1 and language not in ("ru", "be", "bg") and words[0] in _ARTICLES:
        words = words[1:]
    return " ".join(words)


def _emoji(download: Download, captions: dict[str, dict[str, _Phrase]]) -> Iterator[_Phrase]:
    things: dict[str, tuple[str, list[Path]]] = {}
    for entry in itertools.chain.from_iterable(split.events for split in emoji.splits(download)):
        # Not in other skin tones; and flags would be names of countries.
        if entry["id"].endswith(f"/{entry['group']}") and "-1f1" not in entry["group"]:
            _, pictures = things.setdefault(entry["group"], (entry["text"][-1], []))
            pictures.append(download.path / entry["image"]["path"])
    for language in LANGUAGES:
        annotations = _annotations(download, language)
        named: dict[str, _Phrase] = {}
        keywords: dict[str, _Phrase] = {}
        for code, (name, pictures) in things.items():
            entry = annotations.get(code, {})
            for kind, texts, phrases in (
                ("name", entry.get("tts", [])[:1], named),
                ("keyword", entry.get("default", []), keywords),
            ):
                for text in texts:
                    phrase = phrases.setdefault(text, _Phrase(language, text, kind))
                    phrase.pictures.setdefault(name, []).extend(pictures)
        names = {core(language, text) for text in [*named, *captions[language]]}
        yield from named.values()
        for text, phrase in keywords.items():
            if core(language, text) not in names and len(phrase.pictures) <= _MOST_PICTURES:
                yield phrase


def _annotations(download: Download, language: str) -> dict[str, dict[str, list[str]]]:
    """Code of an emoji -> `tts` (its name) and `default` (keywords), from the packages of Unicode's CLDR."""
    found: dict[str, dict[str, list[str]]] = {}
    for folder in ("annotations", "annotationsDerived"):
        place = f"{folder}/{language}/annotations.json"
        path = next((path for depth in range(4) for path in sorted(download.path.glob("*/" * depth + place))), None)
        if path is None:
            download.lacks("names of emoji (packages cldr-annotations-full and -derived-full)", place)
            continue
        for character, entry in json.loads(path.read_bytes())[folder]["annotations"].items():
            found["-".join(f"{ord(c):x}" for c in character if c != "\N{VARIATION SELECTOR-16}")] = entry
    return found


def _captions(download: Download) -> dict[str, dict[str, _Phrase]]:
    """Language -> caption of a stamp -> what is to be said."""
    found: dict[str, dict[str, _Phrase]] = {language: {} for language in LANGUAGES}
    base = stamps.base(download)
    if base is None:
        return found
    for stamp in stamps.read(download, base).values():
        for language in LANGUAGES:
            caption = stamp.captions.get(language, "")
            if caption and stamp.picture and "en" in stamp.captions:
                phrase = found[language].setdefault(caption, _Phrase(language, caption, "caption"))
                phrase.pictures.setdefault(stamp.captions["en"], []).append(base / stamp.picture)
    return found


def _events(download: Download, takes: list[tuple[_Phrase, int]]) -> Iterator[Entry]:
    """Speaks in as many processes as there are cores."""
    spoken = [(phrase.language, phrase.text, number) for phrase, number in takes]
    download.made.mkdir(parents=True, exist_ok=True)
    espeak_ng()  # its absence is told here, once
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(mp_context=context) as pool:
        made = pool.map(functools.partial(_speak, download.made), spoken, chunksize=256)
        for (phrase, _), path in zip(takes, made, strict=True):
            if path is None:
                download.lacks("sound of", f"{phrase.language}: {phrase.text}")
                continue
            for name, pictures in phrase.pictures.items():
                # By lot, and the same whether or not another picture is there.
                lots = [(zlib.crc32(f"{path.stem} {picture}".encode()), picture) for picture in pictures]
                yield {
                    "id": f"{path.stem}/{name}",
                    "image": {"path": min(lots)[1].relative_to(download.common).as_posix()},
                    "audio": {"path": path.relative_to(download.common).as_posix()},
                    "text": phrase.text,
                    "group": name,
                }


def _speak(folder: Path, take: tuple[str, str, int]) -> Path | None:
    """A language, a phrase and the number of a take -> its file, None where nothing is to be heard."""
    language, text, number = take
    draw = random.Random(f"{number} {text} {language}")
    path = folder / language / f"{language}-{draw.getrandbits(64):016x}.flac"
    if not path.is_file():
        voice = f"{LANGUAGES[language]}+{draw.choice(VARIANTS)}"
        settings = draw.randint(*_WORDS_PER_MINUTE), draw.randint(*_PITCH), draw.randint(*_RANGE)
        samples = espeak_ng().speak(text, voice, *settings)
        if not np.abs(samples).max(initial=0) > 0.01:
            return None
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".part")
        soundfile.write(aside, samples, RATE_HZ, format="FLAC", subtype="PCM_16")
        aside.rename(path)
    return path


class EspeakNG:
    """The library of espeak-ng, version 1.50 or newer: text and a voice -> samples. One a process."""

    def __init__(self, library: str, data: str | None) -> None:
        self._library = ctypes.CDLL(library)
        self._blocks: list[np.ndarray] = []
        # AUDIO_OUTPUT_RETRIEVAL would do; 2 is AUDIO_OUTPUT_SYNCHRONOUS, which returns when all is said.
        self._rate_hz = self._library.espeak_Initialize(2, 0, data.encode() if data else None, 0)
        if self._rate_hz <= 0:
            raise BuildError(f"espeak-ng: {library} found no voices{f' in {data}' if data else ''}; {_INSTALL}")
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        self._callback = kind(self._collect)
        self._library.espeak_SetSynthCallback(self._callback)

    def _collect(self, block: Any, count: int, _: Any) -> int:
        if block and count:
            self._blocks.append(np.ctypeslib.as_array(block, (count,)).copy())
        return 0

    def speak(self, text: str, voice: str, words_per_minute: int, pitch: int, pitch_range: int) -> np.ndarray:
        """Text -> (N,) float32 samples at `RATE_HZ`; pitch and range 0 to 100. Raises BuildError for another voice."""
        import soxr

        if self._library.espeak_SetVoiceByName(voice.encode()):
            raise BuildError(f"espeak-ng has no voice {voice!r}; 1.50 or newer with all its data is needed")
        for parameter, value in ((1, words_per_minute), (3, pitch), (4, pitch_range)):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._blocks.clear()
        encoded = text.encode() + b"\0"
        if self._library.espeak_Synth(encoded, len(encoded), 0, 1, 0, 1, None, None):
            raise BuildError(f"espeak-ng could not say {text!r}")
        whole = np.concatenate([np.zeros(1, np.int16), *self._blocks]).astype(np.float32) / 2**15
        samples: np.ndarray = soxr.resample(whole, self._rate_hz, RATE_HZ)
        return samples.clip(-1, 1)


@functools.cache
def espeak_ng() -> EspeakNG:
    """The synthesiser of this machine. Raises BuildError, which says what to install, where there is none."""
    if importlib.util.find_spec("espeakng_loader"):
        package = importlib.import_module("espeakng_loader")
        return EspeakNG(package.get_library_path(), str(Path(package.get_data_path()).parent))
    if library := ctypes.util.find_library("espeak-ng"):
        return EspeakNG(library, None)
    raise BuildError(_INSTALL)


BUILDER = Builder(
    title="Names of emoji and captions of Tux Paint's stamps, spoken by a synthesiser.",
    license="voices: those of espeak-ng (GPL-3); pictures: as in the manifests emoji and stamps; names: Unicode-3.0",
    obtain="the npm packages cldr-annotations-full, cldr-annotations-derived-full and those of `emoji`, and the Debian "
    "package of `stamps`, each unpacked below one folder",
    layout="packages in folders of their own, the stamps as usr/share/tuxpaint/stamps",
    splits=splits,
)
