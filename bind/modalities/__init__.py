"""The modalities. One file of this folder is one modality with one `SPEC`; the folder is the registry.

To add a modality, write `bind/modalities/NAME.py` with a `SPEC` (see `ModalitySpec`), and a reader in `preprocess/` if
no reader fits. To leave an installed Crossbind as it is, write the file into a folder that the variable
CROSSBIND_MODALITIES names, or into a package of your own with an entry point (see `bind.extensions`). A file without a
`SPEC` is a helper of the others, which import it as `bind.modalities.NAME`.

These files are code and run with all rights of this process; decode workers import them inside their sandbox.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bind import extensions
from preprocess.decoding.protocol import Read
from preprocess.formats import sniff
from preprocess.readers import flir
from preprocess.source import Limits, MediaError, Source

if TYPE_CHECKING:
    import torch

    from preprocess.decoding.trusted import ReadMany

# The files are loaded as modules of this package, so that decode workers find their readers under the same name.
# The path is absolute, so that a later change of the current folder has no effect.
__path__.extend(os.path.abspath(p) for p in os.environ.get("CROSSBIND_MODALITIES", "").split(os.pathsep) if p)


@dataclass(frozen=True)
class ModalitySpec:
    """The declaration of a modality: how it is read and prepared, its encoder, its head and its anchor.

    `prepare_tensor` and `read_on_gpu` are for models on a GPU. Raw views are fewer bytes to move there, and many items
    can be prepared at once. Where `prepare_tensor` is None, views are always prepared one by one, on the CPU.

    Args:
        name: the name of the modality, which is the name of its file.
        config: the frozen dataclass of preprocessing constants; every model has its own values.
        read: a source -> segments of raw views, without torch. It runs in a decode worker, unless `isolated` is False.
        prepare: raw views (K, ...) -> the (K, *shape) tensor that an encoder takes.
        shape: the constants -> the shape of one prepared view; None in it stands for any length.
        families: the content families that `read` takes (see `preprocess.formats.Format`).
        default_for: the families that are taken for this modality where nothing else names one.
        name_hints: words in the name of a file or its folder that select this modality (`x.depth.png`).
        anchor: the modality that this one is bound to in training.
        encoder: the default trainable encoder, as a table of `model.toml` (`{"module": ..., ...}`); None where the
            modality has frozen encoders only.
        head: the default head, as such a table.
        prepare_tensor: as `prepare`, for views that are a tensor, on its device.
        read_on_gpu: as `read`, for many trusted sources at once, in this process (see `Limits.decode`).
        preview: how a page shows an item that has no view of its own: "picture" and "plot" draw the first view that
            `read` gives, as a picture (..., h, w) or as lines (..., n), "text" shows the beginning of the file. None
            means a picture where a view has at least 8 rows and 8 columns, else a plot.
        read_whole: as `read`, for one view of the whole picture in its proportions, whose metadata has the picture's
            `width` and `height`; None where a modality has no places to look for.
        isolated: whether `read` runs in a decode worker.
        revision: counts the changes of `read` and `prepare` after which the same file gives other tensors. It is a part
            of the space's identity and of cache keys, so that older and newer vectors are never compared.

    Example:
        >>> from bind.modalities import ModalitySpec, spec
        >>> from preprocess.readers import depth
        >>> disparity = ModalitySpec(
        ...     name="disparity",
        ...     config=depth.DepthConfig,
        ...     read=depth.read,
        ...     prepare=depth.prepare,
        ...     shape=depth.shape,
        ...     families=frozenset({"image"}),
        ...     name_hints=("disparity",),
        ... )
        >>> disparity.shape(disparity.config()) == spec("depth").shape(depth.DepthConfig())
        True
    """

    name: str
    config: type[Any]
    read: Read
    prepare: Callable[[np.ndarray, Any], torch.Tensor]
    shape: Callable[[Any], tuple[int | None, ...]]
    families: frozenset[str]
    default_for: frozenset[str] = frozenset()
    name_hints: tuple[str, ...] = ()
    isolated: bool = True
    prepare_tensor: Callable[[torch.Tensor, Any], torch.Tensor] | None = None
    read_on_gpu: ReadMany | None = None
    anchor: str | None = "image"
    encoder: Mapping[str, Any] | None = None
    head: Mapping[str, Any] | None = None
    revision: int = 1
    read_whole: Read | None = None
    preview: Literal["picture", "plot", "text"] | None = None

    @property
    def identity(self) -> dict[str, int]:
        """The facts of the code that a hash over a space or a cache key covers; empty for revision 0, as in earlier
        versions.
        """
        return {"revision": self.revision} if self.revision != 1 else {}


@cache
def specs() -> dict[str, ModalitySpec]:
    """Every modality by name, in alphabetical order.

    Warns of entry points that cannot be used. Raises ValueError for two modalities of one name.
    """
    found: dict[str, ModalitySpec] = {}
    files: dict[str, str] = {}
    for module in pkgutil.iter_modules(__path__):
        loaded = importlib.import_module(f"{__name__}.{module.name}")
        spec: ModalitySpec | None = getattr(loaded, "SPEC", None)
        if spec is None:
            continue
        if spec.name != module.name:
            raise ValueError(f"{loaded.__file__}: SPEC.name is {spec.name!r}, expected {module.name!r}")
        found[spec.name] = spec
        files[spec.name] = str(loaded.__file__)
    for extension in extensions.installed(extensions.MODALITIES).values():
        try:
            spec = extension.load()
            if not isinstance(spec, ModalitySpec) or spec.name != extension.name:
                raise ValueError(
                    f"{extension.origin}: expected a ModalitySpec named {extension.name!r}, got {spec!r:.80}"
                )
        except ValueError as error:  # the other modalities remain usable
            warnings.warn(f"modality {extension.name!r} is left out: {error}", stacklevel=2)
            continue
        extensions.check_free(extensions.MODALITIES, spec.name, extension, files.get(spec.name))
        found[spec.name] = spec
    return dict(sorted(found.items()))


def spec(name: str) -> ModalitySpec:
    """The modality called `name`. Raises KeyError that lists the known ones."""
    try:
        return specs()[name]
    except KeyError:
        raise KeyError(f"no modality {name!r}; known: {', '.join(specs())}") from None


def revisions(names: Iterable[str]) -> dict[str, int]:
    """Names of modalities -> the revision of each one's preprocessing."""
    return {name: spec(name).revision for name in names}


class Guess(str):
    """The modality that a file's name suggests. Where its content turns out to be an ordinary picture, it is `image`.

    `note` says that, and why, for the person whose picture it is.
    """

    note: str
    is_ordinary: bool
    """Whether the file is an ordinary picture too, which a model without that modality embeds as one."""

    def __new__(cls, modality: str, note: str, is_ordinary: bool = False) -> Guess:
        """The name of the modality, with the note."""
        guess = super().__new__(cls, modality)
        guess.note = note
        guess.is_ordinary = is_ordinary
        return guess


def detect(source: Source, limits: Limits) -> str:
    """The modality of an encoded source: its sidecar's word, else its content, with its name as a hint.

    A name is evidence, never a verdict: `room.depth.png` and `thermal/7.jpg` give a `Guess`, which the reader may
    refute by the pixels; a word inside of a phrase (`depth of field.jpg`) weighs less than the fact that photographs
    are what `.jpg` files are, and `recognise` says so in a note.

    Raises MediaError where `sniff` does, and where the content alone does not decide (a bare `.npy`).
    """
    return recognise(source, limits)[0]


def recognise(source: Source, limits: Limits) -> tuple[str, tuple[str, ...]]:
    """As `detect`, with notes on what the name suggested in vain."""
    found = sniff(source, limits)
    if source.hints.modality in specs() and found.family in specs()[source.hints.modality].families:
        return source.hints.modality, ()
    notes: tuple[str, ...] = ()
    named = _named(source, found.family)
    if named is not None:
        candidate, word, is_tag = named
        note = f"its name has the word {word!r}, but it is an ordinary picture: taken as an image"
        if is_tag or found.family != "image" or found.name == "tiff" or _is_deep_png(source, limits):
            return (Guess(candidate, note) if found.family == "image" else candidate), ()
        notes = (note,)
    if found.name == "jpeg" and "thermal" in specs() and not notes and _is_radiometric(source, limits):
        note = "its temperatures could not be read, or are not embedded by this model: taken as an image"
        return Guess("thermal", note, is_ordinary=True), ()
    for other in specs().values():
        if found.family in other.default_for:
            return other.name, notes
    raise MediaError(
        source.name,
        f"its content ({found.family}) does not tell its modality; name it like NAME.depth{Path(source.name).suffix} "
        "or say it",
    )


def _named(source: Source, family: str) -> tuple[str, str, bool] | None:
    """(modality, word, whether it is a tag) of a word in the name: a tag stands between dots, lines or dashes.

    The file's own name speaks before its folder's: depth/17.thermal.png is thermal.
    """
    path = Path(source.name)
    stem = path.stem.lower()
    tags = set() if " " in stem else set(re.split(r"[^a-z0-9]+", stem))
    tags |= set(re.split(r"[._]+", stem)) if " " in stem else set()
    for words, is_tag in (
        (tags, True),
        (set(re.split(r"[^a-z0-9]+", stem)), False),
        ({path.parent.name.lower()}, True),
    ):
        for candidate in specs().values():
            for hint in candidate.name_hints:
                if hint in words and family in candidate.families:
                    return candidate.name, hint, is_tag
    return None


def _is_radiometric(source: Source, limits: Limits) -> bool:
    """Whether a JPEG has the values of an infrared sensor behind its picture."""
    with source.open(limits) as file:
        return flir.is_radiometric(file)


def _is_deep_png(source: Source, limits: Limits) -> bool:
    """Whether its header announces 16 bits of grey: no photograph is stored so."""
    with source.open(limits) as file:
        head = file.read(26)
    return head[:8] == b"\x89PNG\r\n\x1a\n" and head[24:26] == b"\x10\x00"
