"""The decoder of each format of pictures: what opens its file, as Pillow has it or as another package adds it."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO, cast

from PIL import ImageFile
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.PsdImagePlugin import PsdImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from preprocess.extras import needs
from preprocess.readers import svg


def _heif(file: BinaryIO) -> ImageFile.ImageFile:
    with needs("pictures", "a HEIC or HEIF picture"):
        from pi_heif.as_plugin import HeifImageFile  # only such pictures need it
    return cast(ImageFile.ImageFile, HeifImageFile(file))


def _jpegxl(file: BinaryIO) -> ImageFile.ImageFile:
    with needs("pictures", "a JPEG XL picture"):
        from pillow_jxl.JpegXLImagePlugin import JXLImageFile  # only such pictures need it
    return cast(ImageFile.ImageFile, JXLImageFile(file))


# Decoders are called directly: Image.open would try others, and hold pictures to a process-wide pixel limit of its own.
DECODERS: dict[str, Callable[[BinaryIO], ImageFile.ImageFile]] = {
    "avif": AvifImageFile,
    "bmp": BmpImageFile,
    "gif": GifImageFile,
    "jpeg": JpegImageFile,
    "jpeg2000": Jpeg2KImageFile,
    "heif": _heif,
    "jpegxl": _jpegxl,
    "png": PngImageFile,
    "pnm": PpmImageFile,
    "raw": JpegImageFile,
    "psd": PsdImageFile,
    "svg": svg.decode,
    "tiff": TiffImageFile,
    "webp": WebPImageFile,
}
