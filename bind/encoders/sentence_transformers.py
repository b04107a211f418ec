"""Any model in the form of sentence-transformers: a folder with `modules.json`, or of the hub, used as it is published.

Its own processors and prompts prepare what our readers give (whole pictures, waves, clips and characters), so that a
vector is the one that the library itself computes. CLIP and SigLIP, text encoders with prompts, EmbeddingGemma 2,
Qwen3-VL-Embedding and the dense side of NeoMME are such models (https://sbert.net).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from bind import published
from bind.encoders import check_options
from bind.published import FRAMES_HZ
from preprocess.extras import needs

MODULES = "modules.json"
"""The file that lists a model's modules; a folder without it is no model of sentence-transformers."""
MODALITIES = ("text", "image", "audio", "video")
"""What models of sentence-transformers may take, in the order of a description."""
RATE_HZ = 16_000
"""The rate of sound where a model's processor says nothing."""
_OWN = "sentence_transformers."
"""The beginning of the names of the library's own modules."""
_CODE = (
    "the model brings code of its own ({}), which would run with all rights of this process; if you trust it, name its "
    "revision (st:NAME@COMMIT) and add --trust-remote-code (trust_remote_code=True)"
)
"""What is said of a folder with code of its own."""


class SentenceTransformerTower(nn.Module):
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
        with published.quiet():
            if self.modality == "text":
                return published.texts(x, self.width, self._cut, self._texts)
            return published.each_once(x, self._media)

    def _media(self, views: list[np.ndarray]) -> Tensor:
        items = [self._item(view) for view in views]
        # Processors of models that read pictures among words make one sequence of a batch of pictures.
        if _has_towers(self.model):
            return self._encoded(items, "document")
        return published.unpadded(items, lambda one: self._encoded(one, "document"))

    def _item(self, values: np.ndarray) -> dict[str, Any]:
        if self.modality == "image":
            return {"image": Image.fromarray(values)}
        if self.modality == "audio":
            return {"audio": {"array": values.astype(np.float32), "sampling_rate": rate_hz(self.model)}}
        count = len(values)
        times = {"total_num_frames": count, "fps": FRAMES_HZ, "duration": count / FRAMES_HZ}
        return {"video": {"array": values, "video_metadata": times | {"frames_indices": list(range(count))}}}

    def _cut(self, content: str, role: str) -> list[str]:
        content, most = published.plain(self.model.tokenizer, content), context(self.model)
        # A character is far fewer than eight tokens, also with a prompt around the text.
        if most is None or len(content) < most // 8:
            return [content]
        return published.windows(self.model.tokenizer, content, most - _overhead(self.model, role))

    def _texts(self, windows: list[str], role: str) -> Tensor:
        # A plain string may be taken for the path or address of a medium, which the library would open.
        items: list[Any] = [{"text": one} for one in windows] if len(self.model.modalities) > 1 else list(windows)
        return self._encoded(items, role)

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


def load(options: Mapping[str, Any], folder: Path) -> SentenceTransformerTower:
    """`{"modality": one of MODALITIES, "remote_code": bool}` and the folder of a model -> that modality of it.

    The modalities of one folder share one model. Raises ValueError where the folder holds no model of the library, or
    a damaged one, and for code of its own without `remote_code`.
    """
    check_options(options, {"modality", "remote_code"})
    modality = str(options.get("modality"))
    model = opened(folder, bool(options.get("remote_code", False)))
    if modality not in modalities(model):
        raise ValueError(f"{folder}: the model takes {', '.join(modalities(model))}, not {modality}")
    return SentenceTransformerTower(model, modality, width(model))


def opened(folder: Path, remote_code: bool = False) -> Any:
    """A folder -> its `SentenceTransformer` on the CPU, the same one as long as it is in use. Raises as `load`."""
    check(folder, remote_code)
    return published.shared("st", folder, remote_code, lambda: _open(folder, remote_code))


def check(folder: Path, remote_code: bool = False) -> None:
    """Raises ValueError for a folder that is no model of the library, and for one with modules of its own that are not
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


def modalities(model: Any) -> list[str]:
    """The modalities of ours that a model takes."""
    return [name for name in MODALITIES if name in model.modalities]


def preprocess(model: Any, modality: str) -> dict[str, Any]:
    """The constants of a modality, for a description."""
    if modality == "audio":
        return published.constants(modality, rate_hz=rate_hz(model))
    return published.constants(modality, context=context(model))


def width(model: Any) -> int:
    """The length of a model's vectors. Models whose modules do not tell it are asked for a vector."""
    known = model.get_embedding_dimension()
    if known is None:
        with published.quiet(), torch.inference_mode():
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

    def load() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return sentence_transformers.SentenceTransformer(
                    str(folder), device="cpu", local_files_only=True, trust_remote_code=remote_code
                )
            except (ValueError, OSError, ImportError) as error:
                if "trust_remote_code" in str(error):
                    raise ValueError(f"{folder}: {_CODE.format('auto_map')}") from None
                raise

    model = published.loaded(folder, load)
    if not modalities(model):
        raise ValueError(f"{folder}: the model takes {', '.join(map(str, model.modalities))}, none of which is ours")
    return model.eval()


def _has_towers(model: Any) -> bool:
    """Whether each modality has a tower of its own, as in CLIP, so that the items of a batch never meet."""
    methods = [params["method"] for params in getattr(model[0], "modality_config", {}).values()]
    return "forward" not in methods and bool(methods)


def _overhead(model: Any, role: str) -> int:
    """The tokens that stand around a text: special ones, the template and the prompt of its role."""
    probe: Any = {"text": "a"} if len(model.modalities) > 1 else "a"
    features = model.preprocess([probe], prompt=model.prompts.get(role) or None)
    alone = len(model.tokenizer("a", add_special_tokens=False)["input_ids"])
    return int(features["input_ids"].shape[1]) - alone
