"""Rasters: what pictures, depth maps and thermal images share. Decoding, filling of holes, resize and centre crop.

Only the decoder of the sniffed format runs; colour profiles are ignored, as the reference loaders do.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image
from PIL.JpegImagePlugin import JpegImageFile

from preprocess.extras import MissingExtra, needs
from preprocess.formats import Format, sniff
from preprocess.readers import jpeg, raw
from preprocess.readers.decoders import DECODERS
from preprocess.readers.picture_facts import NO_TAGS, Tags, facts_of
from preprocess.source import Limits, MediaError, Source

_PLANE_MODES = ("L", "I;16", "I;16L", "I;16B", "I;16N", "I", "F")
"""Pillow's modes of pictures with one channel of numbers."""
# EXIF 2.3, tag 0x0112: what turns a stored picture upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What a picture may cost for its size: so many pixels are free (about a second), and so many more for each byte. A real
# picture has more bytes than that; a white page stays among the free ones, up to A1 at 300 dpi, drawings up to A0.
_PIXELS_FOR_BYTES: dict[str, tuple[float, float]] = {
    "avif": (32e6, 200),
    "gif": (64e6, 100),
    "heif": (32e6, 200),
    "psd": (64e6, 100),
    "jpeg": (64e6, 100),
    "jpeg2000": (16e6, 20),
    "png": (64e6, 100),
    "tiff": (64e6, 100),
    "webp": (32e6, 200),
}
_BITS_FOR_BYTES = (100e6, 300.0)
# Values (16-bit, float, depth, thermal) are computed with in numpy, at some ten times the cost of a pixel.
_VALUES_FOR_BYTES = (16e6, 2.0)
# Pillow joins a GIF's comments piece by piece, in quadratic time.
_MOST_GIF_EXTENSION_BYTES = 2**17
_FACTS, _PREVIEW, _FILM = "crossbind facts", "crossbind preview", "crossbind film"
_EXR_CHANNELS = ("z", "depth", "y", "r")
# Beyond this aspect ratio only the cropped part is resized: a 1 x 30,000 picture would need 6 GB otherwise.
_LONG_ASPECT = 4
WHOLE_PX = 1024
"""The long side of a picture that is read whole, with its proportions, to look for places in it."""


def decode_picture(source: Source, limits: Limits, least_side: int = 0, found: Format | None = None) -> Image.Image:
    """Encoded or in-memory picture -> its first frame, decoded and turned upright by EXIF, in its own Pillow mode.

    `found` is its format, where that is known. With `least_side` a JPEG may come at 1/2, 1/4 or 1/8 of its size, the
    short side still at least that many pixels.
    Raises MediaError for what is no picture, is damaged, or has more than `max_pixels` (told from the header).
    """
    if isinstance(source.content, Image.Image):
        with _decoding(source):  # a picture opened by the caller is decoded only now
            return _load(source, source.content, limits, 0)
    found = found or sniff(source, limits)
    if found.name not in DECODERS:
        raise MediaError(source.name, f"is {found.name}, expected a picture: {', '.join(DECODERS)}; convert it")
    with source.open(limits) as file, _decoding(source):
        if found.name == "tiff" and (picture := _read_unusual_tiff(source, file, limits)):
            return picture
        around = NO_TAGS
        if found.name == "raw":
            around = raw.tags(file)
            file = io.BytesIO(raw.preview(source, file))
        if found.name == "gif":
            _check_gif_extensions(source, file)
        picture, has_film = DECODERS[found.name](file), False
        _check_size(source, picture.size, limits)
        if picture.mode in _PLANE_MODES and picture.mode != "L":
            check_cost(source, file, math.prod(picture.size), *_VALUES_FOR_BYTES)
        elif found.name in _PIXELS_FOR_BYTES:
            of_format = _BITS_FOR_BYTES if picture.mode == "1" else _PIXELS_FOR_BYTES[found.name]
            check_cost(source, file, math.prod(picture.size), *of_format)
        if found.name in ("jpeg", "raw"):
            has_film = jpeg.check_scans(source, file, math.prod(picture.size))
        loaded = _load(source, picture, limits, least_side, around)
        loaded.info[_PREVIEW] = found.name == "raw"
        loaded.info[_FILM] = has_film
        return loaded


def is_preview(picture: Image.Image) -> bool:
    """Whether a picture that `decode_picture` returned is what a camera's raw file has beside its sensor's values."""
    return bool(picture.info.get(_PREVIEW, False))


def has_film(picture: Image.Image) -> bool:
    """Whether a picture that `decode_picture` returned is a motion photo: a JPEG with a film behind it."""
    return bool(picture.info.get(_FILM, False))


def to_rgb(picture: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """Picture of any mode -> (RGB picture, notes). Transparent parts become white.

    16-bit grey becomes 8-bit with 2^n - 1 as white, n being the bits that its brightest pixel needs: a picture that
    uses all 16 equals its 8-bit version (value / 257), and 12-bit sensor data is not black. 32-bit grey has no
    defined white: its own range is stretched. Raises ValueError for colour spaces Pillow cannot convert (LAB).
    """
    if picture.mode in _PLANE_MODES and picture.mode != "L":
        values, note = _to_8_bit(np.asarray(picture))
        return Image.fromarray(values).convert("RGB"), (note,)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        canvas = Image.new("RGB", picture.size, "white")
        canvas.paste(picture, mask=picture)
        return canvas, ("transparent parts were laid on white",)
    # `convert` copies what is RGB already: a millisecond of each megapixel.
    return picture if picture.mode == "RGB" else picture.convert("RGB"), ()


def read_values(source: Source, limits: Limits) -> np.ndarray:
    """One-channel picture, `.npy`, `.exr`, array or PIL image -> its values (H, W) in their own type.

    A picture or uint8 array with colour comes as uint8 (H, W, 3). Of the channels of an EXR, Z, depth, Y or R is taken.
    Raises MediaError for anything else, for damage, and above `max_pixels`.
    """
    if isinstance(source.content, np.ndarray):
        values = source.content.reshape(_check_array(source, source.content.shape, source.content.dtype, limits))
    elif source.is_encoded and (found := sniff(source, limits)).family == "array":
        values = _read_npy(source, limits) if found.name == "npy" else _read_exr(source, limits)
    else:
        picture = decode_picture(source, limits)
        if source.is_encoded:
            with source.open(limits) as file:
                check_cost(source, file, math.prod(picture.size), *_VALUES_FOR_BYTES)
        values = np.asarray(picture if picture.mode in _PLANE_MODES else to_rgb(picture)[0])
    return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("="))


def fill_holes(source: Source, values: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """(H, W) values and where they are valid -> (all valid, notes): a hole takes the value of its nearest valid pixel.

    Nearest in Euclidean pixel distance. Raises MediaError when no pixel is valid.
    """
    share = 1.0 - np.count_nonzero(valid) / valid.size
    if share == 0.0:
        return values, ()
    if share == 1.0:
        raise MediaError(source.name, "has no valid pixel: all are zero, negative, NaN or infinite")
    from scipy.ndimage import distance_transform_edt  # takes a second to import

    nearest = distance_transform_edt(~valid, return_distances=False, return_indices=True)
    return values[tuple(nearest)], (f"holes filled from the nearest valid pixel ({share:.2%} of the picture)",)


def resize_crop(picture: Image.Image, resize: int, size: int, resample: Image.Resampling) -> Image.Image:
    """Short side to `resize` pixels with antialias, then the centre `size` x `size`.

    Equals torchvision's Resize and CenterCrop on PIL images; those longer than 4:1 as `resize_kept` says.
    """
    if max(picture.size) > _LONG_ASPECT * min(picture.size):
        return resize_kept(picture, resize, size, resample)
    new_size, (left, top) = _centre(picture, resize, size)
    return picture.resize(new_size, resample).crop((left, top, left + size, top + size))


def resize_kept(picture: Image.Image, resize: int, size: int, resample: Image.Resampling) -> Image.Image:
    """As `resize_crop` in a quarter (4:3) to half (256 to 224) less time: only the part that is kept is resized.

    Of 8-bit pictures that changes one level in a few pixels of 10,000, and of 1,000 where the sizes are simple ratios
    and sums often lie on an edge: Pillow holds the part's borders as float32.
    """
    (new_width, new_height), (left, top) = _centre(picture, resize, size)
    width, height = picture.size
    across, down = width / new_width, height / new_height
    x = y = 0
    if max(width, height) > _LONG_ASPECT * min(width, height):  # float32 would be too coarse for positions far out
        # The bicubic kernel reads two pixels beyond an edge, of the coarser raster.
        reach = math.ceil(2 * max(across, down, 1.0)) + 1
        x, y = max(0, math.floor(left * across) - reach), max(0, math.floor(top * down) - reach)
        end = math.ceil((left + size) * across) + reach, math.ceil((top + size) * down) + reach
        picture = picture.crop((x, y, min(width, end[0]), min(height, end[1])))
    right, bottom = (left + size) * across - x, (top + size) * down - y
    box = (left * across - x, top * down - y, min(right, picture.width), min(bottom, picture.height))
    return picture.resize((size, size), resample, box=box)


def fit_within(picture: Image.Image, longest: int, resample: Image.Resampling) -> Image.Image:
    """The whole picture in its proportions, smaller where its long side has more than `longest` pixels."""
    share = min(1.0, longest / max(picture.size))
    width, height = (max(1, round(side * share)) for side in picture.size)
    return picture.resize((width, height), resample)


def resize_squashed(picture: Image.Image, resize: int, size: int, resample: Image.Resampling) -> Image.Image:
    """Both sides to `resize` pixels with antialias, whatever the proportions, then the centre `size` x `size`."""
    start = round((resize - size) / 2)
    return picture.resize((resize, resize), resample).crop((start, start, start + size, start + size))


def check_views(views: np.ndarray, shape: tuple[int, ...], dtype: type[np.generic], reader: str) -> None:
    """Raises ValueError unless `views` are (K, *shape) of `dtype`, K >= 1; `reader` makes such views."""
    if views.shape[1:] != shape or len(views) == 0 or views.dtype != dtype:
        raise ValueError(
            f"expected views ('K', {', '.join(map(str, shape))}) {np.dtype(dtype)}, "
            f"got {views.shape} {views.dtype}; use {reader}"
        )


def _centre(picture: Image.Image, resize: int, size: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """The size of the whole with its short side at `resize`, and where its centre `size` x `size` begins."""
    short, long = min(picture.size), max(picture.size)
    new = resize, int(resize * long / short)
    width, height = new if picture.width <= picture.height else new[::-1]
    return (width, height), (round((width - size) / 2), round((height - size) / 2))


@contextmanager
def _decoding(source: Source) -> Iterator[None]:
    try:
        yield
    except (MediaError, MissingExtra, MemoryError):
        raise
    except Exception as error:  # decoders raise what they like: SyntaxError, struct.error, zlib.error, C++ exceptions
        raise MediaError(
            source.name, f"could not be decoded, it is damaged or of an unusual kind: {error!r}"
        ) from error


def _load(
    source: Source,
    picture: Image.Image,
    limits: Limits,
    least_side: int,
    around: tuple[Tags, Tags, Tags] = NO_TAGS,
) -> Image.Image:
    _check_size(source, picture.size, limits)
    facts = facts_of(picture, picture.size, around)
    if least_side and isinstance(picture, JpegImageFile):
        picture.draft(None, (least_side, least_side))
    picture.load()
    try:
        orientation = picture.getexif().get(ExifTags.Base.Orientation, around[0].get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF is no reason to refuse sound pixels
        orientation = 1
    upright = _turn_upright(picture, orientation)
    upright.info[_FACTS] = facts
    return upright


def metadata_of(picture: Image.Image) -> dict[str, Any]:
    """What the file of a picture that `decode_picture` returned says of itself, as `preprocess.metadata` has it."""
    facts: dict[str, Any] = picture.info.get(_FACTS, {})
    return facts


def _turn_upright(picture: Image.Image, orientation: int) -> Image.Image:
    return picture.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else picture


def _read_unusual_tiff(source: Source, file: BinaryIO, limits: Limits) -> Image.Image | None:
    """One-channel TIFF of numbers that Pillow (12.3) cannot read, or silently reads wrongly; None for all others.

    Floats become float32 and integers int32. Raises MediaError for integers beyond that.
    """
    import tifffile  # only TIFF files need it

    tiff = tifffile.TiffFile(file, name=source.name)
    page, dtype = tiff.pages.first, tiff.pages.first.dtype
    little_endian = ("int16", "int32", "float32") if tiff.byteorder == "<" else ()
    if page.samplesperpixel > 1 or dtype is None or dtype.name in ("bool", "uint8", "uint16", *little_endian):
        file.seek(0)
        return None
    _check_size(source, page.shape, limits)
    check_cost(source, file, math.prod(page.shape), *_VALUES_FOR_BYTES)
    values = page.asarray()
    if dtype.kind != "f" and (values.min() < -(2**31) or values.max() >= 2**31):
        raise MediaError(source.name, f"is a TIFF of {dtype} beyond the range of int32; save it as float32")
    picture = Image.fromarray(values.astype(np.float32 if dtype.kind == "f" else np.int32))
    return _turn_upright(picture, page.tags.valueof(ExifTags.Base.Orientation, 1))


def _check_size(source: Source, size: tuple[int, ...], limits: Limits) -> None:
    pixels = math.prod(size)
    if pixels <= 0:
        raise MediaError(source.name, f"has no pixels ({' x '.join(map(str, size))})")
    if pixels > limits.max_pixels:
        shape = " x ".join(f"{n:,}" for n in size)
        raise MediaError(source.name, f"has {shape} pixels, the limit is {limits.max_pixels:,} (max_pixels)")


def check_cost(source: Source, file: BinaryIO, elements: int, free: float, for_each_byte: float) -> None:
    """Raises MediaError for more than `free` elements and `for_each_byte` byte of the file; its place stays."""
    place = file.tell()
    size = file.seek(0, 2)
    file.seek(place)
    if elements > free + for_each_byte * size:
        raise MediaError(
            source.name,
            f"announces {elements:,} pixels in {size:,} bytes, more than a real picture of that size has "
            f"({free + for_each_byte * size:,.0f}); it would cost much time and memory, save it smaller",
        )


def _check_gif_extensions(source: Source, file: BinaryIO) -> None:
    """Walks over what comes before the first frame (GIF89a, sections 15 to 26)."""
    header = file.read(13)
    place = 13 + (3 << (header[10] & 7) + 1 if len(header) == 13 and header[10] & 0x80 else 0)
    file.seek(place)
    head = file.read(_MOST_GIF_EXTENSION_BYTES + 1)
    file.seek(0)
    at = 0
    while head[at : at + 1] == b"!":
        at += 2
        while at < len(head) and head[at]:
            at += head[at] + 1
        at += 1
    if at > _MOST_GIF_EXTENSION_BYTES:
        raise MediaError(
            source.name, f"has more than {_MOST_GIF_EXTENSION_BYTES:,} bytes of comments before its first frame"
        )


def _check_array(source: Source, shape: tuple[int, ...], dtype: np.dtype, limits: Limits) -> tuple[int, ...]:
    """The shape to use: (H, W), also for (1, H, W) and (H, W, 1), or (H, W, 3) uint8."""
    used = shape[1:] if len(shape) == 3 and shape[0] == 1 else shape[:2] if shape[2:] == (1,) else shape
    grey = len(used) == 2 and dtype.kind in "uif"
    colour = len(used) == 3 and used[2] == 3 and dtype == np.uint8
    if not grey and not colour:
        raise MediaError(source.name, f"expected an array (height, width) of numbers, got {shape} {dtype}")
    _check_size(source, used[:2], limits)
    return used


def _to_8_bit(values: np.ndarray) -> tuple[np.ndarray, str]:
    if values.dtype.kind == "u":
        bits = max(8, int(values.max()).bit_length())
        low, high = 0.0, float(2**bits - 1)
        note = f"16-bit grey: {bits} bits in use, {high:.0f} became white"
    else:
        values = np.where(np.isfinite(values), values, np.nan)
        if np.isnan(values).all():
            raise ValueError("every pixel is NaN or infinite")
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        values = np.nan_to_num(values, nan=low)
        note = f"32-bit grey: {low:g} became black, {high:g} white"
    scaled = (values - np.float32(low)) * np.float32(255.0 / ((high - low) or 1.0))
    return np.rint(scaled).astype(np.uint8), note


def _read_npy(source: Source, limits: Limits) -> np.ndarray:
    with source.open(limits) as file, _decoding(source):
        version = np.lib.format.read_magic(file)
        if version > (2, 0):
            raise MediaError(source.name, f"is .npy version {version}, expected an array of plain numbers")
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(file)
        # The header is held against the limits and the file before numpy allocates what it promises.
        used = _check_array(source, shape, dtype, limits)
        start = file.tell()
        missing = math.prod(shape) * dtype.itemsize - (file.seek(0, 2) - start)
        if missing > 0:
            raise MediaError(source.name, f"is truncated: {missing:,} of its bytes are missing")
        file.seek(0)
        values: np.ndarray = np.load(file, allow_pickle=False)
        return values.reshape(used)


def _read_exr(source: Source, limits: Limits) -> np.ndarray:
    with needs("sensors", "an EXR file"):
        import OpenEXR  # only EXR files need it

    with source.open(limits) as file, _decoding(source):
        parts = OpenEXR.File(file, separate_channels=True, header_only=True).parts
        values = 0
        for part in parts:
            (x0, y0), (x1, y1) = part.header["dataWindow"]
            size = int(x1) - int(x0) + 1, int(y1) - int(y0) + 1
            _check_size(source, size, limits)
            values += math.prod(size) * max(1, len(part.header["channels"]))
        check_cost(source, file, values, *_VALUES_FOR_BYTES)
        file.seek(0)
        channels = OpenEXR.File(file, separate_channels=True).channels()
    by_name = {name.rsplit(".", 1)[-1].lower(): channel.pixels for name, channel in channels.items()}
    chosen = next((name for name in _EXR_CHANNELS if name in by_name), None)
    if chosen is None:
        raise MediaError(source.name, f"expected an EXR channel Z, depth, Y or R, got {', '.join(channels) or 'none'}")
    if chosen == "r" and not all(np.array_equal(by_name.get(c, by_name["r"]), by_name["r"]) for c in "gb"):
        raise MediaError(source.name, "is a colour EXR; expected one channel named Z, depth, Y or R")
    return np.asarray(by_name[chosen])
