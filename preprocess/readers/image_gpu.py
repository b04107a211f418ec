"""JPEGs -> views, many at once on an NVIDIA GPU. For trusted bytes: nvJPEG, which is C, runs in this process.

Equals `readers.image.read` but for what nvJPEG does otherwise than libjpeg: it repeats the chroma of 4:2:0 pictures
where libjpeg interpolates. That costs an embedding a cosine of 0.0005 at most at the size wanted, and less above.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache

import torch
from PIL import ExifTags, Image
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor

from preprocess.extras import needs
from preprocess.formats import sniff
from preprocess.readers.image import ImageConfig
from preprocess.source import Limits, MediaError, Segment, Source

MAX_PIXELS = 2**26
"""Of one picture, and of those that are resized together: as floats they take 0.75 GiB."""
_TOGETHER_PIXELS = 2**27
"""Of the pictures that are decoded together: 0.4 GiB."""
_WEIGHT_STEPS = 2**22
"""Pillow holds its weights as integers of this scale (`PRECISION_BITS` in its Resample.c)."""
# EXIF 2.3, tag 0x0112: whether rows and columns are exchanged, and what is mirrored after that.
_UPRIGHT: dict[int, tuple[bool, tuple[int, ...]]] = {
    2: (False, (-1,)),
    3: (False, (-2, -1)),
    4: (False, (-2,)),
    5: (True, ()),
    6: (True, (-1,)),
    7: (True, (-2, -1)),
    8: (True, (-2,)),
}
_SAMPLINGS = {(1, 1), (2, 1), (1, 2), (2, 2)}


def read_many(
    sources: Sequence[Source], config: ImageConfig, limits: Limits, device: torch.device
) -> list[list[Segment] | None]:
    """Sources -> what `preprocess.readers.image.read` gives for each; None where that has to read it, or to refuse it.

    Taken are plain colour JPEGs: baseline, whole, within the limits and `MAX_PIXELS`, not smaller than the size wanted.
    Raises ValueError where nvJPEG is missing.
    """
    _check_decoder(device)
    found: list[list[Segment] | None] = [None] * len(sources)
    headers = [(row, header) for row, source in enumerate(sources) if (header := _header(source, config, limits))]
    for part in _parts(headers):
        contents = [_content(sources[row], limits) for row, _ in part]
        whole = [(at, content) for at, content in enumerate(contents) if content is not None]
        alike: dict[tuple[int, int, int], list[tuple[int, Tensor]]] = {}
        for (at, _), pixels in zip(whole, _decode([content for _, content in whole], device), strict=True):
            row, (width, height, orientation) = part[at]
            if pixels is not None and pixels.shape == (3, height, width):
                alike.setdefault((width, height, orientation), []).append((row, pixels))
        rows, views = [], []
        for (width, height, orientation), group in alike.items():
            count = MAX_PIXELS // (width * height)
            for start in range(0, len(group), count):
                pictures = torch.stack([pixels for _, pixels in group[start : start + count]])
                rows += [row for row, _ in group[start : start + count]]
                views.append(resize_crop(_turn_upright(pictures, orientation), config))
        if views:
            for row, view in zip(rows, _to_host(torch.cat(views)), strict=True):
                found[row] = [Segment(view[None].numpy())]
    return found


def resize_crop(pixels: Tensor, config: ImageConfig) -> Tensor:
    """(N, 3, H, W) uint8 -> (N, size, size, 3) uint8 there, as `readers.raster` makes them of H x W.

    Pillow's own arithmetic (Resample.c): both passes round to bytes. A level may differ where a sum lies on the edge.
    """
    height, width = pixels.shape[2:]
    short, long = min(height, width), max(height, width)
    new_long = config.resize if config.resize_mode == "squash" else int(config.resize * long / short)
    resized = (config.resize, new_long) if height <= width else (new_long, config.resize)
    stream = torch.cuda.current_stream(pixels.device) if pixels.is_cuda else None
    (rows, down), (columns, across) = (
        _weights(old, new, config.size, config.interpolation, pixels.device, stream)
        for old, new in zip((height, width), resized, strict=True)
    )
    kept = pixels[:, :, rows, columns].to(torch.float32)
    return _to_bytes(down @ _to_bytes(kept @ across.T)).permute(0, 2, 3, 1).to(torch.uint8, copy=True).contiguous()


@lru_cache(maxsize=256)  # each 0.6 MB for a side of 640 pixels, 4 MB for one of 4,000
def _weights(
    old: int, new: int, size: int, interpolation: str, device: torch.device, stream: torch.cuda.Stream | None
) -> tuple[slice, Tensor]:
    """The part of `old` pixels that is read, and the weights (size, part) of the centre `size` of `new` pixels.

    `stream` keeps them apart: another one would read them before they are there.
    """
    scale = old / new
    stretch = max(scale, 1.0)
    reach = stretch * (2 if interpolation == "bicubic" else 1)
    first = round((new - size) / 2)
    part = slice(max(0, int((first + 0.5) * scale - reach)), min(old, int((first + size - 0.5) * scale + reach) + 1))
    centres = (torch.arange(first, first + size, dtype=torch.float64, device=device) + 0.5) * scale
    pixels = torch.arange(part.start, part.stop, dtype=torch.float64, device=device) + 0.5
    x = (pixels - centres[:, None]).abs() / stretch
    if interpolation == "bicubic":  # Keys' kernel, a = -0.5
        near, far = ((1.5 * x - 2.5) * x * x + 1), ((-0.5 * x + 2.5) * x - 4) * x + 2
        values = torch.where(x < 1, near, torch.where(x < 2, far, 0))
    else:
        values = (1 - x).clamp_min(0)
    values /= values.sum(1, keepdim=True)
    return part, ((values * _WEIGHT_STEPS).round() / _WEIGHT_STEPS).float()


def _to_bytes(values: Tensor) -> Tensor:
    return values.add_(0.5).floor_().clamp_(0, 255)


def _turn_upright(pixels: Tensor, orientation: int) -> Tensor:
    exchanged, mirrored = _UPRIGHT.get(orientation, (False, ()))
    if exchanged:
        pixels = pixels.transpose(-2, -1)
    return pixels.flip(mirrored) if mirrored else pixels


def _header(source: Source, config: ImageConfig, limits: Limits) -> tuple[int, int, int] | None:
    """Width, height and EXIF orientation of a picture that is taken. Pillow reads it in Python, no decoder runs."""
    try:
        if not source.is_encoded or sniff(source, limits).name != "jpeg":
            return None
        with source.open(limits) as file:
            picture = JpegImageFile(file)
            orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # whatever it is, `preprocess.readers.image.read` meets it again and says it properly
        return None
    width, height = picture.size
    samplings = [layer[1:3] for layer in picture.layer]
    plain = (
        picture.mode == "RGB"
        and not picture.info.get("progressive")
        and picture.info.get("adobe_transform", 1) == 1
        and [layer[0] for layer in picture.layer] != list(b"RGB")  # not YCbCr
        and samplings[0] in _SAMPLINGS
        and samplings[1:] == [(1, 1), (1, 1)]
    )
    if not plain or min(width, height) < config.resize or width * height > min(limits.max_pixels, MAX_PIXELS):
        return None
    return width, height, orientation


def _parts(headers: list[tuple[int, tuple[int, int, int]]]) -> Iterator[list[tuple[int, tuple[int, int, int]]]]:
    part: list[tuple[int, tuple[int, int, int]]] = []
    pixels = 0
    for row, header in headers:
        size = header[0] * header[1]
        if part and pixels + size > _TOGETHER_PIXELS:
            yield part
            part, pixels = [], 0
        part.append((row, header))
        pixels += size
    if part:
        yield part


def _content(source: Source, limits: Limits) -> Tensor | None:
    try:
        content = source.read_bytes(limits)
    except MediaError:
        return None
    # nvJPEG would fill up what is missing with grey; libjpeg refuses it.
    return torch.frombuffer(bytearray(content), dtype=torch.uint8) if content.endswith(b"\xff\xd9") else None


def _decode(contents: list[Tensor], device: torch.device) -> list[Tensor | None]:
    """Encoded pictures (bytes) uint8 -> (3, H, W) uint8 each, None for those that cannot be decoded."""
    if not contents:
        return []
    try:
        return list(_decode_all(contents, device))
    except RuntimeError:  # it does not say which of them
        if len(contents) == 1:
            return [None]
    half = len(contents) // 2
    return _decode(contents[:half], device) + _decode(contents[half:], device)


def _decode_all(contents: list[Tensor], device: torch.device) -> list[Tensor]:
    with needs("gpu", "decoding JPEGs on the GPU"):
        from torchvision.io import ImageReadMode, decode_jpeg  # type: ignore[import-untyped]  # slow to import

    decoded: list[Tensor] = decode_jpeg(contents, ImageReadMode.RGB, device=device)
    return decoded


def _to_host(views: Tensor) -> Tensor:
    if not views.is_cuda:
        return views
    stream = torch.cuda.current_stream(views.device)
    copied = torch.empty(views.shape, dtype=views.dtype, pin_memory=True).copy_(views, non_blocking=True)
    # Also because torchvision decodes on a stream of its own: what that writes next may be memory that is free to this
    # one while its last kernels still read it.
    stream.synchronize()
    return copied


@cache
def _check_decoder(device: torch.device) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "JPEG")
    try:
        _decode_all([torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)], device)
    except (ImportError, RuntimeError) as error:
        cause = str(error).partition("\n")[0]
        raise ValueError(
            f'decode="gpu": expected a torchvision with nvJPEG for {device}, got: {cause}; install '
            'torchvision for the CUDA of this torch, or leave decode="isolated"'
        ) from error
