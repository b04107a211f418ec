"""Formats of media, told from their first bytes: magic numbers, and text that is a table, prose or a playlist."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, replace
from typing import BinaryIO

from preprocess.audio_frames import behind_tags, frame_kind, frames_from
from preprocess.containers import has_pictures
from preprocess.encodings import encoding_of
from preprocess.source import Limits, MediaError, Source


@dataclass(frozen=True)
class Format:
    """A recognised content type: `family` is image, document, audio, video, table, array, text, playlist or other.

    `offset` is where it begins, in bytes, in a file with something else before it. What is of the family other is not
    supported; its name is what a reason calls it.
    """

    name: str
    family: str
    offset: int = 0


# (offset, magic bytes, format). First match wins; from the formats' own specifications.
_MAGIC: tuple[tuple[int, bytes, Format], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", Format("png", "image")),
    (0, b"\xff\xd8\xff", Format("jpeg", "image")),
    (0, b"GIF87a", Format("gif", "image")),
    (0, b"GIF89a", Format("gif", "image")),
    (0, b"II*\0", Format("tiff", "image")),
    (0, b"MM\0*", Format("tiff", "image")),
    (0, b"II+\0", Format("tiff", "image")),
    (0, b"MM\0+", Format("tiff", "image")),
    (0, b"\x00\x00\x00\x0cjP  ", Format("jpeg2000", "image")),
    (0, b"\xff\x4f\xff\x51", Format("jpeg2000", "image")),
    (0, b"\xff\x0a", Format("jpegxl", "image")),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", Format("jpegxl", "image")),
    (0, b"8BPS", Format("psd", "image")),
    (0, b"%PDF-", Format("pdf", "document")),
    (0, b"v/1\x01", Format("exr", "array")),
    (0, b"\x93NUMPY", Format("npy", "array")),
    (0, b"PAR1", Format("parquet", "table")),
    (0, b"fLaC", Format("flac", "audio")),
    (0, b"OggS", Format("ogg", "audio")),
    (0, b"caff", Format("caf", "audio")),
    (0, b".snd", Format("au", "audio")),
    (0, b"#!AMR", Format("amr", "audio")),
    (0, b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0", Format("w64", "audio")),
    (0, b"NIST_1A\n", Format("sphere", "audio")),
    (0, b"Creative Voice File\x1a", Format("voc", "audio")),
    (0, b"wvpk", Format("wavpack", "audio")),
    (0, b"TTA1", Format("tta", "audio")),
    (0, b"MAC ", Format("ape", "audio")),
    (0, b"\x0b\x77", Format("ac3", "audio")),
    (0, b"\x7f\xfe\x80\x01", Format("dts", "audio")),
    (0, b"\x1a\x45\xdf\xa3", Format("matroska", "video")),
    (0, b"FLV\x01", Format("flv", "video")),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", Format("asf", "video")),
    (0, b"\x00\x00\x01\xba", Format("mpeg", "video")),
    (0, b"\x00\x00\x01\xb3", Format("mpegvideo", "video")),
    (0, b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02\x01\x01\x02", Format("mxf", "video")),
    (0, b"\x1f\x07\x00\x3f", Format("dv", "video")),
    (0, b"\x1f\x07\x00\xbf", Format("dv", "video")),
)
# What is recognised to be refused by its name.
_OTHERS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"PK\x03\x04", "a ZIP archive (or an office document, which is one)"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"BZh", "a bzip2 archive"),
    (0, b"\xfd7zXZ\0", "an xz archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"Rar!\x1a\x07", "a RAR archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an office document of the old kind"),
    (0, b"{\\rtf", "an RTF document"),
    (0, b"%!PS", "a PostScript document"),
    (0, b"gimp xcf", "a GIMP picture"),
    *((0, bytes((0, 0, kind, 0, count, 0)), "an icon") for kind in (1, 2) for count in range(1, 33)),
    (0, b"DDS ", "a DirectDraw texture"),
    (0, b"SIMPLE  =", "a FITS picture"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (0, b"SQLite format 3\0", "an SQLite database"),
    (0, b"MThd", "a MIDI file (notes, no sound)"),
    (0, b".RMF", "a RealMedia film"),
    (0, b"MZ", "a program for Windows"),
    (0, b"\x7fELF", "a program for Linux"),
)
_RIFF = {
    b"WAVE": Format("wav", "audio"),
    b"AVI ": Format("avi", "video"),
    b"WEBP": Format("webp", "image"),
}
_BMP_HEADERS = [size.to_bytes(4, "little") for size in (12, 40, 52, 56, 64, 108, 124)]
_FORM = {b"AIFF": Format("aiff", "audio"), b"AIFC": Format("aiff", "audio")}
_IMAGE_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "avif"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"mif2", b"msf1"), "heif"),
}
# Of TIFFs, which most raw files of cameras are, only the name tells that they are those.
_RAW_SUFFIXES = {
    *(".dng", ".nef", ".nrw", ".cr2", ".arw", ".srf", ".sr2", ".pef", ".srw", ".3fr", ".iiq", ".erf", ".kdc", ".dcr"),
    *(".orf", ".rw2", ".raf", ".cr3", ".rwl", ".fff", ".mos", ".mef", ".crw", ".mrw", ".x3f"),
}
_RAW_MAGIC = (
    *(b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FUJIFILMCCD-RAW", b"FOVb", b"\0MRM"),
    *(b"II\x1a\0\0\0HEAPCCDR", b"MM\0\0\0\x1aHEAPCCDR"),
)
_PNM = re.compile(rb"P[1-6]\s[\s#\d]")
_PLAYLISTS = ("#extm3u", "ffconcat version", "[playlist]", "<smil", "<asx", "<mpd", "<playlist")
_SVG = re.compile(
    r"(?:\s|<!--(?:(?!-->).)*-->|<!doctype svg\b[^>\[]*(?:\[[^\]]*\]\s*)?>)*<(?:[\w.-]+:)?svg[\s>]", re.DOTALL
)
_MARKUP = {"<!doctype html": "a web page", "<html": "a web page", "<gpx": "a GPX track", "<kml": "a KML map"}
_AUDIO_SUFFIXES = {".m4a", ".m4b", ".mka", ".oga", ".opus", ".weba", ".wma"}
_TEXTUAL = ("text", "table")
_FAMILY_OF_SUFFIX = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".avif", ".jp2"), "image"),
    **dict.fromkeys((".pnm", ".pbm", ".pgm", ".ppm"), "image"),
    **dict.fromkeys((".heic", ".heif", ".hif", ".jxl", ".psd", ".psb", ".svg", *_RAW_SUFFIXES), "image"),
    **dict.fromkeys((".wav", ".flac", ".ogg", ".mp3", ".aac", ".aif", ".aiff", *_AUDIO_SUFFIXES), "audio"),
    **dict.fromkeys((".w64", ".voc", ".wv", ".tta", ".ac3", ".eac3", ".ape", ".dts", ".sph", ".caf", ".au"), "audio"),
    **dict.fromkeys((".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".flv", ".wmv", ".mpg", ".mpeg", ".ts"), "video"),
    **dict.fromkeys((".mts", ".m2ts", ".m2t", ".mxf", ".dv", ".3gp", ".3g2"), "video"),
    **dict.fromkeys((".csv", ".tsv", ".parquet"), "table"),
    **dict.fromkeys((".npy", ".exr"), "array"),
    **dict.fromkeys((".txt", ".md"), "text"),
    ".pdf": "document",
}


def sniff(source: Source, limits: Limits) -> Format:
    """The format of the encoded content, from its first bytes; its extension only tells text tables from prose.

    Of containers of moving media the index says whether they hold sound only: `.webm`, `.mp4` and `.3gp` without
    pictures are of the family audio, wherever they are met. Raises MediaError for unsupported content, playlists, and
    content whose family contradicts the extension (a picture named `.wav`), besides what `Source.open` raises.
    """
    with source.open(limits) as file:
        try:
            found = _recognised(file, source.suffix)
        except OSError as error:
            raise MediaError(source.name, f"could not be read: {error.strerror}") from None
    if found is None:
        raise MediaError(source.name, "is of a type that is not supported (its first bytes match no known format)")
    if found.family == "playlist":
        raise MediaError(source.name, "is a playlist or markup that points at other files; pass the media file itself")
    named = _FAMILY_OF_SUFFIX.get(source.suffix)
    if found.family == "other":
        raise MediaError(source.name, f"is {found.name}, which is of a type that is not supported")
    # Containers such as .mp4 and .ogg hold sound or pictures in motion: either name is right for either content.
    moving = {"audio", "video"}
    if named and named != found.family and not {named, found.family} <= moving:
        raise MediaError(
            source.name, f"is named {source.suffix} ({named}) but contains {found.name} ({found.family}); rename it"
        )
    return found


def _recognised(file: BinaryIO, suffix: str) -> Format | None:
    head = file.read(4096)
    # Words may begin like the short magic numbers ("BM", "ID3"), so a file that is named as text is looked at as text.
    if _FAMILY_OF_SUFFIX.get(suffix) in _TEXTUAL and (found := _from_text(head, suffix)):
        return found
    found = _from_magic(head, suffix) or _from_audio_frames(file, head, suffix) or _from_text(head, suffix)
    if found is None:
        found = next((Format(name, "other") for at, magic, name in _OTHERS if head.startswith(magic, at)), None)
    elif found.family == "video" and has_pictures(found.name, file) is False:
        return replace(found, family="audio")
    return found


def _from_magic(head: bytes, suffix: str) -> Format | None:
    is_tiff = head[:4] in (b"II*\0", b"MM\0*")
    if head.startswith(_RAW_MAGIC) or head[4:12] == b"ftypcrx " or (is_tiff and suffix in _RAW_SUFFIXES):
        return Format("raw", "image")
    for offset, magic, found in _MAGIC:
        if head.startswith(magic, offset):
            if found.name == "matroska" and suffix in _AUDIO_SUFFIXES:
                return Format("matroska", "audio")
            if found.name == "ogg" and suffix not in _AUDIO_SUFFIXES:
                return Format("ogg", "video")  # unless its first pages name no codec of pictures
            return found
    if head[:4] in (b"RIFF", b"RF64", b"RIFX", b"BW64"):
        return _RIFF.get(head[8:12])
    if _PNM.match(head):
        return Format("pnm", "image")
    if head[:2] == b"BM" and head[14:18] in _BMP_HEADERS:
        return Format("bmp", "image")
    if head[:4] == b"FORM":
        return _FORM.get(head[8:12])
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        if brand in _IMAGE_BRANDS:
            compatible = head[16 : int.from_bytes(head[:4])]
            general = brand in (b"mif1", b"mif2", b"msf1") and (b"avif" in compatible or b"avis" in compatible)
            return Format("avif" if general else _IMAGE_BRANDS[brand], "image")
        audio = brand in (b"M4A ", b"M4B ") or suffix in _AUDIO_SUFFIXES
        return Format("mp4", "audio" if audio else "video")
    if head[4:8] in (b"moov", b"mdat", b"wide", b"free"):
        return Format("mp4", "video")
    # AVCHD and Blu-ray put a time stamp of four bytes before every packet.
    if len(head) > 196 and (head[0] == head[188] == 0x47 or head[4] == head[196] == 0x47):
        return Format("mpegts", "video")
    return None


def _from_audio_frames(file: BinaryIO, head: bytes, suffix: str) -> Format | None:
    """Sound behind tags, zeros or (in a file that is named as such) junk."""
    if kind := frame_kind(head, frames=2):
        return Format(kind, "audio")
    tagged = head[:3] == b"ID3" or head.startswith((b"APETAGEX", b"\0\0\0\0"))
    start = behind_tags(file) if tagged else 0
    file.seek(start)
    behind = file.read(4096)
    if start and (found := _from_magic(behind, "")) and found.family == "audio":
        return replace(found, offset=start)
    if (tagged or suffix in (".mp3", ".aac")) and (frames := frames_from(file, start)):
        # Decoders know an ID3v2 tag, and read from it.
        return Format(frames[1], "audio", 0 if head[:3] == b"ID3" and frames[0] == start else frames[0])
    return Format("mp3", "audio") if head[:3] == b"ID3" and suffix in (".mp3", "") else None


def _from_text(head: bytes, suffix: str) -> Format | None:
    encoding = encoding_of(head)
    if encoding is None:
        return None
    # The head may end within a character.
    text = head.decode("utf-8-sig" if encoding == "utf-8" else encoding, "ignore").lstrip("\ufeff")
    start = text.lstrip().lower()
    inside = start.partition("?>")[2].lstrip() if start.startswith("<?xml") else start
    if inside.startswith(_PLAYLISTS) or suffix in (".m3u", ".m3u8", ".pls", ".ffconcat"):
        return Format("playlist", "playlist")
    if _SVG.match(inside):
        return Format("svg", "image")
    if suffix in (".csv", ".tsv"):
        return Format("csv", "table")
    if suffix in (".txt", ".md"):
        return Format("text", "text")
    if markup := next((name for mark, name in _MARKUP.items() if inside.startswith(mark)), None):
        return Format(markup, "other")
    if start.startswith("<?xml"):
        return Format("an XML document", "other")
    return None


def csv_delimiter(line: str) -> str:
    """The delimiter of a header line: comma, tab, semicolon or bar, whichever cuts it into the most fields."""
    return max(",\t;|", key=lambda mark: len(next(csv.reader([line], delimiter=mark), [])))
