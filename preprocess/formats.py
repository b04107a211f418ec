"""Formats of media, told from their first bytes: magic numbers, and text that is a table, prose or a playlist."""

from __future__ import annotations

import csv
from dataclasses import dataclass

from preprocess.encodings import encoding_of
from preprocess.source import Limits, MediaError, Source


@dataclass(frozen=True)
class Format:
    """A recognised content type: `family` is image, audio, video, table, array, text or playlist."""

    name: str
    family: str


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
    (0, b"v/1\x01", Format("exr", "array")),
    (0, b"\x93NUMPY", Format("npy", "array")),
    (0, b"PAR1", Format("parquet", "table")),
    (0, b"fLaC", Format("flac", "audio")),
    (0, b"OggS", Format("ogg", "audio")),
    (0, b"ID3", Format("mp3", "audio")),
    (0, b"caff", Format("caf", "audio")),
    (0, b".snd", Format("au", "audio")),
    (0, b"#!AMR", Format("amr", "audio")),
    (0, b"\x1a\x45\xdf\xa3", Format("matroska", "video")),
    (0, b"FLV\x01", Format("flv", "video")),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", Format("asf", "video")),
    (0, b"\x00\x00\x01\xba", Format("mpeg", "video")),
    (0, b"\x00\x00\x01\xb3", Format("mpegvideo", "video")),
)
_RIFF = {
    b"WAVE": Format("wav", "audio"),
    b"AVI ": Format("avi", "video"),
    b"WEBP": Format("webp", "image"),
}
_BMP_HEADERS = [size.to_bytes(4, "little") for size in (12, 40, 52, 56, 64, 108, 124)]
_FORM = {b"AIFF": Format("aiff", "audio"), b"AIFC": Format("aiff", "audio")}
_IMAGE_BRANDS = {b"avif": "avif", b"avis": "avif", b"heic": "heif", b"heix": "heif", b"mif1": "heif"}
_PLAYLISTS = ("#extm3u", "ffconcat version", "[playlist]", "<?xml", "<smil", "<asx")
_AUDIO_SUFFIXES = {".m4a", ".m4b", ".mka", ".oga", ".opus", ".weba", ".wma"}
_TEXTUAL = ("text", "table")
_FAMILY_OF_SUFFIX = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".avif", ".jp2"), "image"),
    **dict.fromkeys((".wav", ".flac", ".ogg", ".mp3", ".aac", ".aif", ".aiff", *_AUDIO_SUFFIXES), "audio"),
    **dict.fromkeys((".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".flv", ".wmv", ".mpg", ".mpeg", ".ts"), "video"),
    **dict.fromkeys((".csv", ".tsv", ".parquet"), "table"),
    **dict.fromkeys((".npy", ".exr"), "array"),
    **dict.fromkeys((".txt", ".md"), "text"),
}


def sniff(source: Source, limits: Limits) -> Format:
    """The format of the encoded content, from its first bytes; its extension only tells text tables from prose.

    Raises MediaError for unsupported content, playlists, and content whose family contradicts the extension
    (a picture named `.wav`), besides what `Source.open` raises.
    """
    with source.open(limits) as file:
        try:
            head = file.read(4096)
        except OSError as error:
            raise MediaError(source.name, f"could not be read: {error.strerror}") from None
    # Words may begin like the short magic numbers ("BM", "ID3"), so a file that is named as text is looked at as text.
    order = (_from_text, _from_magic) if _FAMILY_OF_SUFFIX.get(source.suffix) in _TEXTUAL else (_from_magic, _from_text)
    found = order[0](head, source.suffix) or order[1](head, source.suffix)
    if found is None:
        raise MediaError(source.name, "is of a type that is not supported (its first bytes match no known format)")
    if found.family == "playlist":
        raise MediaError(source.name, "is a playlist or markup that points at other files; pass the media file itself")
    named = _FAMILY_OF_SUFFIX.get(source.suffix)
    # Containers such as .mp4 and .ogg hold sound or pictures in motion: either name is right for either content.
    moving = {"audio", "video"}
    if named and named != found.family and not {named, found.family} <= moving:
        raise MediaError(
            source.name, f"is named {source.suffix} ({named}) but contains {found.name} ({found.family}); rename it"
        )
    return found


def _from_magic(head: bytes, suffix: str) -> Format | None:
    for offset, magic, found in _MAGIC:
        if head.startswith(magic, offset):
            if found.name == "matroska" and suffix in _AUDIO_SUFFIXES:
                return Format("matroska", "audio")
            if found.name == "ogg" and (b"theora" in head[:128] or suffix == ".ogv"):
                return Format("ogg", "video")
            return found
    if head[:4] in (b"RIFF", b"RF64", b"RIFX"):
        return _RIFF.get(head[8:12])
    if head[:2] == b"BM" and head[14:18] in _BMP_HEADERS:
        return Format("bmp", "image")
    if head[:4] == b"FORM":
        return _FORM.get(head[8:12])
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        if brand in _IMAGE_BRANDS:
            return Format(_IMAGE_BRANDS[brand], "image")
        audio = brand in (b"M4A ", b"M4B ") or suffix in _AUDIO_SUFFIXES
        return Format("mp4", "audio" if audio else "video")
    if head[4:8] in (b"moov", b"mdat", b"wide", b"free"):
        return Format("mp4", "video")
    if len(head) > 188 and head[0] == head[188] == 0x47:
        return Format("mpegts", "video")
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        # The layer bits are 0 in ADTS AAC and never 0 in MPEG audio.
        return Format("aac" if head[1] & 0x06 == 0 else "mp3", "audio")
    return None


def _from_text(head: bytes, suffix: str) -> Format | None:
    encoding = encoding_of(head)
    # Tables are read in any encoding, prose in UTF-8 only.
    if encoding is None or (encoding not in ("utf-8", "utf-8-sig") and suffix not in (".csv", ".tsv")):
        return None
    text = head.decode("utf-8-sig" if encoding == "utf-8" else encoding, errors="ignore")  # the head may end anywhere
    if text.lstrip().lower().startswith(_PLAYLISTS) or suffix in (".m3u", ".m3u8", ".pls", ".ffconcat", ".svg"):
        return Format("playlist", "playlist")
    if suffix in (".csv", ".tsv"):
        return Format("csv", "table")
    if suffix in (".txt", ".md"):
        return Format("text", "text")
    return None


def csv_delimiter(line: str) -> str:
    """The delimiter of a header line: comma, tab or semicolon, whichever cuts it into the most fields."""
    return max(",\t;", key=lambda mark: len(next(csv.reader([line], delimiter=mark), [])))
