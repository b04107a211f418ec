"""Any model in the form of sentence-transformers: a folder with `modules.json`, or of the hub, used as it is published.

Its own processors and prompts prepare what our readers give (whole pictures, waves, clips and characters), so that a
vector is the one that the library itself computes. CLIP and SigLIP, text encoders with prompts, EmbeddingGemma 2,
Qwen3-VL-Embedding and the dense side of NeoMME are such models (https://sbert.net).
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from bind import tokenizers
from bind.encoders import check_options
from bind.files import sha256
from preprocess.extras import needs
from preprocess.readers import text

MODULES = "modules.json"
"""The file that lists a model's modules; a folder without it is no model of sentence-transformers."""
MODALITIES = ("text", "image", "audio", "video")
"""What models of sentence-transformers may take, in the order of a description."""
RATE_HZ = 16_000
"""The rate of sound where a model's processor says nothing."""
FRAMES_HZ = 1.0
"""The rate at which films are seen, that of EmbeddingGemma 2 and of other published models."""
_OWN = "sentence_transformers."
_LOGGERS = ("transformers", "sentence_transformers")
_UNUSED = re.compile(r"(^|\.)pooler\.")
"""Tensors that a file may lack, as nothing here uses them: the pooled output of BERT's next-sentence task."""
_KEYS = re.compile(r"^([\w.{}, ]+?)\s*\|\s*MISSING", re.MULTILINE)
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_LEFT_OUT = re.compile(r"(^|/)(\.|onnx/|openvino/|README|LICENSE)|\.(md|png|jpg|onnx|gguf|msgpack|h5|ot)$")
"""Files of a folder that have no part in a vector."""
_CODE = (
    "the model brings code of its own ({}), which would run with all rights of this process; if you trust it, name its "
    "revision (st:NAME@COMMIT) and add --trust-remote-code (trust_remote_code=True)"
)
_loaded: WeakValueDictionary[tuple[str, bool], Any] = WeakValueDictionary()


class Published(nn.Module):
    """One modality of a model: raw views (B, ...) -> (B, width), not normalised.

    Texts are rows of `roles` and `characters` (B, 1 + L) int64, pictures (B, H, W, 3) uint8, sound (B, samples) float
    at the model's rate, films (B, T, H, W, 3) uint8 at `FRAMES_HZ`. Texts beyond the model's context are cut into
    windows of whole words, about equally long, whose unit vectors are averaged; the library itself would leave out
    their ends.
    """

    def __init__(self, model: Any, modality: str, width: int) -> None:
        super().__init__()
        self.model = model
        self.modality = modality
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        """Raw views -> (B, width)."""
        if self.modality == "text":
            return self._texts(x)
        # Equal views follow each other where an item is shorter than its clips.
        first = [i for i in range(len(x)) if i == 0 or not torch.equal(x[i], x[i - 1])]
        repeats = torch.tensor(np.diff([*first, len(x)]), device=x.device)
        items = [self._item(x[i]) for i in first]
        # Processors of models that read pictures among words make one sequence of a batch of pictures.
        batches = [items] if _has_towers(self.model) else [[item] for item in items]
        with _quiet():
            found = torch.cat([self._encoded(batch, "document") for batch in batches])
        return found.repeat_interleave(repeats, 0)

    def _item(self, view: Tensor) -> dict[str, Any]:
        values = view.detach().cpu().numpy()
        if self.modality == "image":
            return {"image": Image.fromarray(values)}
        if self.modality == "audio":
            return {"audio": {"array": values.astype(np.float32), "sampling_rate": rate_hz(self.model)}}
        count = len(values)
        times = {"total_num_frames": count, "fps": FRAMES_HZ, "duration": count / FRAMES_HZ}
        return {"video": {"array": values, "video_metadata": times | {"frames_indices": list(range(count))}}}

    def _texts(self, x: Tensor) -> Tensor:
        windows: list[str] = []
        counts: list[int] = []
        roles = ["document" if row[0] else "query" for row in x.tolist()]
        for row, role in zip(x.tolist(), roles, strict=True):
            parts = _windows(self.model, _plain(self.model, tokenizers.spelled(row[1:])), role)
            windows += parts
            counts.append(len(parts))
        of_window = [role for role, count in zip(roles, counts, strict=True) for _ in range(count)]
        vectors = x.new_zeros(len(windows), self.width, dtype=torch.float32)
        for role in sorted(set(of_window)):
            at = [number for number, one in enumerate(of_window) if one == role]
            # A plain string may be taken for the path or address of a medium, which the library would open.
            texts: list[Any] = [windows[number] for number in at]
            if len(self.model.modalities) > 1:
                texts = [{"text": one} for one in texts]
            with _quiet():
                vectors[at] = self._encoded(texts, role).float()
        if max(counts) == 1:
            return vectors
        unit = nn.functional.normalize(vectors, dim=1)
        return torch.stack([part.mean(0) for part in unit.split(counts)])

    def _encoded(self, items: Sequence[Any], role: str) -> Tensor:
        encode = self.model.encode_query if role == "query" else self.model.encode_document
        more: dict[str, Any] = {}
        if self.modality == "video":
            more["processing_kwargs"] = {"video": {"do_sample_frames": False}}
        found: Tensor = encode(
            list(items), batch_size=len(items), convert_to_tensor=True, show_progress_bar=False, **more
        )
        return found


def build(options: Mapping[str, Any]) -> nn.Module:
    """Raises ValueError: such a model is the files of a folder, and there is none with random weights."""
    raise ValueError("encoder: models of sentence-transformers have no random weights; name the folder of a model")


def load(options: Mapping[str, Any], folder: Path) -> Published:
    """`{"modality": one of MODALITIES, "remote_code": bool}` and the folder of a model -> that modality of it.

    The modalities of one folder share one model. Raises ValueError where the folder holds no model of the library, or
    a damaged one, and for code of its own without `remote_code`.
    """
    check_options(options, {"modality", "remote_code"})
    modality = str(options.get("modality"))
    model = opened(folder, bool(options.get("remote_code", False)))
    if modality not in modalities(model):
        raise ValueError(f"{folder}: the model takes {', '.join(modalities(model))}, not {modality}")
    return Published(model, modality, width(model))


def opened(folder: Path, remote_code: bool = False) -> Any:
    """A folder -> its `SentenceTransformer` on the CPU, the same one as long as it is in use. Raises as `load`."""
    key = (str(folder.resolve()), remote_code)
    model = _loaded.get(key)
    if model is None:
        check(folder, remote_code)
        model = _loaded[key] = _open(folder, remote_code)
    return model


def check(folder: Path, remote_code: bool = False) -> None:
    """Raises ValueError for a folder that is no model of the library, and for one with code of its own that is not
    trusted; reads no weights.
    """
    if not (folder / MODULES).is_file():
        raise ValueError(
            f"{folder}: expected the folder of a sentence-transformers model, with {MODULES}; a download that stopped "
            "half-way is completed by running it again"
        )
    try:
        listed = [str(module["type"]) for module in json.loads((folder / MODULES).read_text(encoding="utf-8"))]
        configs = [json.loads(file.read_text(encoding="utf-8")) for file in folder.rglob("*config*.json")]
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{folder}: {MODULES} or a configuration beside it is damaged ({error})") from None
    foreign = [name for name in listed if not name.startswith(_OWN)]
    if foreign and not remote_code:
        raise ValueError(f"{folder}: {_CODE.format(foreign[0])}")
    maps = [config["auto_map"] for config in configs if isinstance(config, dict) and "auto_map" in config]
    elsewhere = [place for one in maps for place in str(one).split("'") if "--" in place]
    if elsewhere and remote_code:
        raise ValueError(f"{folder}: its code lies in another repository ({elsewhere[0]}), which no revision pins")


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


def modalities(model: Any) -> list[str]:
    """The modalities of ours that a model takes."""
    return [name for name in MODALITIES if name in model.modalities]


def width(model: Any) -> int:
    """The length of a model's vectors. Models whose modules do not tell it are asked for a vector."""
    known = model.get_embedding_dimension()
    if known is None:
        with _quiet(), torch.inference_mode():
            known = len(model.encode("a", show_progress_bar=False))
    return int(known)


def shorter(model: Any) -> list[int]:
    """The lengths to which a vector may be cut, as the configuration of a Matryoshka model lists them."""
    config = model.config
    listed = [getattr(config, key, None) for key in ("matryoshka_dimensions", "matryoshka_dims")]
    lengths = next((one for one in listed if isinstance(one, (list, tuple))), ())
    return sorted({int(length) for length in lengths if 0 < int(length) < width(model)}, reverse=True)


def rate_hz(model: Any) -> int:
    """The rate of the sound that a model takes."""
    extractor = getattr(model.processor, "feature_extractor", model.processor)
    return int(getattr(extractor, "sampling_rate", None) or RATE_HZ)


def context(model: Any) -> int | None:
    """The most tokens that a model sees at once; None where it has no limit that is known."""
    length = model.max_seq_length
    return int(length) if length is not None and length < 10**6 else None


def _open(folder: Path, remote_code: bool) -> Any:
    with needs("st", "a sentence-transformers model"):
        import sentence_transformers
    try:
        with _told() as messages, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = sentence_transformers.SentenceTransformer(
                str(folder), device="cpu", local_files_only=True, trust_remote_code=remote_code
            )
    except Exception as error:  # the libraries raise what they like for bad files
        if "trust_remote_code" in str(error):
            raise ValueError(f"{folder}: {_CODE.format('auto_map')}") from None
        raise ValueError(f"{folder}: the model could not be loaded: {_first_line(error)}") from None
    missing = [key.strip() for message in messages for key in _KEYS.findall(_COLOURS.sub("", message))]
    if lacking := [key for key in missing if not _UNUSED.search(key)]:
        raise ValueError(f"{folder}: its weights are those of another architecture: they lack {', '.join(lacking[:3])}")
    if not modalities(model):
        raise ValueError(f"{folder}: the model takes {', '.join(map(str, model.modalities))}, none of which is ours")
    return model.eval()


def _has_towers(model: Any) -> bool:
    """Whether each modality has a tower of its own, as in CLIP, so that the items of a batch never meet."""
    methods = [params["method"] for params in getattr(model[0], "modality_config", {}).values()]
    return "forward" not in methods and bool(methods)


def _plain(model: Any, content: str) -> str:
    """A text in which the spelling of a special token is no token, so that no text can pretend to hold a picture."""
    specials = getattr(model.tokenizer, "all_special_tokens", None) or ()
    for special in specials:
        if len(special) > 1 and special in content:
            content = content.replace(special, f"{special[0]} {special[1:]}")
    return content


def _windows(model: Any, content: str, role: str) -> list[str]:
    """A text -> the windows of it that the model sees one by one."""
    most, tokenizer = context(model), model.tokenizer
    if most is None or not getattr(tokenizer, "is_fast", False) or len(content) < most // 8:
        return [content]
    encoded = tokenizer(content, add_special_tokens=False, return_offsets_mapping=True, truncation=False, verbose=False)
    spans = [(begin, end) for begin, end in encoded["offset_mapping"] if end > begin]
    room = most - _overhead(model, role)
    if len(spans) <= room or room < 1:
        return [content]
    words: list[list[int]] = []
    for number, (begin, _) in enumerate(spans):
        if not words or content[begin : begin + 1].isspace() or content[max(0, begin - 1) : begin].isspace():
            words.append([])
        words[-1].append(number)
    return [content[spans[part[0]][0] : spans[part[-1]][1]].strip() or content for part in text.windows(words, room)]


def _overhead(model: Any, role: str) -> int:
    """The tokens that stand around a text: special ones, the template and the prompt of its role."""
    with _quiet():
        probe: Any = {"text": "a"} if len(model.modalities) > 1 else "a"
        features = model.preprocess([probe], prompt=model.prompts.get(role) or None)
    alone = len(model.tokenizer("a", add_special_tokens=False)["input_ids"])
    return int(features["input_ids"].shape[1]) - alone


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])[:300]}"


@contextmanager
def _told() -> Iterator[list[str]]:
    """What the two libraries' loggers are told inside, which is not shown."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [(logger, logger.handlers, logger.propagate, logger.level) for logger in loggers]
    from transformers.utils import logging as transformers_logging

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
def _quiet() -> Iterator[None]:
    """The advice that the libraries log while they encode is for those who call them."""
    root = logging.getLogger("transformers")
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
