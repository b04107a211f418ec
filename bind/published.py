"""Folders of models that others publish: their digest, loading them, and the raw views that their encoders get.

An encoder of such a folder gets media as our readers give them (`raw` in the constants of a modality), and texts as
characters, and lets the processors of the folder prepare them, so that a vector is the one of its makers' own code.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from bind import tokenizers
from bind.files import sha256
from preprocess.readers import text

CLIP_S = 10.0
"""The length of the clips of sound and film that published encoders get."""
FRAMES_HZ = 1.0
"""The rate at which films are seen, that of EmbeddingGemma 2 and of other published models."""
_LONGEST_PX = 2048
"""Pictures with a longer side are reduced before a model's own preprocessing sees them."""
_FILM_PX = 448
"""The longest short side of a frame of film, in pixels, that a published encoder gets."""
_MOST_CHARACTERS = 16_384
"""The most characters of a text that a model gets at once; a longer text is cut into such parts first."""
_CHARACTERS_PER_TOKEN = 8
"""More characters than this a token has in no language, on average."""
_LEFT_OUT = re.compile(r"(^|/)(\.|onnx/|openvino/|README|LICENSE)|\.(md|png|jpg|onnx|gguf|msgpack|h5|ot)$")
"""Files of a folder that have no part in a vector."""
_KEYS = re.compile(r"^([\w.{}, ]+?)\s*\|\s*MISSING", re.MULTILINE)
"""A tensor that a file lacks, as a line of the report that transformers logs."""
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
"""The codes of colours in that report."""
_UNUSED = re.compile(r"(^|\.)pooler\.")
"""Tensors that a file may lack, as nothing here uses them: the pooled output of BERT's next-sentence task."""
_LOGGERS = ("transformers", "sentence_transformers")
"""The loggers of the libraries that load published models."""
_loaded: WeakValueDictionary[tuple[str, str, bool], Any] = WeakValueDictionary()
"""The models in use, by the kind of their encoder, their folder, and whether code of others may run."""


def digest(folder: Path) -> str:
    """The SHA-256 of a folder: of the names and contents of all files that have a part in a vector."""
    files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    named = [(name, files[name]) for name in sorted(files) if not _LEFT_OUT.search(name)]
    stats = [file.stat() for _, file in named]
    return _digest(tuple((n, str(f), s.st_size, s.st_mtime_ns) for (n, f), s in zip(named, stats, strict=True)))


@cache
def _digest(files: tuple[tuple[str, str, int, int], ...]) -> str:
    """Each modality of a model asks for the digest of the same gigabytes."""
    sums = "".join(f"{sha256(Path(file))}  {name}\n" for name, file, _, _ in files)
    return hashlib.sha256(sums.encode()).hexdigest()


def shared(kind: str, folder: Path, remote_code: bool, load: Callable[[], Any]) -> Any:
    """The model that `load` makes of a folder, the same one for all modalities as long as it is in use."""
    key = (kind, str(folder.resolve()), remote_code)
    model = _loaded.get(key)
    if model is None:
        model = _loaded[key] = load()
    return model


def loaded(folder: Path, load: Callable[[], Any]) -> Any:
    """What `load` reads from a folder by transformers. Raises ValueError, in one sentence, for what it cannot be.

    Weights that lack a tensor, which transformers would draw at random, are refused too.
    """
    try:
        with told() as messages:
            model = load()
    except ValueError as error:
        if type(error) is ValueError and str(error).startswith(str(folder)):
            raise
        raise ValueError(f"{folder}: the model could not be loaded: {first_line(error)}") from None
    except Exception as error:  # the libraries raise what they like for bad files
        raise ValueError(f"{folder}: the model could not be loaded: {first_line(error)}") from None
    missing = [key.strip() for message in messages for key in _KEYS.findall(_COLOURS.sub("", message))]
    if lacking := [key for key in missing if not _UNUSED.search(key)]:
        raise ValueError(f"{folder}: its weights are those of another architecture: they lack {', '.join(lacking[:3])}")
    return model


def check_architecture(folder: Path, model_type: str, what: str) -> None:
    """Raises ValueError unless the `config.json` of a folder is of a `model_type` of transformers; reads no weights."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder}: expected the folder of {what}, with config.json ({error})") from None
    if not isinstance(config, dict) or config.get("model_type") != model_type:
        found = config.get("model_type") if isinstance(config, dict) else config
        raise ValueError(f"{folder}: expected the folder of {what}, its config.json is of {found!r}")


def constants(modality: str, *, context: int | None = None, rate_hz: int = 16_000) -> dict[str, Any]:
    """The `preprocess` of a modality whose encoder gets raw views; `context` is the most tokens of a text."""
    if modality == "text":
        length = _MOST_CHARACTERS if context is None else min(_MOST_CHARACTERS, _CHARACTERS_PER_TOKEN * context)
        return {"tokenizer": "characters", "context_length": length + 1, "roles": True}
    if modality == "image":
        return {"raw": True, "size": _LONGEST_PX, "resize": _LONGEST_PX}
    if modality == "audio":
        return {"raw": True, "rate_hz": rate_hz, "clip_s": CLIP_S, "segment_s": CLIP_S}
    frames = round(CLIP_S * FRAMES_HZ)
    return {"raw": True, "size": _FILM_PX, "clips": 3, "clip_s": CLIP_S, "frames_per_clip": frames, "crops": 1}


def each_once(views: Tensor, encode: Callable[[list[np.ndarray]], Tensor]) -> Tensor:
    """Raw views (B, ...) -> (B, width) by `encode`, which gets equal views that follow each other once.

    The clips of an item that is shorter than a clip are equal.
    """
    first = [i for i in range(len(views)) if i == 0 or not torch.equal(views[i], views[i - 1])]
    repeats = torch.tensor(np.diff([*first, len(views)]), device=views.device)
    found = encode([views[i].detach().cpu().numpy() for i in first])
    return found.to(views.device).repeat_interleave(repeats, 0)


def texts(
    rows: Tensor,
    width: int,
    cut: Callable[[str, str], list[str]],
    encode: Callable[[list[str], str], Tensor],
) -> Tensor:
    """Rows of `roles` and `characters` (B, 1 + L) -> (B, width).

    Args:
        rows: a role (1 for a document, 0 for a query) and the characters of each text.
        width: the width of a vector.
        cut: a text and its role, `query` or `document`, -> the windows that the encoder sees one by one.
        encode: windows of one role -> (N, width).

    Returns:
        The vector of a text's window, or the mean of the unit vectors of several.
    """
    windows: list[str] = []
    counts: list[int] = []
    roles: list[str] = []
    for row in rows.tolist():
        role = "document" if row[0] else "query"
        parts = cut(tokenizers.spelled(row[1:]), role)
        windows += parts
        counts.append(len(parts))
        roles += [role] * len(parts)
    vectors = torch.zeros(len(windows), width, device=rows.device)
    for role in sorted(set(roles)):
        at = [number for number, one in enumerate(roles) if one == role]
        vectors[at] = encode([windows[number] for number in at], role).float()
    if max(counts) == 1:
        return vectors
    return torch.stack([part.mean(0) for part in normalize(vectors, dim=1).split(counts)])


def plain(tokenizer: Any, content: str) -> str:
    """A text in which the spelling of a special token is no token, so that no text can pretend to hold a picture."""
    for special in getattr(tokenizer, "all_special_tokens", None) or ():
        if len(special) > 1 and special in content:
            content = content.replace(special, f"{special[0]} {special[1:]}")
    return content


def windows(tokenizer: Any, content: str, room: int) -> list[str]:
    """A text -> windows of whole words, about equally long, of at most `room` tokens; one window where it fits.

    A tokenizer that tells no places in a text gives one window.
    """
    if room < 1 or not getattr(tokenizer, "is_fast", False):
        return [content]
    encoded = tokenizer(content, add_special_tokens=False, return_offsets_mapping=True, truncation=False, verbose=False)
    spans = [(begin, end) for begin, end in encoded["offset_mapping"] if end > begin]
    if len(spans) <= room:
        return [content]
    words: list[list[int]] = []
    for number, (begin, _) in enumerate(spans):
        if not words or content[begin : begin + 1].isspace() or content[max(0, begin - 1) : begin].isspace():
            words.append([])
        words[-1].append(number)
    return [content[spans[part[0]][0] : spans[part[-1]][1]].strip() or content for part in text.windows(words, room)]


def unpadded(items: Sequence[Any], encode: Callable[[list[Any]], Tensor]) -> Tensor:
    """Items of different length -> (N, width), each encoded alone, so that no padding can change a vector."""
    return torch.cat([encode([item]) for item in items])


def first_line(error: Exception) -> str:
    """An error of a library -> its first lines, for a sentence of ours."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])[:300]}"


@contextmanager
def told() -> Iterator[list[str]]:
    """What the libraries' loggers are told inside, which is not shown, nor are their progress bars."""
    from transformers.utils import logging as transformers_logging

    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [(logger, logger.handlers, logger.propagate, logger.level) for logger in loggers]
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    for logger in loggers:
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(logging.WARNING)
    try:
        yield messages
    finally:
        for logger, handlers, propagate, level in before:
            logger.handlers = handlers
            logger.propagate = propagate
            logger.setLevel(level)
        if bars:
            transformers_logging.enable_progress_bar()


@contextmanager
def quiet() -> Iterator[None]:
    """The advice that the libraries log while they encode is for those who call them."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
