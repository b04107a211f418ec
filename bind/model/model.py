"""A model: one encoder and one head for each modality, all of which map into one space."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from bind import checkpoint, modalities
from bind.calibration import Calibration
from bind.description import Description
from bind.encoders.transformer import Transformer
from bind.model import locating, pipeline
from bind.model.pooling import mean_of_views
from bind.model.towers import Tower
from bind.space import Embeddings
from preprocess.source import Limits, MediaError, Plan, Source

Item = str | os.PathLike[str] | bytes | Source | Any
"""An item that `embed` takes: a path, `text:...` or `MODALITY:path`, bytes, a PIL image, an array, or a `Source`."""


class BatchError(MediaError):
    """Some items of a batch were bad. `errors` says which; `embeddings` and `rows` hold the good ones.

    `rows[i]` is the position in the batch of `embeddings[i]`.
    """

    def __init__(self, errors: Sequence[MediaError], embeddings: Embeddings, rows: np.ndarray) -> None:
        first = errors[0]
        more = f" (and {len(errors) - 1} more bad items)" if len(errors) > 1 else ""
        super().__init__(first.path, first.reason + more)
        self.errors = list(errors)
        self.embeddings = embeddings
        self.rows = rows

    def __reduce__(self) -> tuple[type[BatchError], tuple[Any, ...]]:
        return type(self), (self.errors, self.embeddings, self.rows)


class BindModel(nn.Module):
    """A model that `bind.load` returns: the towers of one space in evaluation mode, with frozen parameters.

    `modalities` are the loaded modalities and `dim` is the dimension D. `space` is the identity of the space, which
    does not depend on the choice of loaded modalities. `origin` is what `bind.load` takes to load the model again: a
    name or the path of a folder. `calibration` turns cosines into probabilities, where the checkpoint has one.
    """

    def __init__(self, description: Description, towers: Mapping[str, Tower], digests: Mapping[str, str]) -> None:
        super().__init__()
        self.description = description
        self.towers = nn.ModuleDict(dict(towers))
        self.modalities = tuple(towers)
        self.dim = description.dim
        self.origin = description.name
        self.digests = dict(digests)
        self.calibration: Calibration | None = None
        self.space = description.space(digests)
        self._configs = {name: description.preprocess(name) for name in towers}
        self.requires_grad_(False)
        self.eval()

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    def config(self, modality: str) -> Any:
        """The preprocessing constants of a loaded modality. Raises ValueError for one that is not loaded."""
        self._check_loaded(modality)
        return self._configs[modality]

    def encode(self, modality: str, x: Tensor) -> Tensor:
        """(B, K, *shape) prepared views -> (B, D) float32 unit rows: the normalised mean of each item's K unit vectors.

        Args:
            modality: the name of a loaded modality.
            x: K prepared views of each of B items, as `ModalitySpec.prepare` makes them.

        Raises:
            ValueError: the modality is not loaded, or `x` has another shape.

        Example:
            >>> size = model.config("image").size
            >>> model.encode("image", torch.zeros(8, 1, 3, size, size)).shape
            torch.Size([8, 384])
        """
        shape = modalities.spec(modality).shape(self.config(modality))
        fits = all(side is None or side == length for side, length in zip(shape, x.shape[2:], strict=False))
        if x.ndim != 2 + len(shape) or not fits or x.shape[1] == 0:
            sides = ", ".join("*" if side is None else str(side) for side in shape)
            raise ValueError(f"{modality}: expected (B, K, {sides}), got {tuple(x.shape)}")
        views = self.encode_views(modality, x.flatten(0, 1))
        return mean_of_views(views, [x.shape[1]] * len(x))

    @torch.inference_mode()
    def encode_views(self, modality: str, x: Tensor) -> Tensor:
        """(B, *shape) single prepared views -> (B, D) float32 unit rows."""
        parameter = next(self.towers[modality].parameters())
        x = x.to(parameter.device, parameter.dtype if x.is_floating_point() else None, non_blocking=True)
        return nn.functional.normalize(self.towers[modality](x).float(), dim=1)

    def accelerate(self, eight_bit: Collection[str] = ()) -> tuple[str, ...]:
        """Switches encoding to fused kernels -> the modalities that use them: all whose encoder is our transformer.

        The model must be on a GPU in bfloat16. This is not the default, because results then differ in the last bits of
        bfloat16. They differ more (cosine about 0.997) for the modalities `eight_bit`, whose matrix products are
        float8. Raises ValueError for another device or type, for modalities that are not loaded or cannot be
        `eight_bit`, and for head widths that the kernels do not take.
        """
        parameter = next(self.parameters())
        if not parameter.is_cuda or parameter.dtype != torch.bfloat16:
            raise ValueError(f"accelerate: expected bfloat16 on a GPU, got {parameter.dtype} on {parameter.device}")
        trunks = {name: getattr(self.tower(name).encoder, "trunk", None) for name in self.modalities}
        ours = {name: trunk for name, trunk in trunks.items() if isinstance(trunk, Transformer)}
        for name in eight_bit:
            self._check_loaded(name)
            if name not in ours:
                raise ValueError(f"accelerate: expected eight_bit among {', '.join(ours) or 'no modality'}, got {name}")
        from bind.kernels.transformer import Fused  # Triton exists on Linux with CUDA only

        for name, trunk in ours.items():
            trunk.fused = Fused(trunk.blocks, eight_bit=name in eight_bit)
        return tuple(ours)

    def embed(
        self,
        items: Iterable[Item],
        modality: str | None = None,
        batch_size: int = 64,
        progress: bool = False,
        limits: Limits | None = None,
    ) -> Embeddings:
        """Items -> Embeddings (N, D), in their order.

        Files are decoded in processes of their own; `Limits(decode="gpu")` decodes JPEGs whose origin is trusted on the
        model's GPU.

        Args:
            items: paths, `MODALITY:path`, `text:words`, bytes, PIL images, arrays or `Source`s. A plain string is a
                path, unless `modality` is "text" or the string starts with `text:`.
            modality: what all items are; None recognises each item by its name and content.
            batch_size: how many views are encoded at once.
            progress: whether a bar is shown on a terminal.
            limits: upper bounds of one item; None takes the defaults of `Limits`.

        Raises:
            BatchError: some items are bad; it carries the vectors of the good items.
            ValueError: the modality is not loaded, or `items` is one item in place of several.

        Example:
            >>> model.embed(["dog.jpg", "rain.wav", "text:a red car"]).vectors.shape
            (3, 384)
        """
        if modality is not None:
            self._check_loaded(modality)
        if isinstance(items, (str, bytes, os.PathLike)):
            raise ValueError(f"items: expected several, such as [{items!r:.60}], got one {type(items).__name__}")
        items = list(items)
        vectors = np.zeros((len(items), self.dim), np.float32)
        failed: dict[int, MediaError] = {}
        results: Iterable[pipeline.Embedded | pipeline.Failed] = self.stream(items, modality, batch_size, limits)
        if progress:  # None lets tqdm decide: it shows a bar on a terminal only
            results = tqdm(results, total=len(items), unit="item", delay=2, disable=None)
        for result in results:
            if isinstance(result, pipeline.Failed):
                failed[result.position] = result.error
            else:
                vectors[result.position] = result.vector
        rows = np.array([row for row in range(len(items)) if row not in failed], np.int64)
        embeddings = Embeddings(vectors[rows], self.space)
        if failed:
            raise BatchError([failed[row] for row in sorted(failed)], embeddings, rows)
        return embeddings

    def stream(
        self,
        items: Iterable[Item],
        modality: str | None = None,
        batch_size: int = 64,
        limits: Limits | None = None,
        plan: Plan = "whole",
    ) -> Iterator[pipeline.Embedded | pipeline.Failed]:
        """Items -> an iterator of one result for each segment, in any order, as soon as it is there; memory stays
        bounded.

        Args:
            items: as for `embed`; they are taken one after the other, so that a generator of millions is fine.
            modality: as for `embed`.
            batch_size: as for `embed`.
            limits: as for `embed`.
            plan: "whole" gives one result for each item; "segments" gives several for a long recording, each with its
                times.

        Yields:
            `Embedded` for a segment, `Failed` for an item that cannot be used; `position` counts the items from 0.

        Example:
            >>> for result in model.stream(["film.mp4"], modality="video", plan="segments"):
            ...     print(result.position, result.start_s)
            0 0.0
        """
        failed: list[pipeline.Failed] = []
        places: list[int] = []

        def usable() -> Iterator[tuple[Source, str | None]]:
            for position, item in enumerate(items):
                try:
                    source = source_of(item, modality, position)
                except MediaError as error:  # of its sidecar file
                    failed.append(pipeline.Failed(position, error))
                else:
                    places.append(position)
                    yield source

        for result in pipeline.embed(self, usable(), plan=plan, batch_size=batch_size, limits=limits):
            position = places[result.position]
            yield result if position == result.position else replace(result, position=position)
        yield from failed

    def locate(
        self,
        picture: Item,
        query: locating.Query,
        modality: str | None = None,
        proposals: locating.Proposals | None = None,
        limits: Limits | None = None,
    ) -> locating.Located:
        """Where a picture shows what a query asks for: `heat` (h, w) float32, and `boxes` [(x0, y0, x1, y1, score)].

        Args:
            picture: a picture, depth map or thermal image, as `embed` takes one item.
            query: as of `Library.search`: words, a path, terms joined by + and - of any modality, a list of
                `bind.query.Term`, or an embedding.
            modality: what the picture is; None recognises it.
            proposals: a callable that gets the picture and returns the boxes to choose from, such as SAM; None takes
                the hottest regions.
            limits: upper bounds of one item; None takes the defaults of `Limits`.

        Raises:
            MediaError: the picture or a file of the query cannot be used, or there are no places in this modality.
            ValueError: the query cannot be read, its terms cancel out, or `proposals` returns something else.

        Example:
            >>> found = model.locate("dog.jpg", "a dog")
            >>> found.heat.dtype, len(found.boxes[0])
            (dtype('float32'), 5)
        """
        if modality is not None:
            self._check_loaded(modality)
        source, named = source_of(picture, modality)
        return locating.locate(self, source, named, query, proposals, limits)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes a checkpoint folder that `bind.load` reads. Raises ValueError unless every modality is loaded."""
        description = self.description.model_copy(update={"digests": self.digests})
        checkpoint.write(Path(folder), description, {name: self.tower(name) for name in self.modalities})

    def tower(self, modality: str) -> Tower:
        """The encoder and the head of a loaded modality."""
        self._check_loaded(modality)
        tower = self.towers[modality]
        assert isinstance(tower, Tower)
        return tower

    def _check_loaded(self, modality: str) -> None:
        if modality in self.modalities:
            return
        try:
            modalities.spec(modality)
        except KeyError as error:
            raise ValueError(error.args[0]) from None
        if modality in self.description.modalities:
            raise ValueError(f"{modality} was left out when this model was loaded; load it with modalities=[...]")
        raise ValueError(
            f"model {self.description.name!r} has no encoder for {modality} yet; it has {', '.join(self.modalities)}"
        )


_PREFIX = re.compile(r"([a-z_]+):(.*)", re.DOTALL)
"""`text:a red car`: an item that says its modality."""


def source_of(item: Item, modality: str | None = None, position: int = 0) -> tuple[Source, str | None]:
    """An item as `embed` takes it -> its source, and the modality where the item names one (`audio:x.mp3`), else None.

    Raises MediaError for a sidecar file that cannot be used.
    """
    if isinstance(item, Source):
        return item, modality
    if isinstance(item, str):
        if modality is None and (match := _PREFIX.fullmatch(item)) and match[1] in modalities.specs():
            modality, item = match[1], match[2]
            if modality == "text":
                return Source(item, f"text:{item[:60]}"), modality
        elif modality == "text":
            return Source(item, f"text:{item[:60]}"), modality
        item = Path(item)
    if isinstance(item, os.PathLike):
        return Source.from_path(item), modality
    return Source(bytes(item) if isinstance(item, (bytearray, memoryview)) else item, f"item {position}"), modality
