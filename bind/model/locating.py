"""Where in a picture is what a query asks for: a heat map and boxes, without any training.

An encoder with `places` gives the features of each place of a picture in one pass. The head of the whole picture maps
them into the shared space, where each place has a cosine with the query. The picture is seen at two scales. Other
encoders embed windows of two sizes, one by one. The best connected regions are then cut out and embedded as pictures of
their own, so the score of a box is exact.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from bind import arithmetic, modalities
from bind.model import pipeline
from bind.query import Term, parse_query, resolved
from bind.space import Embeddings
from preprocess.decoding.protocol import Read, read_here
from preprocess.source import Limits, MediaError, OrdinaryPictureError, Plan, Segment, Source

if TYPE_CHECKING:
    from bind.model.model import BindModel

Box = tuple[float, float, float, float, float]
"""(x0, y0, x1, y1, score): corners in pixels of the picture, and the cosine of what is inside with the query."""
Query = str | Sequence[Term] | Embeddings
"""A query as `Library.search` takes it: words, a path, terms joined by + and -, or an embedding (1, D)."""
Proposals = Callable[[Image.Image], Iterable[Sequence[float]]]
"""A picture -> the boxes (x0, y0, x1, y1) to choose from, in its pixels, such as those of SAM or of a detector."""
Submit = Callable[[Read, Source, Any, Limits, Plan], "Future[list[Segment]]"]

MOST_BOXES = 10
"""The most boxes that are returned, so that a noisy map does not flood whoever shows them."""
_SCALES = (1, 2)
"""Sides of the picture as multiples of the encoder's own size, where the encoder has places."""
_WINDOWS = (2, 3)
"""Windows have this part of the picture's side, and overlap by half, where it has none."""
_LONG_PANEL, _MOST_PANELS = 1.5, 8
"""A picture longer than about this is seen in panels, so that no panel is squashed much more."""
_THRESHOLDS = (0.1, 0.25, 0.4)
"""Regions are where the heat is above mean + t (maximum - mean). Measured by `tests.bench.bench_locate`."""
_SAME = 0.5
"""Of two boxes whose intersection over union is higher, only the better one stays."""
_LEAST_HEAT = 1e-4
"""Where the heat of all places differs less, there is no place to point at."""
_RAW_SIDE = 448
"""The pixels a side of a window for an encoder of pictures of any size."""
_BATCH = 16
"""Windows that are encoded at once, which bounds memory for large pictures."""


@dataclass(frozen=True, eq=False)
class Located:
    """Where something is: `heat` (h, w) float32 covers the whole picture of `width` x `height` pixels, `boxes` are best
    first.

    Heat and scores are cosines with the query, in the part of the space that says what a picture shows (without the
    part that says how it is laid out, where a model has one).
    """

    heat: np.ndarray
    boxes: list[Box]
    width: int
    height: int


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture that was read whole: `view` (H, W) or (H, W, 3), as its reader has it, and its own size in pixels."""

    modality: str
    view: np.ndarray
    width: int
    height: int


def locate(
    model: BindModel,
    source: Source,
    modality: str | None,
    query: Query,
    proposals: Proposals | None = None,
    limits: Limits | None = None,
) -> Located:
    """As `BindModel.locate`, of a source."""
    limits = limits or Limits()
    vector = query_vector(model, query, limits)
    return search(model, read(model, source, modality, limits), vector, proposals)


def query_vector(model: BindModel, query: Query, limits: Limits | None = None) -> np.ndarray:
    """A query -> its vector (D,).

    Raises QueryError for a query that cannot be read, MediaError for a file that cannot be used, and ValueError for
    terms that cancel out and an embedding of another space or of several rows.
    """
    if isinstance(query, Embeddings):
        if query.space != model.space or len(query) != 1:
            raise ValueError(
                f"locate: expected one embedding of space {model.space}, got {len(query)} of space {query.space}"
            )
        (row,) = query.vectors
        return np.asarray(row)
    given = parse_query(query) if isinstance(query, str) else list(query)
    if not given:
        raise ValueError("locate: expected at least one term")
    terms = [resolved(term) for term in given]
    vectors = np.zeros((len(terms), model.dim), np.float32)
    for result in pipeline.embed(model, map(_source_of, terms), limits=limits):
        if isinstance(result, pipeline.Failed):
            raise result.error
        vectors[result.position] = result.vector
    combined = arithmetic.combine(Embeddings(vectors, model.space), [term.weight for term in terms])
    return np.asarray(combined.vectors[0])


def read(
    model: BindModel, source: Source, modality: str | None, limits: Limits, submit: Submit | None = None
) -> Picture:
    """A source -> the whole picture, decoded by `submit` (by default the decode workers of this process).

    Raises MediaError for what is no picture and for a modality without places (`ModalitySpec.read_whole`).
    """
    if modality is None:
        modality = modalities.detect(source, limits) if source.is_encoded else "image"
    spec = modalities.spec(modality)
    if spec.read_whole is None:
        known = ", ".join(name for name, one in modalities.specs().items() if one.read_whole)
        raise MediaError(source.name, f"expected a picture to look for places in ({known}), got {modality}")
    try:
        config = model.config(modality)
    except ValueError as error:
        raise MediaError(source.name, str(error)) from None
    try:
        if source.is_encoded and spec.isolated:
            submit = submit or pipeline.shared_pool().submit
            (segment,) = submit(spec.read_whole, source, config, limits, "whole").result()
        else:
            (segment,) = read_here(spec.read_whole, source, config, limits, "whole")
    except OrdinaryPictureError:
        if not isinstance(modality, modalities.Guess):
            raise
        return read(model, source, "image", limits, submit)
    size = segment.metadata
    return Picture(str(modality), segment.views[0], int(size["width"]), int(size["height"]))


def search(model: BindModel, picture: Picture, vector: np.ndarray, proposals: Proposals | None = None) -> Located:
    """A picture and the vector (D,) of a query -> where it is."""
    content = _content(model)
    query = vector[:content] / max(float(np.linalg.norm(vector[:content])), 1e-12)
    heat = _heat(model, picture, query)
    if proposals is None:
        found = _regions(heat, picture.width, picture.height)
    else:
        found = _checked(proposals(shown(picture)), picture)
    scores = _vectors(model, picture, [_square(box, picture) for box in found])[:, :content]
    cosines = (scores / np.linalg.norm(scores, axis=1, keepdims=True).clip(1e-12)) @ query
    boxes = [(*box, float(score)) for box, score in zip(found, cosines, strict=True)]
    return Located(heat, _distinct(boxes), picture.width, picture.height)


def overlay(located: Located, picture: Image.Image) -> Image.Image:
    """The picture in RGB with its heat as a red veil and its boxes as lines, the best one the thickest."""
    from PIL import ImageDraw

    shown = picture.convert("RGB").resize((located.width, located.height))
    low, high = float(located.heat.min()), float(located.heat.max())
    share = ((located.heat - low) / max(high - low, 1e-6) * 160).astype(np.uint8)
    veil = Image.fromarray(share).resize(shown.size, Image.Resampling.BICUBIC)
    shown.paste(Image.new("RGB", shown.size, (230, 30, 30)), mask=veil)
    draw = ImageDraw.Draw(shown)
    line = max(1, max(shown.size) // 300)
    for rank, (x0, y0, x1, y1, _) in enumerate(located.boxes):
        draw.rectangle((x0, y0, x1 - 1, y1 - 1), outline=(255, 255, 0), width=line * (2 if rank == 0 else 1))
    return shown


def _source_of(term: Term) -> tuple[Source, str | None]:
    if term.modality == "text":
        return Source(term.value, "text"), "text"
    return Source.from_path(os.path.expanduser(term.value)), term.modality


def _content(model: BindModel) -> int:
    """The number of the first dimensions, which say what a picture shows; the others say how it is laid out."""
    return model.dim - max(int(getattr(model.tower(name).head, "split", 0)) for name in model.modalities)


def _heat(model: BindModel, picture: Picture, query: np.ndarray) -> np.ndarray:
    """The cosine of each place with the query (C,), (h, w) float32: the mean over the scales."""
    places = getattr(model.tower(picture.modality).encoder, "places", None)
    maps = _dense(model, picture, query, places) if places else _windowed(model, picture, query)
    finest = max(maps, key=lambda one: one.shape[1] * one.shape[2])
    height, width = finest.shape[1:]
    resized = [F.interpolate(one[None], size=(height, width), mode="bilinear")[0] for one in maps]
    # The panels stand side by side, or one above the other.
    panels = torch.stack(resized).mean(0)
    joined = torch.cat(list(panels), 1 if picture.width >= picture.height else 0)
    heat: np.ndarray = joined.numpy()
    return heat


@torch.inference_mode()
def _dense(model: BindModel, picture: Picture, query: np.ndarray, places: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """The cosines of the places of each panel, (panels, h, w) for each scale."""
    tower, config = model.tower(picture.modality), model.config(picture.modality)
    weight = next(tower.parameters())
    wanted = torch.from_numpy(np.ascontiguousarray(query)).to(weight.device)
    maps = []
    for scale in _SCALES:
        side = scale * config.size
        sized = replace(config, size=side, **({"resize": side} if hasattr(config, "resize") else {}))
        views = np.stack([_cut(picture.view, panel, side) for panel in _panels(picture.view)])
        x = modalities.spec(picture.modality).prepare(views, sized)
        rows = []
        for one in x.to(weight.device, weight.dtype).split(1):
            features = places(one)
            vectors = tower.head(features.movedim(1, 3).flatten(0, 2))[:, : len(query)]
            cosines = F.normalize(vectors.float(), dim=1) @ wanted
            rows.append(cosines.view(features.shape[2:]))
        maps.append(torch.stack(rows).cpu())
    return maps


def _windowed(model: BindModel, picture: Picture, query: np.ndarray) -> list[Tensor]:
    """As `_dense`, from the vectors of overlapping windows; a place has the mean of the windows over it."""
    maps = []
    for parts in _WINDOWS:
        count = 2 * parts - 1
        rows = []
        for x0, y0, x1, y1 in _panels(picture.view):
            across, down = (x1 - x0) / parts, (y1 - y0) / parts
            corners = [(x0 + i * across / 2, y0 + j * down / 2) for j in range(count) for i in range(count)]
            side = _side(model, picture)
            views = np.stack([_cut(picture.view, (x, y, x + across, y + down), side) for x, y in corners])
            vectors = _encode(model, picture.modality, views)[:, : len(query)]
            cosines = F.normalize(torch.from_numpy(vectors), dim=1) @ torch.from_numpy(query)
            over = cosines.view(1, count, count)
            rows.append(F.avg_pool2d(over, 2, 1, 1, count_include_pad=False)[0])
        maps.append(torch.stack(rows))
    return maps


def _panels(view: np.ndarray) -> list[tuple[float, float, float, float]]:
    """(H, W, ...) -> boxes that divide its long side into equal parts which are not much longer than wide."""
    height, width = view.shape[:2]
    short, long = min(height, width), max(height, width)
    count = min(_MOST_PANELS, max(1, round(long / short / _LONG_PANEL)))
    edges = np.linspace(0, long, count + 1).tolist()
    pairs = list(itertools.pairwise(edges))
    return [(a, 0.0, b, float(height)) if width >= height else (0.0, a, float(width), b) for a, b in pairs]


def _cut(view: np.ndarray, box: Sequence[float], side: int) -> np.ndarray:
    """A part of a view -> (side, side, ...), of the same type."""
    x0, y0, x1, y1 = box
    part = Image.fromarray(view).resize((side, side), Image.Resampling.BICUBIC, box=(x0, y0, x1, y1))
    low, high = (0, 255) if view.dtype == np.uint8 else (view.min(), view.max())
    return np.asarray(part).clip(low, high).astype(view.dtype)


def _vectors(model: BindModel, picture: Picture, boxes: Sequence[Sequence[float]]) -> np.ndarray:
    """Boxes in pixels of the picture -> the vectors (N, D) of what is inside, embedded as pictures of their own."""
    if not boxes:
        return np.zeros((0, model.dim), np.float32)
    across, down = picture.view.shape[1] / picture.width, picture.view.shape[0] / picture.height
    side = _side(model, picture)
    scaled = [(x0 * across, y0 * down, x1 * across, y1 * down) for x0, y0, x1, y1 in boxes]
    return _encode(model, picture.modality, np.stack([_cut(picture.view, box, side) for box in scaled]))


def _side(model: BindModel, picture: Picture) -> int:
    """The pixels a side of a window: what the encoder takes, where it takes any size (`raw`) `_RAW_SIDE` at most."""
    config = model.config(picture.modality)
    return min(int(config.size), _RAW_SIDE) if getattr(config, "raw", False) else int(config.size)


def _encode(model: BindModel, modality: str, views: np.ndarray) -> np.ndarray:
    """Raw views (N, S, S, ...) -> (N, D) float32 unit rows."""
    x = modalities.spec(modality).prepare(views, model.config(modality))
    return torch.cat([model.encode_views(modality, part).cpu() for part in x.split(_BATCH)]).numpy()


def _square(box: Sequence[float], picture: Picture) -> tuple[float, float, float, float]:
    """A box -> the square around it, as far as the picture has room for it."""
    x0, y0, x1, y1 = box
    side = max(x1 - x0, y1 - y0)
    spans = []
    for low, high, size in ((x0, x1, picture.width), (y0, y1, picture.height)):
        wanted = min(side, size)
        start = min(max(0.0, (low + high - wanted) / 2), size - wanted)
        spans.append((start, start + wanted))
    return spans[0][0], spans[1][0], spans[0][1], spans[1][1]


def _regions(heat: np.ndarray, width: int, height: int) -> list[tuple[float, float, float, float]]:
    """(h, w) heat -> the boxes of its hottest connected regions in pixels, at most `MOST_BOXES`, hottest first."""
    from scipy import ndimage  # takes a second to import

    rows, columns = heat.shape
    if float(np.ptp(heat)) < _LEAST_HEAT:
        return []
    found: dict[tuple[float, float, float, float], float] = {}
    centre, highest = float(heat.mean()), float(heat.max())
    for threshold in _THRESHOLDS:
        labels, _ = ndimage.label(heat > centre + threshold * (highest - centre))
        for number, (down, across) in enumerate(ndimage.find_objects(labels), 1):
            box = (
                across.start * width / columns,
                down.start * height / rows,
                across.stop * width / columns,
                down.stop * height / rows,
            )
            found[box] = max(float(heat[labels == number].max()), found.get(box, -1.0))
    return sorted(found, key=lambda box: -found[box])[:MOST_BOXES]


def _checked(boxes: Iterable[Sequence[float]], picture: Picture) -> list[tuple[float, float, float, float]]:
    """The boxes of `proposals`, within the picture. Raises ValueError for what is no box."""
    found = []
    for box in boxes:
        values = np.asarray(box, np.float64)
        if values.shape != (4,) or not np.isfinite(values).all():
            raise ValueError(f"proposals: expected boxes (x0, y0, x1, y1), got {box!r:.80}")
        x0, x1 = values[[0, 2]].clip(0, picture.width).tolist()
        y0, y1 = values[[1, 3]].clip(0, picture.height).tolist()
        if x1 - x0 < 1 or y1 - y0 < 1:
            raise ValueError(f"proposals: expected boxes of at least one pixel in the picture, got {box!r:.80}")
        found.append((x0, y0, x1, y1))
    return found


def shown(picture: Picture) -> Image.Image:
    """The picture in its own size, for `proposals`; a map of one channel is stretched to 8 bits."""
    view = picture.view
    if view.dtype != np.uint8:
        low, high = float(view.min()), float(view.max())
        view = ((view - low) / max(high - low, 1e-6) * 255).astype(np.uint8)
    return Image.fromarray(view).resize((picture.width, picture.height))


def _distinct(boxes: list[Box]) -> list[Box]:
    """Boxes -> those that are not nearly the same as a better one, best first."""
    kept: list[Box] = []
    for box in sorted(boxes, key=lambda one: -one[4]):
        if all(overlap(box, other) <= _SAME for other in kept):
            kept.append(box)
    return kept


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Two boxes (x0, y0, x1, y1, ...) -> their intersection over union."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inside = max(0.0, width) * max(0.0, height)
    areas = sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (tuple(a)[:4], tuple(b)[:4]))
    return inside / max(areas - inside, 1e-12)
